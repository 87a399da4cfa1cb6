"""The text header of MetaImage and NRRD files, for what SimpleITK invents or reads without checks.

It assumes voxels of 1 mm where the header has no spacing, takes unknown spaces for its own,
allocates whatever size a header claims, and returns whatever damaged compressed voxels of a
MetaImage unpack to.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io.grid import check_spacing
from dinomed3d.inference.io.padding import longest_padding, too_long

_MILLIMETRES = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns"), 1e-3),
    **dict.fromkeys(("micrometer", "micrometers", "micrometre", "micrometres"), 1e-3),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e3),
}
"""Units in headers -> millimetres."""
_LONGEST_HEADER = 2**20
_READ_BYTES = 2**20
_LONGEST_FIELD = 500
"""Letters of a line that NRRD's reader takes apart; lines of a thousand letters crash it."""
_SKIPS = {f"{what}{gap}skip" for what in ("line", "byte") for gap in (" ", "")}
"""NRRD's fields of what lies before the voxels."""
_SPELLED = {
    name.lower(): name
    for name in (
        *("NDims", "DimSize", "HeaderSize", "BinaryData", "CompressedData", "CompressedDataSize"),
        *("BinaryDataByteOrderMSB", "ElementByteOrderMSB", "ElementNumberOfChannels"),
        *("ElementSpacing", "ElementSize", "ElementType"),
    )
}
"""MetaImage's fields as ITK spells them; it takes no notice of `compresseddatasize`."""
_KNOWN_SPACES = {
    *("left-posterior-superior", "lps", "right-anterior-superior", "ras"),
    *("left-anterior-superior", "las"),
}
"""What ITK converts into its own LPS; it takes all others for LPS without a warning."""


@dataclass(frozen=True, kw_only=True)
class HeaderText:
    """The header of one file."""

    path: Path
    """The file."""
    fields: Mapping[str, str]
    """Field name in lower case -> value."""
    data_offset: int
    """Byte at which the voxels start."""
    voxels: Path | None = None
    """The file that holds them, in the same folder; None if they follow the header."""

    @property
    def data_path(self) -> Path:
        """The file that holds the voxels."""
        return self.path if self.voxels is None else self.voxels

    def get(self, *names: str) -> str:
        """The value of the first of these fields that is there; empty without any."""
        return next((self.fields[name] for name in names if name in self.fields), "")


def read_header(path: Path, ending: str) -> HeaderText:
    """Read the text, and refuse what ITK would misread.

    Args:
        path: The file.
        ending: `.mha` or `.nrrd`; `.mhd` or `.nhdr`, whose voxels may be in a file next to the header.

    Raises:
        CaseError: It does not exist or is not this format, its voxels are in another file, or its
            number of voxels, their size or its space are missing or invalid.
    """
    try:
        with open(path, "rb") as stream:
            start = stream.read(_LONGEST_HEADER)
    except OSError as err:
        raise CaseError(f"{path}: cannot be read: {err.strerror or err}") from err
    if not start:
        raise CaseError(f"{path}: is empty (0 bytes); copy it again")
    if ending in (".nrrd", ".nhdr"):
        return _nrrd(path, start, detached=ending == ".nhdr")
    return _metaimage(path, start, detached=ending == ".mhd")


def check_data(text: HeaderText, shape: Sequence[int], itemsize: int) -> None:
    """Check that the stored voxels are complete, that no more follow, and the checksum of compressed ones.

    Args:
        text: The header of the file.
        shape: Of its voxels, x first.
        itemsize: Bytes of a voxel.

    Raises:
        CaseError: Cut off, damaged, or longer than the header says.
    """
    needed, padding = math.prod(shape) * itemsize, longest_padding(shape, itemsize)
    if is_packed(text):
        found = _unpacked_bytes(text, needed + padding)
    elif is_raw(text):
        found = text.data_path.stat().st_size - text.data_offset
    else:
        return  # numbers as text: ITK notices missing ones
    if found < needed:
        raise CaseError(
            f"{text.path}: is cut off: its voxels take {needed} bytes, there are {found}"
        )
    if found > needed + padding and not _SKIPS & text.fields.keys():
        kind = f"{8 * itemsize} bits"
        raise too_long(str(text.path), shape, kind, needed, "more voxels behind them")


def is_packed(text: HeaderText) -> bool:
    """Whether its voxels are compressed."""
    return _is_true(text.get("compresseddata")) or text.get("encoding").lower() in ("gzip", "gz")


def is_raw(text: HeaderText) -> bool:
    """Whether its voxels are stored as bytes, not as text, if they are not packed."""
    return _is_true(text.get("binarydata")) or text.get("encoding").lower() == "raw"


