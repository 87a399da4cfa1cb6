"""The coordinate system that a LAS file states: what its coordinates are, and in which units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pointseg.files.coordinate_systems import geo_keys
from pointseg.files.coordinate_systems.epsg_units import FOOT_M, US_FOOT_M, unit_of_epsg
from pointseg.files.coordinate_systems.geo_keys import Value, code_of, read_keys
from pointseg.files.coordinate_systems.wkt import Node, WktError, parse_wkt
from pointseg.files.las.header import LasHeader

OWNER = b"LASF_Projection"
WKT, KEYS = 2112, 34735
IS_WKT = 0x10
"""Bit of a header that says that text counts, not keys."""
UNITS_BY_CODE = {9001: 1.0, 9002: FOOT_M, 9003: US_FOOT_M, 9036: 1000.0}
"""Metres of units that have numbers in EPSG's tables; others are rarer."""
SAME = 2e-7
"""Factors of units that differ less, relative, are the same: files round them."""
SPELLED = re.compile(
    r"(?<![a-z])(us|u\.s\.)?[ _-]*(survey)?[ _-]*(?:ft|feet|foot)([ _-]?us)?(?![a-z])",
    re.IGNORECASE,
)

HORIZONTAL = (
    "PROJCS",
    "PROJCRS",
    "PROJECTEDCRS",
    "LOCAL_CS",
    "ENGCRS",
    "ENGINEERINGCRS",
    "DERIVEDPROJCRS",
)
GEODETIC = ("GEOGCS", "GEOGCRS", "GEOGRAPHICCRS", "GEODCRS", "GEODETICCRS", "GEOCCS")
UPRIGHT = ("VERT_CS", "VERTCS", "VERTCRS", "VERTICALCRS")
AROUND = ("COMPD_CS", "COMPOUNDCRS", "BOUNDCRS", "SOURCECRS")
LENGTHS = ("UNIT", "LENGTHUNIT")

Kind = Literal["projected", "geographic", "geocentric", "unknown"]


@dataclass(frozen=True)
class CoordinateSystem:
    """What a file states of its coordinates."""

    name: str
    """Its name, printable."""
    kind: Kind
    """projected: lengths; geographic: degrees; geocentric: lengths from the middle of the Earth."""
    horizontal_m: float | None = None
    """Metres per unit of x and y; None: not stated."""
    vertical_m: float | None = None
    """Metres per unit of z; None: not stated."""
    problem: str = ""
    """Why it could not be read."""


def read_coordinate_system(header: LasHeader) -> CoordinateSystem | None:
    """The coordinate system of a file; None: it states none.

    What cannot be read is a system of unknown kind with its ``problem``.
    """
    contents = {
        record.number: header.content(record, 2**18)
        for record in (*header.extended, *header.records)
        if record.user == OWNER
    }
    text = contents.get(WKT, b"").strip(b"\0 \r\n\t")
    keys = contents.get(KEYS, b"")
    if text and (header.head[6] & IS_WKT or not keys):
        found = _of_text(text.decode("utf-8", "replace"))
        if not found.problem or not keys:
            return found
    if not keys:
        return None
    doubles, texts = contents.get(geo_keys.DOUBLES, b""), contents.get(geo_keys.TEXTS, b"")
    return _of_keys(read_keys(keys, doubles, texts))


def unit_name(unit_m: float) -> str:
    """The plural of a unit's name."""
    known = {
        1.0: "metres",
        US_FOOT_M: "US survey feet",
        FOOT_M: "feet",
        0.01: "centimetres",
        0.001: "millimetres",
    }
    return known.get(unit_m, f"units of {unit_m:g} m")


def _of_text(text: str) -> CoordinateSystem:
    try:
        nodes = parse_wkt(text)
    except WktError as error:
        return CoordinateSystem(
            _printable(text), "unknown", problem=f"its text is malformed: {error}"
        )
    system = CoordinateSystem(_name(nodes[0]), "unknown")
    for node in _systems(nodes):
        unit = _length(node, 0)
        if node.keyword in UPRIGHT:
            system = replace(system, vertical_m=unit)
        elif node.keyword in HORIZONTAL:
            system = replace(system, kind="projected", horizontal_m=unit)
            if _axes(node) == 3:
                system = replace(system, vertical_m=_length(node, 2))
        elif system.kind == "unknown":
            system = replace(system, kind="geocentric" if _is_geocentric(node) else "geographic")
    if system.kind == "unknown" and system.vertical_m is None:
        return replace(
            system, problem=f"'{_printable(nodes[0].keyword)}' is no system that is known"
        )
    return system


