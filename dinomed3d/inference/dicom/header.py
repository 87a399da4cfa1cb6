"""The header of one DICOM file, read by pydicom as far as the pixel data and no further."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException
from pydicom.filereader import data_element_generator
from pydicom.tag import ItemTag, SequenceDelimiterTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian
from pydicom.values import convert_value

DISTINGUISHING = (
    *("EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "TriggerTime"),
    *("NominalPercentageOfCardiacPhase", "ConvolutionKernel", "ContrastBolusAgent"),
    *("AcquisitionNumber", "AcquisitionTime", "ImageType", "AcquisitionDateTime", "ContentTime"),
)
"""What usually differs where several images of one series lie at the same position."""
_KEYWORDS = (
    *("MediaStorageSOPClassUID", "TransferSyntaxUID", "SpecificCharacterSet", "SOPClassUID"),
    *("SOPInstanceUID", "Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber"),
    *("StudyInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SamplesPerPixel"),
    *(
        "InstanceNumber",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "PhotometricInterpretation",
        "RescaleSlope",
        "RescaleIntercept",
        *DISTINGUISHING,
    ),
)
SINGLE_FRAME = ("", "0", "1")
"""NumberOfFrames of an object that is one slice."""
_WANTED = {tag_for_keyword(keyword) or 0: keyword for keyword in _KEYWORDS}
_CONVERTED = {"US", "FD", "FL", "LO"}
"""Value representations that are binary, or text in the file's own character set."""
_PIXEL_DATA = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_RADIOTHERAPY = range(0x30020000, 0x30100000)
"""Tags of plans and contours, at which reading ends: they are long, and no slices."""
_FUNCTIONAL_GROUPS = 0x52000000
"""The first tag after which a multi-frame object describes each of its frames."""
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONGEST_VALUE = 2**14
_LONGEST_HEADER = 16 * 2**20
"""Bytes; elements in front of the pixel data take kilobytes."""
_COST_OF_A_READ = 64
"""Counted as bytes, so that millions of empty elements come to an end as well."""


class BrokenDicomError(ValueError):
    """A file that starts as DICOM does but cannot be parsed; the message says where it breaks."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of one file says."""

    values: Mapping[str, str]
    """DICOM keyword -> value as text; several values are separated by a backslash."""
    pixels_at: int = 0
    """Byte of the file at which the pixel data start; 0 without pixel data."""
    compressed: bool = False
    """Whether the pixel data are stored in fragments, each with its own length."""
    missing_bytes: int = 0
    """How many bytes of uncompressed pixel data lie behind the end of the file."""

    def get(self, keyword: str) -> str:
        """The value of an element as text; empty if it is absent."""
        return self.values.get(keyword, "")


def looks_like_dicom(head: bytes, *, dicom_name: bool) -> bool:
    """Whether a file may be DICOM.

    Args:
        head: The first 132 bytes of the file, or all of them.
        dicom_name: The file is named as DICOM files are: then it may lack the preamble.
    """
    if head[128:132] == b"DICM":
        return True
    return dicom_name and head[:2] in (b"\x08\x00", b"\x02\x00") and head[3:4] == b"\x00"


def read_header(stream: IO[bytes], size: int) -> Header:
    """Read the elements that this package uses, in any transfer syntax of DICOM part 5.

    Args:
        stream: At the start of the file; is read only as far as the pixel data.
        size: Bytes of the whole file.

    Raises:
        BrokenDicomError: The file is cut off before its pixel data, is not a sequence of DICOM
            elements, or its header is longer than 16 MiB.
    """
    try:
        return _read_header(stream, size)
    except OSError as err:
        if err.errno is not None:  # of the disk, not of pydicom
            raise
        raise BrokenDicomError(f"its DICOM header is damaged: {err}") from err
    except EOFError as err:
        raise BrokenDicomError("it ends within its DICOM header") from err
    except (struct.error, zlib.error, RecursionError, ValueError, NotImplementedError) as err:
        raise BrokenDicomError(f"its DICOM header is damaged: {err}") from err


