"""Multi-frame DICOM (Enhanced CT, MR and PET, also converted ones): its frames as slices of a series."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dinomed3d.inference.dicom.header import SINGLE_FRAME, BrokenDicomError, Header

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_MULTI_FRAME = {_STORAGE + number for number in ("2.1", "2.2", "4.1", "4.4", "128.1", "130")}
"""Enhanced CT, legacy converted CT, enhanced MR, legacy converted MR, legacy converted PET, enhanced PET."""
_CT_IMAGE = _STORAGE + "2"
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_LONGEST_HEADER = 64 * 2**20
"""Bytes before the pixels that are read; a frame is described in one or two thousand."""
_MOST_FRAMES = 20_000
_WANTED = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ConcatenationUID"),
    *("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_OF_GROUPS = {
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "StackID": ("FrameContentSequence", "StackID"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "NominalPercentageOfCardiacPhase": (
        "CardiacSynchronizationSequence",
        "NominalPercentageOfCardiacPhase",
    ),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "AcquisitionDateTime": ("FrameContentSequence", "FrameAcquisitionDateTime"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
}
"""Element of a slice -> the functional group that holds it, and its name there."""
_RESCALE = ("RescaleSlope", "RescaleIntercept")
_OF_PIXELS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation"),
)


def is_multi_frame(header: Header) -> bool:
    """Whether an object describes each of its frames, so that they can be slices."""
    sop_class = header.get("SOPClassUID") or header.get("MediaStorageSOPClassUID")
    return sop_class in _MULTI_FRAME and header.get("NumberOfFrames") not in SINGLE_FRAME


def read_frames(stream: IO[bytes], header: Header) -> list[Header]:
    """The header of each frame, as if it were a file of its own.

    Args:
        stream: the file, at any place.
        header: what `read_header` gave of it.

    Raises:
        BrokenDicomError: its frames are not described completely, or they are parts of a larger object.
    """
    dataset = _describing(stream, header)
    shared, groups = _groups(dataset)
    frames = []
    for number, group in enumerate(groups, 1):
        values = dict(header.values)
        for keyword, (sequence, name) in _OF_GROUPS.items():
            values[keyword] = _text(_element(group, shared, sequence, name))
        values |= {"NumberOfFrames": "1", "InstanceNumber": str(number)}
        frames.append(
            Header(values=values, pixels_at=header.pixels_at, compressed=header.compressed)
        )
    return frames


def unpack_frames(path: Path, header: Header, numbers: Sequence[int], folder: Path) -> list[Path]:
    """Write frames as files of one slice each, with their pixels as they are stored.

    So every transfer syntax that files of one slice may have is read here, too.

    Args:
        path: the multi-frame file.
        header: what `read_header` gives of it.
        numbers: of the frames, from 1.
        folder: for the files.

    Returns:
        A file for each number.

    Raises:
        BrokenDicomError: it has changed, or ends before the pixels of its frames.
        OSError: it cannot be read, or the files not be written.
    """
    syntax = header.get("TransferSyntaxUID") or _IMPLICIT
    with open(path, "rb") as stream:
        dataset = _describing(stream, header)
        shared, groups = _groups(dataset)
        for keyword in _OF_PIXELS:
            if dataset.get(keyword) in (None, ""):
                raise BrokenDicomError(f"it has no {keyword}")
        pixels = _pixels_of_frames(stream, dataset, set(numbers), big_endian=syntax == _BIG_ENDIAN)
        places = {}
        for number, content in pixels:
            target = folder / f"{path.name}-frame{number:05d}.dcm"
            _slice_of(dataset, groups[number - 1], shared, number, content, syntax).save_as(
                target, enforce_file_format=True
            )
            places[number] = target
    if missing := sorted(set(numbers) - places.keys()):
        raise BrokenDicomError(f"it ends before its frame {missing[0]}")
    return [places[number] for number in numbers]


def _describing(stream: IO[bytes], header: Header) -> Any:
    """What the object says of its frames; the stream is then at its pixel data."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    if header.get("TransferSyntaxUID") == _DEFLATED:
        raise BrokenDicomError("it holds frames and is deflated; save it uncompressed")
    stream.seek(0)
    content = io.BytesIO(stream.read(_LONGEST_HEADER))
    try:
        dataset = dcmread(content, stop_before_pixels=True, force=True, specific_tags=list(_WANTED))
    except (
        *(struct.error, zlib.error, RecursionError, ValueError, NotImplementedError, EOFError),
        *(OSError, InvalidDicomError, AttributeError, KeyError, TypeError),
    ) as err:
        raise BrokenDicomError(f"the description of its frames is damaged: {err}") from err
    stream.seek(content.tell())
    return dataset