def _is_true(value: str) -> bool:
    """As MetaImage's reader decides it: by the first letter."""
    return value[:1] in ("T", "t", "1")


def _unpacked_bytes(text: HeaderText, most: int) -> int:
    """How many bytes the voxels unpack to; counting ends above `most`."""
    unpacker = zlib.decompressobj(wbits=47)  # zlib's own or gzip's header
    total = 0
    left = int(text.get("compresseddatasize") or 2**62)  # ITK reads no more of a MetaImage
    try:
        with open(text.data_path, "rb") as stream:
            stream.seek(text.data_offset)
            while not unpacker.eof and total <= most:
                packed = unpacker.unconsumed_tail
                if not packed:
                    packed = stream.read(min(left, _READ_BYTES))
                    left -= len(packed)
                if not packed:
                    raise CaseError(f"{text.path}: is cut off: its packed voxels have no end")
                total += len(unpacker.decompress(packed, 16 * _READ_BYTES))
    except zlib.error as err:
        raise CaseError(
            f"{text.path}: its packed voxels are damaged ({err}); copy it again"
        ) from err
    except OSError as err:
        raise CaseError(f"{text.path}: cannot be read: {err.strerror or err}") from err
    return total


def unit_of(text: HeaderText) -> tuple[str, float]:
    """The unit of positions as the header writes it, and its size in millimetres; "" without one.

    Raises:
        CaseError: an unknown unit, or several.
    """
    stored = text.get("space units", "distanceunits")
    if not stored and text.get("units"):  # of each axis of a NRRD file, where it names no space
        named = [unit for unit in re.findall(r'"([^"]*)"', text.get("units")) if unit]
        stored = " ".join(f'"{unit}"' for unit in named)
    units = set(re.findall(r'"([^"]*)"', stored) or stored.split())
    sizes = {_MILLIMETRES.get(unit.lower(), 0.0) for unit in units}
    if not units or units == {""}:
        return "", 1.0
    if len(sizes) > 1 or 0.0 in sizes:
        raise CaseError(
            f"{text.path}: its unit must be mm, um, cm or m, the same for all axes, it is {stored[:40]}; save "
            "it in millimetres"
        )
    return stored, sizes.pop()


def add_unit(path: Path, ending: str, unit: str) -> None:
    """Write the unit of `unit_of` into the header of a file that SimpleITK wrote without one."""
    content = path.read_bytes()
    if ending == ".nrrd":
        before, end, after = content.partition(b"\n\n")
        line = b"\nspace units: " + unit.encode("latin-1")
    else:
        before, end, after = content.partition(b"\nElementDataFile")
        line = b"\nDistanceUnits = " + unit.encode("latin-1")
    path.write_bytes(before + line + end + after)


def _voxel_file(path: Path, named: str, skipped: str) -> Path:
    """The file in the header's folder that a header names; no other file is opened.

    Raises:
        CaseError: a path, a list or pattern of files, or a part of a file; or it is not there.
    """
    name = named.strip()
    if not name or any(sign in name for sign in '/\\:%*?"\0') or name.split()[0] == "LIST":
        raise CaseError(
            f"{path}: its voxels must be in one file of its own folder, it names {name[:60]!r}; save it as .nrrd, "
            ".mha or .nii.gz"
        )
    if skipped.strip() not in ("", "0"):
        raise CaseError(
            f"{path}: its voxels must start at the first byte of {name!r}, it skips {skipped[:20]!r}; save it again"
        )
    found = path.parent / name
    if not found.is_file() or found.name in (".", ".."):
        raise CaseError(f"{path}: its voxels are missing: there is no file {name!r} next to it")
    return found


def _metaimage(path: Path, start: bytes, *, detached: bool) -> HeaderText:
    last = re.search(rb"^ElementDataFile\s*=\s*([^\r\n]*)\r?\n", start, re.MULTILINE)
    if last is None or not re.search(rb"^NDims\s*=", start, re.MULTILINE):
        raise CaseError(f"{path}: is not MetaImage: its header lacks NDims or ElementDataFile")
    fields = {
        name.lower(): value
        for name, value in _fields(start[: last.start()], "[=:]")
        if _SPELLED.get(name.lower(), name) == name
    }
    text = HeaderText(path=path, fields=fields, data_offset=last.end())
    if last[1].strip().upper() != b"LOCAL":
        if not detached:
            raise CaseError(f"{path}: its voxels are in another file; save both as one .mha file")
        voxels = _voxel_file(path, last[1].decode("latin-1"), text.get("headersize"))
        text = replace(text, data_offset=0, voxels=voxels)
    elif text.get("headersize") not in ("", "0", "-1"):
        raise CaseError(
            f"{path}: its voxels must follow its header, HeaderSize is {text.get('headersize')[:20]!r}; save it again"
        )
    _check_size(text, "ndims", "dimsize")
    _check_spacing(text, text.get("elementspacing", "elementsize"))
    packed = text.get("compresseddatasize")
    if is_packed(text) and not packed.isdecimal():
        raise CaseError(f"{path}: packed voxels need a CompressedDataSize; save the file again")
    stored = text.data_path.stat().st_size - text.data_offset
    if is_packed(text) and int(packed[:20]) > stored:
        raise CaseError(
            f"{path}: is cut off: its packed voxels take {packed:.20} bytes, there are {stored}"
        )
    return text