def _read_header(stream: IO[bytes], size: int) -> Header:
    if stream.read(132)[128:] != b"DICM":
        stream.seek(0)
    found: dict[int, RawDataElement] = {}
    bounded = _BoundedStream(stream, size)
    _read_elements(bounded, found, lambda tag, vr, length: tag >> 16 != 2)
    syntax = _values(found).get("TransferSyntaxUID", "")
    if syntax == DeflatedExplicitVRLittleEndian:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        content = unpacker.decompress(stream.read(_LONGEST_HEADER), _LONGEST_HEADER)
        bounded = _BoundedStream(io.BytesIO(content), 2**63)  # unpacked in part: no end to check
    pixels: list[tuple[int, int]] = []

    def at_end(tag: int, vr: str | None, length: int) -> bool:
        tag = int(tag)  # pydicom's own type compares slowly
        if vr is not None and not (vr.isalpha() and vr.isupper()):
            raise ValueError(f"no value representation before byte {bounded.tell()}")
        if tag in _PIXEL_DATA:
            pixels.append((bounded.tell(), length))
        elif (
            tag >= _FUNCTIONAL_GROUPS
            and _values(found).get("NumberOfFrames", "") not in SINGLE_FRAME
        ):
            pixels.append((bounded.tell(), 0))  # multi-frame: refused later
        return bool(pixels) or tag in _RADIOTHERAPY

    _read_elements(bounded, found, at_end, little_endian=syntax != ExplicitVRBigEndian)
    if not pixels:
        return Header(values=_values(found))
    start, length = pixels[0]
    compressed = length == _UNDEFINED_LENGTH
    return Header(
        values=_values(found),
        pixels_at=start,
        compressed=compressed,
        missing_bytes=0 if compressed else max(0, start + length - bounded.size),
    )


class _BoundedStream:
    """A file for pydicom that does not let a damaged header read or skip without limit."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.stream, self.size = stream, size
        self.left = _LONGEST_HEADER
        self.tell = stream.tell

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError(f"longer than {_LONGEST_HEADER >> 20} MiB")
        content = self.stream.read(count)
        self.left -= len(content) + _COST_OF_A_READ
        return content

    def seek(self, position: int) -> int:
        if position > self.size:
            raise EOFError
        return self.stream.seek(position)


def _read_elements(
    stream: _BoundedStream,
    found: dict[int, RawDataElement],
    stop_when: Callable[[int, str | None, int], bool],
    *,
    little_endian: bool = True,
) -> None:
    """Collect the wanted elements up to the one at which `stop_when` says so."""
    start = stream.tell()
    vr = stream.read(6)[4:]
    stream.seek(start)
    # by the content: some files state the wrong transfer syntax
    implicit = not (len(vr) == 2 and vr.isalpha() and vr.isupper())
    elements = data_element_generator(
        stream,  # type: ignore[arg-type]
        implicit,
        little_endian,
        stop_when,
        defer_size=_LONGEST_VALUE,
        specific_tags=list(_WANTED),
    )
    for element in elements:
        if not isinstance(element, RawDataElement) or element.value is None:
            continue  # a sequence, or longer than any value that is used
        if len(element.value) < element.length != _UNDEFINED_LENGTH:
            raise EOFError
        found[element.tag] = element


def _values(found: Mapping[int, RawDataElement]) -> dict[str, str]:
    """Keyword -> text."""
    charset = found[0x00080005].value if 0x00080005 in found else None
    encodings = convert_encodings((charset or b"").decode("latin-1").strip(" \0").split("\\"))
    return {_WANTED[tag]: _text(tag, element, encodings) for tag, element in found.items()}


def _text(tag: int, element: RawDataElement, encodings: list[str]) -> str:
    vr = dictionary_VR(tag)
    text: Any = element.value.decode("latin-1")  # type: ignore[union-attr]
    if vr in _CONVERTED and element.value:
        try:
            text = convert_value(vr, element, encodings)
        except (ValueError, BytesLengthException):  # no whole number of numbers
            text = ""
    several = [text] if isinstance(text, (str, int, float)) else text
    return "\\".join(map(str, several)).strip(" \0\r\n\t")


def pixels_complete(stream: IO[bytes], size: int, header: Header) -> bool:
    """Whether the pixel data go on to their stated end; decoders fill up what is missing silently.

    Args:
        stream: The file.
        size: Bytes of the whole file.
        header: Of `read_header` for this file.
    """
    if not header.compressed:
        return header.pixels_at > 0 and header.missing_bytes == 0
    stream.seek(header.pixels_at)
    while len(head := stream.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", head)
        tag = group << 16 | element
        if tag != ItemTag or stream.tell() + length > size:
            return bool(tag == SequenceDelimiterTag)
        stream.seek(length, io.SEEK_CUR)
    return False
