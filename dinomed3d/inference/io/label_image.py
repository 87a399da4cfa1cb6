"""Whether a file is a label image (a segmentation stored with its scan), by header and voxels."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io import itk_header, nifti, nifti_header, other_scans
from dinomed3d.inference.io.itk_header import HeaderText

_NIFTI_LABEL = 1002
"""NIFTI_INTENT_LABEL: voxels are indices into a list of labels; our own masks carry it."""
_HEADER_BYTES = 540
_BLOCK = 2**18
_ENOUGH_BYTES = 4 * 2**20
"""Voxels that are looked at from the first one above 0 on."""
_MOST_BYTES = 2**32
"""Unpacked bytes after which reading ends: a small file can unpack to zeros without end."""
_MOST_READ = 2**26
_LEAST_VOXELS = 4096
"""Of fewer, nothing can be said."""
_MOST_LABELS = 256
_FEW_VALUES = 8
"""So few different whole values come from no scanner."""
_EQUAL_NEIGHBOURS = 0.7
"""Fraction of equal neighbours along a row, background apart: labels are areas, scans have noise."""
_EQUAL_OF_FEW = 0.3
"""The same for few values: vessels and other thin structures have fewer."""
_SPARSE = 0.01
"""Few values in fewer voxels than this fraction are landmarks."""
_TYPES = {
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t", "met_uchar"), "u1"),
    **dict.fromkeys(("signed char", "int8", "int8_t", "met_char"), "i1"),
    **dict.fromkeys(("short", "short int", "int16", "int16_t", "met_short"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "uint16", "uint16_t", "met_ushort"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "met_int"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t", "met_uint"), "u4"),
    **dict.fromkeys(("float", "met_float"), "f4"),
    **dict.fromkeys(("double", "met_double"), "f8"),
}
"""Names of types in headers of NRRD and MetaImage -> numpy's."""
_NOISE = 0.25
"""Below this fraction, the first voxels already tell that it is a scan."""
_NOISE_BYTES = 2**20


def label_image(path: Path, ending: str) -> str:
    """Why a file is taken for a label image; empty for a scan, and for what cannot be read.

    A label image says so in its header (NRRD's `Segment0_ID`, NIfTI's intent 1002), or holds whole
    numbers from 0 alone that form areas or are few landmarks: at most 256 different ones. A scan is
    recognised by its first block, mostly; at most 4 MiB of voxels above 0 are looked at, and
    4 GiB of zeros before them.

    Args:
        path: the file.
        ending: `.nii`, `.nii.gz`, `.mha` or `.nrrd`.
    """
    try:
        if ending in (".nii", ".nii.gz"):
            return _of_nifti(path, ending)
        if ending in other_scans.ENDINGS:
            return _of_volume(path, ending)
        return _of_text(itk_header.read_header(path, ending))
    except (CaseError, OSError, EOFError, zlib.error):
        return ""  # the reader of scans says what is wrong with it


def _of_nifti(path: Path, ending: str) -> str:
    with nifti.opened(path, ending) as stream:
        header = nifti_header.parse(stream.read(_HEADER_BYTES), str(path))
        if int(header["intent_code"]) == _NIFTI_LABEL:
            return "its header says so (NIfTI intent 'label')"
        stored = nifti_header.stored_type(header, str(path))
        if stored.kind not in "iuf" or nifti_header.slope_intercept(header, str(path)) is not None:
            return ""
        stream.seek(int(header["vox_offset"]))
        return _of_values(_arrays(iter(lambda: stream.read(_BLOCK), b""), stored))


def _of_volume(path: Path, ending: str) -> str:
    """Of a format without a stream of voxels; a large file is taken for a scan."""
    if path.stat().st_size > _MOST_READ:
        return ""
    voxels = other_scans.read(path, ending).channels[0].ravel()
    return _of_values(voxels[i : i + _BLOCK] for i in range(0, voxels.size, _BLOCK))


def _of_text(text: HeaderText) -> str:
    if any(re.fullmatch(r"segment\d+_id=?", name) for name in text.fields):
        return "its header describes segments"
    if text.get("elementnumberofchannels") not in ("", "1"):
        return ""
    code = _TYPES.get(text.get("type", "elementtype").lower())
    packed = itk_header.is_packed(text)
    if code is None or not (packed or itk_header.is_raw(text)):  # text is not read at all
        return ""
    big = text.get("endian").lower() == "big" or text.get(
        "binarydatabyteordermsb", "elementbyteordermsb"
    ).lower()[:1] in ("t", "1")
    stored = np.dtype(code).newbyteorder(">" if big else "<")
    return _of_values(_arrays(_blocks(text, packed), stored))


def _blocks(text: HeaderText, packed: bool) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=47) if packed else None
    with open(text.data_path, "rb") as stream:
        stream.seek(text.data_offset)
        while block := stream.read(_BLOCK):
            if unpacker is None:
                yield block
                continue
            yield unpacker.decompress(block, _BLOCK)
            while unpacker.unconsumed_tail:
                yield unpacker.decompress(unpacker.unconsumed_tail, _BLOCK)


def _arrays(blocks: Iterator[bytes], stored: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    left = b""
    for block in blocks:
        content = left + block
        whole = len(content) // stored.itemsize * stored.itemsize
        left = content[whole:]
        yield np.frombuffer(content[:whole], stored)


def _of_values(arrays: Iterator[NDArray[Any]]) -> str:
    """What the values say."""
    values: set[float] = set()
    pairs = equal = seen = total = inside = 0
    one_byte = False
    for array in arrays:
        one_byte = array.dtype.itemsize == 1
        total += array.size
        if not array.any():
            values.add(0)
            if total * array.itemsize > _MOST_BYTES:
                one_byte = False  # what follows is not known
                break
            continue
        if array.dtype.kind == "f" and not (array == np.rint(array)).all():
            return ""
        values.update(np.unique(array).tolist())
        if min(values) < 0 or len(values) > _MOST_LABELS:
            return ""
        near = (array[1:] != 0) | (array[:-1] != 0)
        inside += int(np.count_nonzero(array))
        pairs += int(near.sum())
        equal += int((near & (array[1:] == array[:-1])).sum())
        seen += array.nbytes
        noisy = len(values) > _FEW_VALUES and equal < _NOISE * pairs
        if seen >= _ENOUGH_BYTES or (noisy and seen >= _NOISE_BYTES):
            break
    if total < _LEAST_VOXELS:
        return ""
    if values == {0} and one_byte:
        return "it holds zeros alone, as masks of absent organs do"
    if len(values) < 2:
        return ""
    few = len(values) <= _FEW_VALUES
    areas = equal >= (_EQUAL_OF_FEW if few else _EQUAL_NEIGHBOURS) * pairs
    if areas or (few and inside < _SPARSE * total):
        return f"it holds {len(values)} different whole numbers"
    return ""
