"""LAS and LAZ: scales, records, extra dimensions, point formats, headers that lie."""

from __future__ import annotations

import struct

import laspy
import numpy as np
import pytest

from pointseg.files import CloudFileError, read_cloud, write_cloud, write_labelled
from pointseg.files.las.read import is_copc
from pointseg.scene import Scene

WKT = 'PROJCS["somewhere"]'


def las(path, *, point_format=6, version="1.4", count=4, evlr=False):
    """A file with a coordinate system, an extra dimension and values in many dimensions."""
    header = laspy.LasHeader(point_format=point_format, version=version)
    header.scales, header.offsets = [0.01, 0.01, 0.001], [500_000, 4_000_000, 0]
    header.vlrs.append(
        laspy.VLR("LASF_Projection", 2112, "coordinate system", WKT.encode() + b"\0")
    )
    header.system_identifier, header.generating_software = "a scanner", "a program"
    header.add_extra_dim(laspy.ExtraBytesParams("height", np.float32))
    header.add_extra_dim(laspy.ExtraBytesParams("coarse", np.int16, scales=[0.5], offsets=[10]))
    cloud = laspy.LasData(header, laspy.ScaleAwarePointRecord.zeros(count, header=header))
    rows = np.arange(count)
    cloud.X, cloud.Y, cloud.Z = rows * 7, rows * 5, rows * 3
    cloud.intensity = rows * 1000
    cloud.classification = rows + 2
    cloud.return_number, cloud.user_data = rows % 3, rows + 100
    cloud.height, cloud.coarse = rows / 8, 10 + rows * 0.5
    if "red" in cloud.point_format.dimension_names:
        cloud.red, cloud.green, cloud.blue = rows * 257, rows * 0, rows * 0 + 65535
    if evlr:
        cloud.evlrs = laspy.vlrs.vlrlist.VLRList([laspy.VLR("me", 7, "late", b"last words")])
    cloud.write(path)
    return laspy.read(path)


def same(before, after, *, but=()):
    for name in before.point_format.dimension_names:
        if name not in but:
            np.testing.assert_array_equal(
                np.array(before[name]), np.array(after[name]), err_msg=name
            )
    for name in ("scales", "offsets", "mins", "maxs", "system_identifier", "generating_software"):
        assert np.all(getattr(before.header, name) == getattr(after.header, name)), name
    (old,), (new,) = (las.header.vlrs.get_by_id("LASF_Projection") for las in (before, after))
    assert old.record_data_bytes() == new.record_data_bytes()


@pytest.mark.parametrize("name", ["a.las", "a.LAZ"])
def test_by_hand(tmp_path, name):
    las(tmp_path / name.lower(), point_format=7)
    (tmp_path / name.lower()).rename(tmp_path / name)
    scene = read_cloud(tmp_path / name)
    assert scene.origin.tolist() == [500_000, 4_000_000, 0]
    np.testing.assert_allclose(scene.coord, np.outer(np.arange(4), [0.07, 0.05, 0.003]), atol=1e-6)
    assert scene["color"].tolist() == [[0, 0, 255], [1, 0, 255], [2, 0, 255], [3, 0, 255]]
    np.testing.assert_allclose(scene["strength"][:, 0], np.arange(4) * 1000 / 4095)
    assert scene["segment"].tolist() == scene["classification"].tolist() == [2, 3, 4, 5]
    assert scene["height"].tolist() == [0, 0.125, 0.25, 0.375]
    assert scene["coarse"].tolist() == [10, 10.5, 11, 11.5]
    assert scene["user_data"].tolist() == [100, 101, 102, 103]


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize(
    ("point_format", "version"), [(0, "1.2"), (1, "1.2"), (3, "1.2"), (6, "1.4"), (7, "1.4")]
)
def test_a_labelled_copy_keeps_the_rest(tmp_path, suffix, point_format, version):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    before = las(source, point_format=point_format, version=version)
    write_labelled(source, target, np.array([0, 300, -1, 2]))
    after = laspy.read(target)
    same(before, after)
    assert after.pointseg_class.tolist() == [0, 300, -1, 2]
    assert after.header.version == before.header.version
    assert after.header.point_format.id == point_format
    write_labelled(target, tmp_path / f"c{suffix}", np.array([0, 3, 1, 2]))
    again = laspy.read(tmp_path / f"c{suffix}")
    same(before, again)
    assert again.pointseg_class.tolist() == [0, 3, 1, 2] and again.pointseg_class.dtype == np.uint8
    assert read_cloud(tmp_path / f"c{suffix}")["segment"].tolist() == [0, 3, 1, 2]