def _nrrd(path: Path, start: bytes, *, detached: bool) -> HeaderText:
    if not start.startswith(b"NRRD"):
        raise CaseError(f"{path}: is not NRRD: it does not start with NRRD")
    blank = re.search(rb"\r?\n\r?\n", start)
    head = start[: blank.start() if blank else None]
    fields = {name.lower(): value for name, value in _fields(head, ":")}
    for line in head.splitlines():
        if len(line) > _LONGEST_FIELD and not line.startswith(b"#") and b":=" not in line:
            raise CaseError(
                f"{path}: its header must have lines of at most {_LONGEST_FIELD} letters, "
                f"{line[:40].decode('latin-1')!r}... has {len(line)}; save the file again"
            )
    voxels = None
    if "data file" in fields or "datafile" in fields:
        if not detached:
            raise CaseError(f"{path}: its voxels are in another file; save both as one .nrrd file")
        skips = (fields.get(name, "") for name in sorted(_SKIPS))
        skipped = next((value for value in skips if value not in ("", "0")), "")
        voxels = _voxel_file(path, fields.get("data file", fields.get("datafile", "")), skipped)
    elif blank is None:
        raise CaseError(f"{path}: is cut off: its header has no end")
    offset = blank.end() if blank is not None and voxels is None else 0
    text = HeaderText(path=path, fields=fields, data_offset=offset, voxels=voxels)
    if text.get("encoding").lower() in ("bzip2", "bz2"):
        raise CaseError(
            f"{path}: its voxels must be raw or packed with gzip, not bzip2; save it so"
        )
    _check_size(text, "dimension", "sizes")
    space = text.get("space").lower().removesuffix("-time")
    if space and space not in _KNOWN_SPACES:
        raise CaseError(
            f"{path}: its space must be LPS, RAS or LAS, it is {text.get('space')!r}; convert it"
        )
    directions = text.get("space directions")
    along = re.findall(r"none|\([^)]*\)", directions) or text.get("spacings").lower().split()
    if axes := [n for n, axis in enumerate(along) if axis in ("none", "nan")]:
        axis = axes[0]
        kind = [*text.get("kinds").split(), *[""] * 8][axis] or "of no kind"
        raise CaseError(
            f"{path}: must be one image in space, its axis {axis + 1} ({kind}, "
            f"{text.get('sizes').split()[axis]} long) has no direction: a list, time or colour? Save "
            "each volume as a file of its own, for example in 3D Slicer, or with SimpleITK by its "
            "index along that axis"
        )
    if not directions:
        _check_spacing(text, text.get("spacings"))
    return text


def _fields(head: bytes, separator: str) -> list[tuple[str, str]]:
    """Name and value of each line; the separator is a regular expression of one letter."""
    lines = [re.split(separator, line, maxsplit=1) for line in head.decode("latin-1").split("\n")]
    return [(line[0].strip(), line[1].strip()) for line in lines if len(line) == 2]


def _check_size(text: HeaderText, axes_field: str, sizes_field: str) -> None:
    """Up to 7 axes, each with a positive number of voxels."""
    axes, sizes = text.get(axes_field), text.get(sizes_field).split()
    valid = all(size.isdecimal() and 0 < len(size) < 10 and int(size) for size in sizes)
    if axes not in tuple("1234567") or len(sizes) != int(axes) or not valid:
        raise CaseError(
            f"{text.path}: its header must have 1 to 7 axes and their lengths, it has "
            f"{axes_field} {axes[:40]!r}, {sizes_field} {text.get(sizes_field)[:40]!r}"
        )


def _check_spacing(text: HeaderText, spacing: str) -> None:
    if not spacing:
        raise CaseError(f"{text.path}: its header has no spacing; add the size of its voxels")
    try:
        numbers = tuple(float(word) for word in spacing.split())
    except ValueError as err:
        raise CaseError(f"{text.path}: its voxel size must be numbers, it is {spacing!r}") from err
    check_spacing(numbers, str(text.path))