def _groups(dataset: Any) -> tuple[Any, Sequence[Any]]:
    """The functional groups of all frames together, and of each."""
    if dataset.get("ConcatenationUID"):
        raise BrokenDicomError(
            "it is one part of a concatenation; join its parts, or convert them (dcm2niix)"
        )
    try:
        count = int(dataset.NumberOfFrames)
        groups = dataset.PerFrameFunctionalGroupsSequence
        shared = dataset.get("SharedFunctionalGroupsSequence") or [{}]
        first = shared[0]
    except (AttributeError, TypeError, ValueError, IndexError) as err:
        raise BrokenDicomError("it does not describe its frames; convert it (dcm2niix)") from err
    if count != len(groups) or not 0 < count <= _MOST_FRAMES:
        raise BrokenDicomError(
            f"it must describe each of its frames, up to {_MOST_FRAMES}: it has {count} and describes {len(groups)}"
        )
    return first, groups


def _element(group: Any, shared: Any, sequence: str, name: str) -> Any:
    """An element of a frame's functional groups, or of those of all frames; None without."""
    for groups in (group, shared):
        items = groups.get(sequence)
        if items:
            try:
                return items[0].get(name)
            except (AttributeError, TypeError, ValueError) as err:
                raise BrokenDicomError(f"its {sequence} is damaged: {err}") from err
    return None


def _text(value: Any) -> str:
    if value is None:
        return ""
    several = [value] if isinstance(value, str | int | float) else value
    return "\\".join(str(v) for v in several).strip()


def _pixels_of_frames(
    stream: IO[bytes], dataset: Any, wanted: set[int], *, big_endian: bool
) -> Iterator[tuple[int, bytes]]:
    """The stored bytes of some frames, with their numbers; one frame in memory at a time."""
    from pydicom.encaps import generate_frames

    head = stream.read(12)
    if len(head) < 12:
        raise BrokenDicomError("it has no pixels")
    explicit = head[4:6] in (b"OB", b"OW")  # two reserved bytes, then the length
    if not explicit:
        stream.seek(-4, io.SEEK_CUR)
    length = struct.unpack(">I" if big_endian else "<I", head[8:] if explicit else head[4:8])[0]
    if length == 0xFFFFFFFF:
        count = int(dataset.NumberOfFrames)
        try:
            for number, content in enumerate(generate_frames(stream, number_of_frames=count), 1):
                if number in wanted:
                    yield number, content
        except (ValueError, struct.error, EOFError) as err:
            raise BrokenDicomError(f"its pixels are cut off or damaged: {err}") from err
        return
    size = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
    start = stream.tell()
    for number in sorted(wanted):
        stream.seek(start + (number - 1) * size)
        content = stream.read(size)
        if len(content) < size or number * size > length:
            raise BrokenDicomError(f"it ends within its frame {number}")
        yield number, content


def _slice_of(
    dataset: Any, group: Any, shared: Mapping[str, Any], number: int, pixels: bytes, syntax: str
) -> Any:
    """A frame as an object of one slice."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    # GDCM applies slope and intercept to CT alone
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = UID(_CT_IMAGE)
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.{number}")
    made.SeriesInstanceUID = dataset.get("SeriesInstanceUID")
    made.InstanceNumber = number
    for keyword in _OF_PIXELS:
        setattr(made, keyword, dataset.get(keyword))
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
    ):
        value = _element(group, shared, *_OF_GROUPS[keyword])
        if value is not None:
            setattr(made, keyword, value)
    for keyword in _RESCALE:
        value = _element(group, shared, *_OF_GROUPS[keyword])
        if value is not None:
            setattr(made, keyword, value)
    made.PixelData = encapsulate([pixels]) if UID(syntax).is_encapsulated else pixels
    if UID(syntax).is_encapsulated:
        made["PixelData"].VR = "OB"
    return made
