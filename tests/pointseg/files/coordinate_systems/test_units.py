"""Units of LAS files: what text and keys say, what is stated, and what cannot be known."""

from __future__ import annotations

import struct

import laspy
import numpy as np
import pytest

from pointseg.files import CloudFileError
from pointseg.files.coordinate_systems.epsg_units import FOOT_M, US_FOOT_M, unit_of_epsg
from pointseg.files.coordinate_systems.system import read_coordinate_system
from pointseg.files.coordinate_systems.units import file_unit
from pointseg.files.coordinate_systems.wkt import DEEPEST, WktError, parse_wkt
from pointseg.files.las.header import read_header

DEGREES = (
    'GEOGCS["WGS 84",DATUM["W",SPHEROID["W",6378137,298.25]],UNIT["degree",0.0174532925199433]'
)
PROJECTED = f'PROJCS["Here",{DEGREES}],PROJECTION["Transverse_Mercator"],'
METRE = f'{PROJECTED}UNIT["metre",1]]'
US_FOOT = f'{PROJECTED}UNIT["US survey foot",0.304800609601219]]'
HEIGHT = 'VERT_CS["Up",VERT_DATUM["D",2005],UNIT["foot",0.3048],AXIS["Up",UP]]'
WKT2 = (
    'BOUNDCRS[SOURCECRS[COMPOUNDCRS["Both",PROJCRS["Here (ft)",BASEGEOGCRS["W",DATUM["W",ELLIPSOID["W",6378137,298.25,'
    'LENGTHUNIT["metre",1]]]],CONVERSION["c",METHOD["m"]],CS[Cartesian,2],AXIS["e",east,ORDER[1],'
    'LENGTHUNIT["foot",0.3048]],AXIS["n",north,ORDER[2],LENGTHUNIT["foot",0.3048]]],VERTCRS["Up",VDATUM["D"],'
    'CS[vertical,1],AXIS["h",up],LENGTHUNIT["metre",1]]]],TARGETCRS[GEOGCRS["W",DATUM["W"],CS[ellipsoidal,2]]]]'
)
SOLID = (
    'PROJCRS["3D",BASEGEOGCRS["W"],CS[Cartesian,3],AXIS["e",east,LENGTHUNIT["metre",1]],AXIS["n",north,'
    'LENGTHUNIT["metre",1]],AXIS["h",up,LENGTHUNIT["US survey foot",0.30480061]]]'
)


def las(path, *, text=None, keys=(), doubles=(), words=b""):
    """A LAS file of one point with a coordinate system: text, or GeoTIFF's keys (key, place, count, value)."""
    header = laspy.LasHeader(
        point_format=6 if text is not None else 1, version="1.4" if text is not None else "1.2"
    )
    records = []
    if text is not None:
        records.append((2112, text.encode() + b"\0"))
        header.global_encoding.wkt = True
    if keys:
        directory = [1, 1, 0, len(keys), *(number for key in keys for number in key)]
        records.append((34735, struct.pack(f"<{len(directory)}H", *directory)))
        records.append((34736, struct.pack(f"<{len(doubles)}d", *doubles)))
        records.append((34737, words))
    for number, content in records:
        header.vlrs.append(laspy.VLR("LASF_Projection", number, "", content))
    cloud = laspy.LasData(header, laspy.ScaleAwarePointRecord.zeros(1, header=header))
    cloud.write(path)
    return path


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        (METRE, 1.0, None),
        (US_FOOT, US_FOOT_M, "(Here) is in US survey feet, and says no other unit of heights"),
        (
            f'COMPD_CS["A + B",{US_FOOT},{HEIGHT}]',
            (US_FOOT_M, US_FOOT_M, FOOT_M),
            "heights in feet",
        ),
        (f"{METRE},{HEIGHT}", (1.0, 1.0, FOOT_M), "x and y in metres, heights in feet"),  # ESRI
        (WKT2, (FOOT_M, FOOT_M, 1.0), "(Both) has x and y in feet, heights in metres"),
        (SOLID, (1.0, 1.0, US_FOOT_M), "heights in US survey feet"),
        (f'{PROJECTED}AUTHORITY["EPSG","2225"]]', US_FOOT_M, "US survey feet"),
        (f'{PROJECTED}AUTHORITY["EPSG","99999"]]', 1.0, "does not say the unit"),
        (f'{PROJECTED}UNIT["Foot_US"]]', US_FOOT_M, "US survey feet"),
        ('LOCAL_CS["site",UNIT["foot",0.3048]]', FOOT_M, "is in feet"),
        (HEIGHT, (1.0, 1.0, FOOT_M), "does not say the unit of x and y"),
        ("PROJCS[", 1.0, "cannot be read: its text is malformed"),
        ('DATUM["x"]', 1.0, "cannot be read: 'DATUM'"),
    ],
)
def test_text(tmp_path, text, unit, said):
    found = file_unit(las(tmp_path / "a.las", text=text))
    assert found.unit_m == pytest.approx(unit, rel=1e-12)
    assert (said is None and not found.notes) or said in found.notes[0]