@pytest.mark.parametrize(
    ("point_format", "version", "colored"),
    [(0, "1.2", 2), (1, "1.2", 3), (2, "1.2", 2), (6, "1.4", 7), (7, "1.4", 7)],
)
def test_colours_make_a_point_format_with_colour(tmp_path, point_format, version, colored):
    before = las(
        tmp_path / "a.laz", point_format=point_format, version=version, evlr=version == "1.4"
    )
    colors = np.array([[1, 2, 3], [255, 0, 0]], np.uint8)
    write_labelled(tmp_path / "a.laz", tmp_path / "b.laz", np.array([0, 1, 1, -1]), colors=colors)
    after = laspy.read(tmp_path / "b.laz")
    same(before, after, but=("red", "green", "blue"))
    assert after.header.point_format.id == colored
    assert after.red.tolist() == [257, 65535, 65535, 128 * 257]
    assert read_cloud(tmp_path / "b.laz")["color"].tolist()[:2] == [[1, 2, 3], [255, 0, 0]]


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_extended_records_are_kept(tmp_path, suffix):
    las(tmp_path / f"a{suffix}", evlr=True)
    write_labelled(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", np.zeros(4, int))
    (kept,) = laspy.read(tmp_path / f"b{suffix}").evlrs
    assert (kept.user_id, kept.record_id, kept.record_data) == ("me", 7, b"last words")


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("width", [1, 8, 27, 300])
def test_bytes_that_no_record_describes_are_kept(tmp_path, suffix, width):
    header = laspy.LasHeader(point_format=6, version="1.4")
    undocumented = np.random.default_rng(0).integers(0, 256, (4, width), np.uint8)
    names = [f"b{number}" for number in range(width)]
    header.add_extra_dims([laspy.ExtraBytesParams(name, np.uint8) for name in names])
    cloud = laspy.LasData(header, laspy.ScaleAwarePointRecord.zeros(4, header=header))
    for name, values in zip(names, undocumented.T, strict=True):
        cloud[name] = values
    cloud.write(tmp_path / "a.las")
    data = bytearray((tmp_path / "a.las").read_bytes())
    data[377:393] = b"somebody\0".ljust(16, b"\0")  # the record is no description any more
    (tmp_path / "a.las").write_bytes(data)
    source = tmp_path / f"b{suffix}"
    laspy.read(tmp_path / "a.las").write(source) if suffix == ".laz" else source.write_bytes(data)
    write_labelled(source, tmp_path / f"c{suffix}", np.array([0, 1, 2, -1]))
    assert read_cloud(tmp_path / f"c{suffix}")["segment"].tolist() == [0, 1, 2, -1]
    copy = laspy.read(tmp_path / f"c{suffix}")
    rows = copy.points.array.view(np.uint8).reshape(4, -1)
    np.testing.assert_array_equal(rows[:, 30 : 30 + width], undocumented)


def copc(path, **options):
    """A file with the records that COPC has: its own first, its tree last."""
    plain = las(path, point_format=7, **options)
    plain.header.vlrs.insert(0, laspy.VLR("copc", 1, "COPC info VLR", bytes(160)))
    tree = laspy.VLR("copc", 1000, "EPT hierarchy", bytes(32))
    plain.evlrs = laspy.vlrs.vlrlist.VLRList([*(plain.evlrs or []), tree])
    plain.write(path)
    assert isinstance(laspy.read(path).header.vlrs[0], laspy.copc.CopcInfoVlr)
    return plain


def test_cloud_optimised_files_become_plain_ones(tmp_path):
    before = copc(tmp_path / "a.copc.laz", evlr=True)
    assert is_copc(tmp_path / "a.copc.laz")
    assert read_cloud(tmp_path / "a.copc.laz")["segment"].tolist() == [2, 3, 4, 5]
    write_labelled(tmp_path / "a.copc.laz", tmp_path / "b.laz", np.array([0, 1, 2, 1]))
    assert not is_copc(tmp_path / "b.laz")
    after = laspy.read(tmp_path / "b.laz")
    same(before, after)
    assert after.pointseg_class.tolist() == [0, 1, 2, 1]
    assert [record.user_id for record in after.evlrs] == ["me"]
    assert "copc" not in [record.user_id for record in after.header.vlrs]


def test_classes_may_stand_in_the_classification(tmp_path):
    before = las(tmp_path / "a.las")
    classes = np.array([9, 8, 7, 255])
    write_labelled(tmp_path / "a.las", tmp_path / "b.las", classes, field="classification")
    after = laspy.read(tmp_path / "b.las")
    same(before, after, but=("classification",))
    assert after.classification.tolist() == [9, 8, 7, 255]
    assert "pointseg_class" not in after.point_format.dimension_names


@pytest.mark.parametrize(("point_format", "version"), [(3, "1.2"), (6, "1.4")])
def test_codes_go_to_the_classification_and_its_former_values_stay(tmp_path, point_format, version):
    before = las(tmp_path / "a.laz", point_format=point_format, version=version)
    codes = (6, 2, 31)
    for flag in (
        "synthetic",
        "key_point",
        "withheld",
        *(("overlap",) if point_format == 6 else ()),
    ):
        setattr(before, flag, [0, 1, 1, 0])
    lookup = laspy.VLR("LASF_Spec", 0, "", struct.pack("<B15sB15s", 2, b"Boden", 9, b"water"))
    before.vlrs.append(lookup)
    before.write(tmp_path / "a.laz")
    given = {"codes": codes, "legend": ("a_house", "ground", "x" * 20)}
    write_labelled(tmp_path / "a.laz", tmp_path / "b.laz", np.array([0, 2, -1, 1]), **given)
    after = laspy.read(tmp_path / "b.laz")
    same(before, after, but=("classification",))
    (named,) = after.vlrs.get("ClassificationLookupVlr")
    names = {code: name for code, name in named.lookups.items() if name}
    assert len(named.lookups) == 256  # as the standard has them
    assert names == {1: "unclassified", 2: "ground", 6: "a house", 9: "water", 31: "x" * 15}
    assert np.array(after.classification).tolist() == [6, 31, 1, 2]
    assert after.pointseg_class.tolist() == [0, 2, -1, 1]
    assert after.input_classification.tolist() == np.array(before.classification).tolist()
    # predicted again: what was there at first stays
    write_labelled(tmp_path / "b.laz", tmp_path / "c.laz", np.array([1, 1, 1, 1]), **given)
    again = laspy.read(tmp_path / "c.laz")
    same(before, again, but=("classification",))
    assert np.array(again.classification).tolist() == [2] * 4
    assert again.input_classification.tolist() == [2, 3, 4, 5]
    assert len(again.vlrs.get("ClassificationLookupVlr")) == 1
    given |= {"legend": (), "keeps_former": False}
    write_labelled(tmp_path / "a.laz", tmp_path / "d.laz", np.array([1, 1, 1, 1]), **given)
    assert "input_classification" not in laspy.read(tmp_path / "d.laz").point_format.dimension_names


def test_a_file_that_nobody_classified_gets_its_codes_alone(tmp_path):
    cloud = las(tmp_path / "a.las", point_format=3, version="1.2")
    cloud.classification = [0, 1, 0, 1]
    cloud.write(tmp_path / "a.las")
    write_labelled(tmp_path / "a.las", tmp_path / "b.las", np.array([0, 0, 1, 1]), codes=(2, 6))
    after = laspy.read(tmp_path / "b.las")
    assert np.array(after.classification).tolist() == [2, 2, 6, 6]
    assert "input_classification" not in after.point_format.dimension_names
    with pytest.raises(CloudFileError, match="classification holds 0 to 31"):
        write_labelled(tmp_path / "a.las", tmp_path / "c.las", np.zeros(4, int), codes=(2, 64))


@pytest.mark.parametrize(
    ("point_format", "version", "classes", "field"),
    [
        (1, "1.2", [0, 1, 2, 32], "classification"),
        (6, "1.4", [0, 1, 2, 256], "classification"),
        (6, "1.4", [0, 1, 2, -1], "classification"),
        (6, "1.4", [0, 0, 0, 0], "gps_time"),
    ],
)
def test_classes_that_a_dimension_cannot_hold_are_refused(
    tmp_path, point_format, version, classes, field
):
    las(tmp_path / "a.las", point_format=point_format, version=version)
    with pytest.raises(CloudFileError, match=rf"a\.las.*{field}"):
        write_labelled(tmp_path / "a.las", tmp_path / "b.las", np.array(classes), field=field)
    assert not (tmp_path / "b.las").exists()


@pytest.mark.parametrize(
    ("at", "kind", "value"),
    [
        (0, "4s", b"LASX"),
        (96, "I", 10**9),
        (100, "I", 10**9),
        (105, "H", 3),
        (131, "d", 0.0),
        (131, "d", float("nan")),
        (155, "d", float("inf")),
        (235, "QI", (10**9, 10)),
        (247, "Q", 10**15),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, at, kind, value):
    las(tmp_path / "a.las")
    data = bytearray((tmp_path / "a.las").read_bytes())
    struct.pack_into("<" + kind, data, at, *(value if isinstance(value, tuple) else (value,)))
    (tmp_path / "a.las").write_bytes(data)
    with pytest.raises(CloudFileError, match=r"a\.las"):
        read_cloud(tmp_path / "a.las")


def test_a_header_that_is_cut_off_is_refused(tmp_path):
    las(tmp_path / "a.las")
    data = (tmp_path / "a.las").read_bytes()
    (tmp_path / "a.las").write_bytes(data[:300])
    with pytest.raises(CloudFileError, match="is cut off"):
        read_cloud(tmp_path / "a.las")


def test_positions_that_are_not_finite_cannot_be_written(tmp_path):
    coord = np.array([[0, 0, np.nan]], np.float32)
    with pytest.raises(CloudFileError, match="NaN"):
        write_cloud(tmp_path / "a.las", Scene(coord=coord))


def test_what_laspy_refuses_to_make_is_our_error(tmp_path):
    scene = Scene(coord=np.zeros((1, 3), np.float32), fields={"x" * 60: np.zeros(1)})
    with pytest.raises(CloudFileError, match=r"a\.las"):
        write_cloud(tmp_path / "a.las", scene)


@pytest.mark.parametrize("name", ["Megaplot", "MixedConifer", "Topography"])
def test_real_tiles(shared, tmp_path, name):
    source = shared / f"data/points/lidr_als/{name}.laz"
    before = laspy.read(source)
    scene = read_cloud(source)
    assert len(scene) == before.header.point_count > 30_000
    assert (scene.origin % 100 == 0).all() and (scene.origin[:2] > 1e5).all()
    np.testing.assert_allclose(scene.coord + scene.origin, before.xyz, rtol=0, atol=5e-5)
    segment = np.random.default_rng(0).integers(-1, 40, len(scene))
    write_labelled(source, tmp_path / "b.laz", segment, colors=np.zeros((40, 3), np.uint8))
    after = laspy.read(tmp_path / "b.laz")
    np.testing.assert_array_equal(after.pointseg_class, segment)
    same(before, after)
    np.testing.assert_array_equal(read_cloud(tmp_path / "b.laz").coord, scene.coord)