def _systems(nodes: list[Node]) -> Iterator[Node]:
    """The single systems in nodes, without the geographic ones that projections are of."""
    for node in nodes:
        if node.keyword in AROUND:
            yield from _systems(list(node.children()))
        elif node.keyword in (*HORIZONTAL, *GEODETIC, *UPRIGHT):
            yield node


def _name(node: Node) -> str:
    """The name of a system, or of the one inside it where it has none of its own."""
    inside = [] if node.name else [_name(child) for child in node.children(*AROUND)]
    return next(iter(inside), _printable(node.name))


def _axes(node: Node) -> int:
    stated = next((found.number(1) for found in node.children("CS")), None)
    return len(list(node.children("AXIS"))) if stated is None else int(stated)


def _is_geocentric(node: Node) -> bool:
    cs = next((found.name.lower() for found in node.children("CS")), "")
    return node.keyword == "GEOCCS" or cs == "cartesian"


def _length(node: Node, axis: int) -> float | None:
    """Metres per unit of a system along one of its axes; None: not stated."""
    axes = list(node.children("AXIS"))
    places = [node, *([axes[axis]] if axis < len(axes) else [])]
    for place in reversed(places):
        for unit in place.children(*LENGTHS):
            size = unit.number(1)
            return _plausible(size) if size is not None else _spelled(unit.name)
    for found in node.children("AUTHORITY", "ID"):
        if found.name.upper() == "EPSG" and len(found.values) > 1:
            code = str(found.values[1]).partition(".")[0]
            return unit_of_epsg(int(code)) if code.isdecimal() else None
    return None


def _plausible(size: float) -> float | None:
    """A unit that lengths on Earth can have, with the precision that others write it with."""
    for known in (1.0, FOOT_M, US_FOOT_M):
        if abs(size / known - 1) < SAME:
            return known
    return size if 1e-4 <= size <= 1e4 else None


def _spelled(text: str) -> float | None:
    """The unit that a text names: feet, or none."""
    match = SPELLED.search(text)
    if match is None:
        return 1.0 if re.fullmatch(r"(?i)m|met(er|re)s?", text.strip()) else None
    return US_FOOT_M if any(match.groups()) else FOOT_M


def _of_keys(keys: Mapping[int, Value]) -> CoordinateSystem:
    texts = [keys.get(key) for key in (geo_keys.PROJECTED_CITATION, geo_keys.CITATION)]
    citation = next((text for text in texts if isinstance(text, str) and text), "")
    projected, model = code_of(keys, geo_keys.PROJECTED), code_of(keys, geo_keys.MODEL)
    name = _printable(citation) or (f"EPSG:{projected}" if projected else "GeoTIFF keys")
    unit = _unit_of_keys(keys, geo_keys.LINEAR_UNIT, geo_keys.PROJECTED, citation)
    late = keys.get(geo_keys.VERTICAL_CITATION)
    height = _unit_of_keys(
        keys, geo_keys.VERTICAL_UNIT, geo_keys.VERTICAL, late if isinstance(late, str) else ""
    )
    kinds: dict[int | None, Kind] = {1: "projected", 2: "geographic", 3: "geocentric"}
    kind = kinds.get(model, "unknown")
    if projected is not None or geo_keys.LINEAR_UNIT in keys and model not in (2, 3):
        kind = "projected"
    elif kind == "unknown" and code_of(keys, geo_keys.GEODETIC) is not None:
        kind = "geographic"
    if kind == "unknown" and height is None:
        return CoordinateSystem(name, kind, problem="its keys name no system")
    return CoordinateSystem(name, kind, unit, height)


def _unit_of_keys(keys: Mapping[int, Value], unit: int, system: int, citation: str) -> float | None:
    code, number = code_of(keys, unit), code_of(keys, system)
    size = keys.get(geo_keys.LINEAR_SIZE) if unit == geo_keys.LINEAR_UNIT else None
    if code in UNITS_BY_CODE:
        return UNITS_BY_CODE[code]
    if isinstance(size, float):
        return _plausible(size)
    if number is not None and code is None:
        found = unit_of_epsg(number)
        if found is not None:
            return found
    return _spelled(citation) if code is None else None


def _printable(text: str) -> str:
    cleaned = "".join(letter if letter.isprintable() else " " for letter in text[:200])
    return " ".join(cleaned.split())[:80]