@pytest.mark.parametrize(
    ("keys", "unit", "said"),
    [
        ([(1024, 0, 1, 1), (3072, 0, 1, 32632), (3076, 0, 1, 9001)], 1.0, None),
        ([(3072, 0, 1, 2229), (3076, 0, 1, 9003)], US_FOOT_M, "US survey feet"),
        ([(3072, 0, 1, 2229)], US_FOOT_M, "EPSG:2229"),  # the number alone
        ([(3072, 0, 1, 2222), (4099, 0, 1, 9001)], (FOOT_M, FOOT_M, 1.0), "heights in metres"),
        ([(3072, 0, 1, 2154), (4096, 0, 1, 6360)], (1.0, 1.0, US_FOOT_M), "heights in US survey"),
        (
            [(1024, 0, 1, 1), (3072, 0, 1, 32767), (3076, 0, 1, 32767), (3077, 34736, 1, 1)],
            FOOT_M,
            "feet",
        ),
        ([(1024, 0, 1, 1), (3073, 34737, 9, 3)], US_FOOT_M, "(NY_ftUS)"),
        ([(1024, 0, 1, 1), (3072, 0, 1, 19000)], 1.0, "does not say the unit"),
        ([(1024, 0, 1, 1), (3076, 34736, 1, 9999)], 1.0, "does not say the unit"),  # out of bounds
    ],
)
def test_keys(tmp_path, keys, unit, said):
    path = las(tmp_path / "a.las", keys=keys, doubles=(5.0, 0.3048), words=b"xx|NY_ftUS |")
    found = file_unit(path)
    assert found.unit_m == pytest.approx(unit, rel=1e-12)
    assert (said is None and not found.notes) or said in found.notes[0]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"text": DEGREES + "]"}, r"degrees by its coordinate system \(WGS 84\)"),
        ({"text": f'COMPD_CS["A",{DEGREES}],{HEIGHT}]'}, "degrees"),
        ({"text": f'GEOCCS["ECEF",{DEGREES}],UNIT["metre",1]]'}, "geocentric"),
        ({"text": 'GEODCRS["E",DATUM["W"],CS[Cartesian,3],LENGTHUNIT["metre",1]]'}, "geocentric"),
        ({"keys": [(1024, 0, 1, 2), (2048, 0, 1, 4326), (4099, 0, 1, 9001)]}, "degrees"),
        ({"keys": [(2048, 0, 1, 4326)]}, "degrees"),
        ({"keys": [(1024, 0, 1, 2), (2048, 0, 1, 4326), (3076, 0, 1, 9001)]}, "degrees"),
        ({"keys": [(1024, 0, 1, 3), (2048, 0, 1, 4978), (3076, 0, 1, 9001)]}, "geocentric"),
    ],
)
def test_what_is_not_in_lengths_along_a_vertical_axis_is_refused(tmp_path, given, problem):
    path = las(tmp_path / "a.las", **given)
    with pytest.raises(CloudFileError, match=rf"a\.las: its coordinates are {problem}.*project it"):
        file_unit(path)
    found = file_unit(path, 1.0)  # whoever states a unit knows better
    assert found.unit_m == 1.0 and "metres were stated" in found.notes[0]


def test_what_is_stated_counts_and_disagreement_is_said(tmp_path):
    path = las(tmp_path / "a.las", text=US_FOOT)
    assert file_unit(path, 0.3048) == type(file_unit(path))(0.3048)  # one foot serves all surveys
    found = file_unit(path, 1.0)
    assert found.unit_m == 1.0 and "says US survey feet; metres were stated" in found.notes[0]
    bare = las(tmp_path / "b.las")
    (note,) = file_unit(bare).notes
    assert "no coordinate system" in note and "--unit" in note
    assert file_unit(bare, 0.3048).notes == () and file_unit(tmp_path / "c.ply").unit_m == 1.0


def test_the_text_counts_where_the_header_says_so_else_the_keys(tmp_path):
    path = las(tmp_path / "a.las", text=US_FOOT, keys=[(3076, 0, 1, 9001)])
    assert file_unit(path).unit_m == US_FOOT_M
    data = bytearray(path.read_bytes())
    data[6] &= 0xEF
    path.write_bytes(data)
    assert file_unit(path).unit_m == 1.0


def test_the_case_and_real_tiles(shared):
    found = file_unit(shared / "cases/points/las_us_feet/us_feet_wkt.laz")
    assert found.unit_m == US_FOOT_M and "US survey feet: converted to metres" in found.notes[0]
    for name in ("lidr_als/Megaplot.laz", "lidr_als/Topography.laz"):
        path = shared / "data/points" / name
        system = read_coordinate_system(read_header(path))
        assert (system.kind, system.horizontal_m) == ("projected", 1.0), name
        assert file_unit(path).notes == ()


def test_numbers_of_epsg():
    assert [unit_of_epsg(code) for code in (2229, 6360, 3417, 10516)] == [US_FOOT_M] * 4
    assert [unit_of_epsg(code) for code in (2222, 8228, 6141)] == [FOOT_M] * 3
    assert [unit_of_epsg(code) for code in (2154, 32632, 5703, 3857)] == [1.0] * 4
    assert [unit_of_epsg(code) for code in (2066, 15000, 40000, 5)] == [None] * 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "A[",
        "A[1]]",
        "[1]",
        "A[B[" * 200 + "]]" * 200,
        "A[" * (DEEPEST + 1),
        'A["' + "x" * 300_000 + '"]',
        "1",
    ],
)
def test_text_beyond_its_bounds_is_no_system(text):
    with pytest.raises(WktError):
        parse_wkt(text)


def test_text_has_words_numbers_and_quotes():
    (node,) = parse_wkt('crs["a ""b"" [", -1.5e-3 , EAST, ID("E", 7)]\n')
    assert node.keyword == "CRS" and node.name == 'a "b" [' and node.number(1) == -1.5e-3
    assert node.values[2] == "EAST" and next(node.children("ID")).number(1) == 7
    assert np.isnan(parse_wkt("A[nan]")[0].number(0) or np.nan)
