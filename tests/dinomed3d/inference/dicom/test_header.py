"""Headers that are damaged, endless or longer than needed: read within bounds, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dinomed3d.inference.dicom.header import BrokenDicomError, read_header
from dinomed3d.inference.dicom.series import find_series
from tests.dinomed3d.inference.dicom.dicom_series import write_object


def element(tag: int, vr: bytes, value: bytes = b"", length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return head + struct.pack("<xxI" if vr in (b"SQ", b"OB", b"UN") else "<H", size) + value


def item(length: int = 0) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, length)


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


ENDLESS = 0xFFFFFFFF
SEQUENCE = element(0x00081140, b"SQ", length=ENDLESS)


@pytest.mark.parametrize(
    ("syntax", "content"),
    [
        (ExplicitVRLittleEndian, SEQUENCE + item() * 300_000),
        (ExplicitVRLittleEndian, (SEQUENCE + item(ENDLESS)) * 5000),
        (ExplicitVRLittleEndian, element(0x00091001, b"LO") * 400_000),
        (ExplicitVRLittleEndian, element(0x00091001, b"OB", b"x" * 20_000_000, ENDLESS)),
        (ExplicitVRLittleEndian, element(0x0008103E, b"UN", b"abc", 0xF0000000)),
        (ExplicitVRLittleEndian, SEQUENCE + item() + element(0x00081150, b"UN", b"", 0xF0000000)),
        (ExplicitVRLittleEndian, element(0x00080016, b"\x01\x02", b"1.2")),
        (DeflatedExplicitVRLittleEndian, deflated(element(0x00091001, b"LO") * 3_000_000)),
    ],
    ids=["items", "nesting", "elements", "no-end", "value", "inner-value", "no-vr", "deflate"],
)
def test_headers_are_read_within_bounds(syntax: str, content: bytes) -> None:
    """Millions of elements, nesting without end, and sizes that are only claimed."""
    name = syntax.encode() + b"\0" * (len(syntax) % 2)
    content = bytes(128) + b"DICM" + element(0x00020010, b"UI", name) + content
    with pytest.raises(BrokenDicomError):
        read_header(io.BytesIO(content), len(content))


def test_long_contours_of_radiotherapy_are_not_read(tmp_path: Path) -> None:
    write_object(tmp_path, "rt.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    contours = element(0x30060039, b"SQ", length=ENDLESS) + item() * 300_000
    with open(tmp_path / "rt.dcm", "ab") as stream:
        stream.write(contours)
    assert find_series([tmp_path / "rt.dcm"]).ignored == {"DICOM RT Structure Set": 1}
