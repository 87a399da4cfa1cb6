"""The few DICOM tags that tell series apart, read from a file's head without touching its pixels."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import IO

SOP_CLASS, SOP_INSTANCE, IMAGE_TYPE, MODALITY = "0008|0016", "0008|0018", "0008|0008", "0008|0060"
SERIES_DESCRIPTION, SERIES_UID, SERIES_NUMBER = "0008|103e", "0020|000e", "0020|0011"
STUDY_UID, FRAME_OF_REFERENCE = "0020|000d", "0020|0052"
POSITION, ORIENTATION, PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
THICKNESS, TILT = "0018|0050", "0018|1120"
SAMPLES, FRAMES, ROWS, COLUMNS = "0028|0002", "0028|0008", "0028|0010", "0028|0011"
PHOTOMETRIC = "0028|0004"
TOLD_APART_BY = {
    "0018|0081": "EchoTime",
    "0020|0100": "TemporalPositionIdentifier",
    "0018|9087": "DiffusionBValue",
    "0018|1060": "TriggerTime",
    "0020|0012": "AcquisitionNumber",
    "0008|0032": "AcquisitionTime",
    IMAGE_TYPE: "ImageType",
}
"""What mostly differs where several images of a series lie at one position."""

CHARACTER_SET, META_SOP_CLASS, SYNTAX = "0008|0005", "0002|0002", "0002|0010"
_SHORTS = {SAMPLES, ROWS, COLUMNS}  # binary, 16 bit; all the others are text
_WANTED = {
    *(SOP_CLASS, SOP_INSTANCE, MODALITY, SERIES_DESCRIPTION, SERIES_UID, SERIES_NUMBER),
    *(STUDY_UID, FRAME_OF_REFERENCE, POSITION, ORIENTATION, PIXEL_SPACING, THICKNESS, TILT),
    *(SAMPLES, FRAMES, ROWS, COLUMNS, PHOTOMETRIC, CHARACTER_SET, META_SOP_CLASS, SYNTAX),
    *TOLD_APART_BY,
}
_LONG_LENGTH = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR"} | {
    *(b"UT", b"UV")
}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_DEFLATED = "1.2.840.10008.1.2.1.99"
_HEAD_LIMIT = 16 * 2**20  # of a deflated file: tags before the pixels take kilobytes


class BrokenDicomError(ValueError):
    """A file that starts like DICOM and does not go on like it; the message says where."""


@dataclass(frozen=True, kw_only=True)
class Tags:
    """What the head of one file says."""

    values: dict[str, str]
    """`gggg|eeee` -> text without padding, as ITK names them; only the tags of this module."""
    has_pixels: bool
    compressed: bool = False
    """Pixels in fragments, whose lengths stand between them."""
    missing_bytes: int = 0
    """Uncompressed pixels that are announced and lie behind the end of the file."""

    def get(self, tag: str) -> str:
        """Its text; empty where it is absent."""
        return self.values.get(tag, "")


def looks_like_dicom(head: bytes, *, named_so: bool) -> bool:
    """Whether a file that starts with these bytes (>= 132, or all) may be DICOM.

    Args:
        head: The first bytes of the file.
        named_so: Its name speaks for DICOM: then the style without preamble counts as well.
    """
    if head[128:132] == b"DICM":
        return True
    return named_so and head[:2] in (b"\x08\x00", b"\x02\x00") and head[3:4] == b"\x00"


def read_tags(stream: IO[bytes], size: int) -> Tags:
    """Walk the elements of one file up to its pixels.

    Any of the transfer syntaxes of part 5: explicit or implicit VR, little or big endian, deflated;
    with the preamble of part 10 or without.

    Args:
        stream: At the start of the file; is read and moved forward only as far as the pixels.
        size: Bytes of the whole file.

    Raises:
        BrokenDicomError: It is cut off before the pixels, or no sequence of DICOM elements.
    """
    try:
        return _read_tags(stream, size)
    except (struct.error, zlib.error, RecursionError) as err:
        raise BrokenDicomError(f"its DICOM header is damaged: {err}") from err


def _read_tags(stream: IO[bytes], size: int) -> Tags:
    values: dict[str, str] = {}
    if stream.read(132)[128:] != b"DICM":
        stream.seek(0)
    walker = _Walker(stream, size, "<")
    walker.guess_explicit()
    while walker.peek(2) == b"\x02\x00":  # file meta information: always little endian
        element = walker.next_element()
        if element is None:
            raise BrokenDicomError("it ends within its DICOM header")
        walker.take(element, values)
    if values.get(SYNTAX) == _DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), _HEAD_LIMIT)
        walker = _Walker(io.BytesIO(content), 2**63, "<")  # cut off on purpose: size not checked
    elif values.get(SYNTAX) == "1.2.840.10008.1.2.2":
        walker = _Walker(stream, size, ">")
    walker.guess_explicit()
    return walker.walk(values)


@dataclass
class _Walker:
    """Steps from element to element; knows byte order and whether VRs are written."""

    stream: IO[bytes]
    size: int
    order: str
    explicit: bool = True

    def guess_explicit(self) -> None:
        """By the content, whatever the transfer syntax says: some files state the wrong one."""
        vr = self.peek(6)[4:]
        self.explicit = len(vr) == 2 and vr.isalpha() and vr.isupper()

    def peek(self, count: int) -> bytes:
        """The next bytes, without a step."""
        start = self.stream.tell()
        content = self.stream.read(count)
        self.stream.seek(start)
        return content

    def next_element(self) -> tuple[tuple[int, int], bytes, int] | None:
        """(group, element), VR (empty where implicit), length of the value; None at the end."""
        head = self.stream.read(8)
        if len(head) < 8:
            return None
        group, element, length = struct.unpack(self.order + "HHI", head)
        if group == 0xFFFE or not self.explicit:
            return (group, element), b"", length
        vr = head[4:6]
        if not (vr.isalpha() and vr.isupper()) and vr != b"\0\0":
            raise BrokenDicomError(
                f"its DICOM header is damaged at byte {self.stream.tell() - 8}: no value type"
            )
        if vr in _LONG_LENGTH:
            (length,) = struct.unpack(self.order + "I", self.stream.read(4))
        else:
            (length,) = struct.unpack(self.order + "H", head[6:8])
        return (group, element), vr, length

    def walk(self, values: dict[str, str]) -> Tags:
        while True:
            element = self.next_element()
            if element is None:
                return Tags(values=values, has_pixels=False)
            (group, number), vr, length = element
            if group == 0x7FE0 and number in (0x0008, 0x0009, 0x0010):
                compressed = length == _UNDEFINED
                end = self.stream.tell() + (0 if compressed else length)
                missing = max(0, end - self.size)
                return Tags(
                    values=values, has_pixels=True, compressed=compressed, missing_bytes=missing
                )
            self.take(element, values)

    def take(self, element: tuple[tuple[int, int], bytes, int], values: dict[str, str]) -> None:
        """Keep the value where it is wanted, and stand behind it."""
        (group, number), vr, length = element
        tag = f"{group:04x}|{number:04x}"
        if length == _UNDEFINED:
            self.skip_items(explicit=self.explicit and vr != b"UN")
        elif self.stream.tell() + length > self.size:
            raise BrokenDicomError("it ends within its DICOM header")
        elif tag in _WANTED and length <= 2**14:
            values[tag] = self.text(tag, self.stream.read(length), values)
        else:
            self.stream.seek(length, io.SEEK_CUR)

    def text(self, tag: str, value: bytes, values: dict[str, str]) -> str:
        if tag in _SHORTS:
            return str(struct.unpack(self.order + "H", value[:2])[0]) if len(value) >= 2 else ""
        unicode = "ISO_IR 192" in values.get(CHARACTER_SET, "")
        return value.decode("utf-8" if unicode else "latin-1", "replace").strip(" \0\r\n\t")

    def skip_items(self, *, explicit: bool, depth: int = 0) -> None:
        """Behind a sequence of undefined length; it may hold others."""
        if depth > 32:
            raise BrokenDicomError("its DICOM header is damaged: sequences nested too deep")
        outer, self.explicit = self.explicit, explicit
        while True:
            element = self.next_element()
            if element is None:
                raise BrokenDicomError("it ends within its DICOM header")
            tag, vr, length = element
            if tag == _SEQUENCE_END:
                break
            if length != _UNDEFINED:
                if self.stream.tell() + length > self.size:
                    raise BrokenDicomError("it ends within its DICOM header")
                self.stream.seek(length, io.SEEK_CUR)
            elif tag != _ITEM:  # an item's own elements follow, up to its end: walked through here
                self.skip_items(explicit=explicit and vr != b"UN", depth=depth + 1)
        self.explicit = outer


def is_whole(stream: IO[bytes], size: int, tags: Tags) -> bool:
    """Whether the pixels go on to their announced end, or their end mark where they are compressed.

    Decoders may fill up what a cut-off file lacks, without a word.

    Args:
        stream: As `read_tags` left it.
        size: Bytes of the whole file.
        tags: What `read_tags` gave.
    """
    if not tags.compressed:
        return tags.has_pixels and tags.missing_bytes == 0
    while True:
        head = stream.read(8)
        if len(head) < 8:
            return False
        group, number, length = struct.unpack("<HHI", head)
        if (group, number) == _SEQUENCE_END:
            return True
        if (group, number) != _ITEM or stream.tell() + length > size:
            return False
        stream.seek(length, io.SEEK_CUR)
