"""The text in front of MetaImage and NRRD files: what SimpleITK makes up, or reads without checks.

It gives voxels of 1 mm where the header says nothing, takes unknown spaces for its own, and hands
out whatever comes of damaged compressed voxels in a MetaImage.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io.grid import checked_spacing

_LONGEST_HEADER = 2**20
_READ_BYTES = 2**20
_KNOWN_SPACES = {
    *("left-posterior-superior", "lps", "right-anterior-superior", "ras"),
    *("left-anterior-superior", "las"),
}
"""What ITK turns into its own LPS; it takes all others for LPS without a word."""


@dataclass(frozen=True, kw_only=True)
class HeaderText:
    """The header of one file."""

    path: Path
    fields: Mapping[str, str]
    """Names in small letters."""
    data_offset: int
    """Byte at which the voxels start."""

    def get(self, *names: str) -> str:
        """What the first of these fields says that is there; empty without any."""
        return next((self.fields[name] for name in names if name in self.fields), "")


def read_header(path: Path, ending: str) -> HeaderText:
    """Read the text, and refuse what would not be read as it is meant.

    Args:
        path: The file.
        ending: `.mha` or `.nrrd`.

    Raises:
        CaseError: Not there, not this format, voxels in another file, no voxel size, or a space
            that ITK does not know.
    """
    try:
        with open(path, "rb") as stream:
            start = stream.read(_LONGEST_HEADER)
    except OSError as err:
        raise CaseError(f"{path}: cannot be read: {err.strerror or err}") from err
    if not start:
        raise CaseError(f"{path}: is empty (0 bytes); copy it again")
    return _nrrd(path, start) if ending == ".nrrd" else _metaimage(path, start)


def space_notes(text: HeaderText, ending: str) -> list[str]:
    """What is to be told about the directions of the axes."""
    if ending == ".mha" or text.get("space"):
        return []
    return ["its header names no space; axes are taken as left, posterior, superior"]


def check_data(text: HeaderText, needed: int) -> None:
    """Go through the voxels as they are stored: are they complete, does their checksum hold.

    Args:
        text: The header of the file.
        needed: Bytes that its voxels take, unpacked.

    Raises:
        CaseError: Cut off or damaged.
    """
    packed = text.get("compresseddata").lower() in ("true", "1") or text.get("encoding") in (
        *("gzip", "gz"),
    )
    plain = text.get("binarydata").lower() in ("true", "1") or text.get("encoding") == "raw"
    if packed:
        found = _unpacked_bytes(text)
    elif plain:
        found = text.path.stat().st_size - text.data_offset
    else:
        return  # numbers as text: what is missing there is found by ITK
    if found < needed:
        raise CaseError(
            f"{text.path}: is cut off: its voxels take {needed} bytes, there are {found}"
        )


def _unpacked_bytes(text: HeaderText) -> int:
    unpacker = zlib.decompressobj(wbits=47)  # zlib's own or gzip's header
    total = 0
    try:
        with open(text.path, "rb") as stream:
            stream.seek(text.data_offset)
            while not unpacker.eof:
                packed = unpacker.unconsumed_tail or stream.read(_READ_BYTES)
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


def _metaimage(path: Path, start: bytes) -> HeaderText:
    last = re.search(rb"^ElementDataFile\s*=\s*([^\r\n]*)\r?\n", start, re.MULTILINE)
    if last is None or not re.search(rb"^NDims\s*=", start, re.MULTILINE):
        raise CaseError(f"{path}: is no MetaImage: its header lacks NDims or ElementDataFile")
    if last[1].strip().upper() != b"LOCAL":
        raise CaseError(f"{path}: its voxels lie in another file; save both as one .mha file")
    fields = _fields(start[: last.start()], "=")
    text = HeaderText(path=path, fields=fields, data_offset=last.end())
    _check_spacing(text, text.get("elementspacing", "elementsize"))
    return text


def _nrrd(path: Path, start: bytes) -> HeaderText:
    if not start.startswith(b"NRRD"):
        raise CaseError(f"{path}: is no NRRD file: it does not start with NRRD")
    blank = re.search(rb"\r?\n\r?\n", start)
    fields = _fields(start[: blank.start() if blank else None], ":")
    if blank is None or "data file" in fields or "datafile" in fields:
        raise CaseError(f"{path}: its voxels lie in another file; save both as one .nrrd file")
    text = HeaderText(path=path, fields=fields, data_offset=blank.end())
    space = text.get("space").lower().removesuffix("-time")
    if space and space not in _KNOWN_SPACES:
        raise CaseError(
            f"{path}: its space must be LPS, RAS or LAS, it is {text.get('space')!r}; convert it"
        )
    directions = text.get("space directions")
    if "none" in directions:
        raise CaseError(
            f"{path}: must be one image in space, an axis of it has no direction (a list, time or "
            "colour?); save the volume that is meant alone"
        )
    if not directions:
        _check_spacing(text, text.get("spacings"))
    return text


def _fields(head: bytes, separator: str) -> dict[str, str]:
    lines = [line.partition(separator) for line in head.decode("latin-1").split("\n")]
    return {name.strip().lower(): value.strip() for name, found, value in lines if found}


def _check_spacing(text: HeaderText, spacing: str) -> None:
    if not spacing:
        raise CaseError(
            f"{text.path}: must say how large its voxels are, its header has no spacing"
        )
    try:
        numbers = tuple(float(word) for word in spacing.split())
    except ValueError as err:
        raise CaseError(f"{text.path}: its voxel size must be numbers, it is {spacing!r}") from err
    checked_spacing(numbers, str(text.path))
