"""What is predicted: scans as stored, the cases they make, and input that cannot be a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dinomed3d.runtime.errors import UserError


class CaseError(UserError):
    """Why one case cannot be predicted, in one line for the report; the other cases go on."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One image: a file, or the files of one DICOM series in the order of its slices."""

    files: tuple[str, ...]
    """Absolute paths, or the names of members of `archive`."""
    ending: str
    """`.nii`, `.nii.gz`, `.mha`, `.nrrd`, or `.dcm` for a DICOM series whatever its file names."""
    archive: str | None = None
    """Path of the zip that contains the files."""
    series: str = ""
    """DICOM only: number, description and number of files of the series, as text."""
    uid: str = ""
    """DICOM only: SeriesInstanceUID."""
    frames: tuple[int, ...] = ()
    """Multi-frame DICOM only: number of the frame of each slice, from 1, in the one file."""
    reader: str = ""
    """nnU-Net's reader of PNG, BMP and TIFF files; of a TIFF stack a file with its spacing may follow in `files`."""

    @property
    def quoted(self) -> tuple[str, ...]:
        """Texts other than paths that messages may quote: a series' description and UID, names in an archive."""
        members = self.files if self.archive is not None else ()
        return tuple(text for text in (self.series, self.uid, *members) if text)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One prediction: a scan for each channel, or one scan with all channels."""

    id: str
    """Relative path below the input, `/` between folders, without ending and channel; it names the output."""
    scans: tuple[Scan, ...]
    """The scans in the order of the model's channels."""
    size_bytes: int = 0
    """Size of all scans on disk."""
    notes: tuple[str, ...] = ()
    """Automatic choices that the report must mention."""

    @property
    def quoted(self) -> tuple[str, ...]:
        """Texts from its scans that messages may contain (`Scan.quoted`)."""
        return tuple(text for scan in self.scans for text in scan.quoted)


@dataclass(frozen=True, kw_only=True)
class RejectedInput:
    """Input that cannot be a case; it is reported like a failed case."""

    id: str
    """Name in the report, formed like that of a case."""
    reason: str
    """Why it cannot be predicted."""
    files: tuple[str, ...] = ()
    """Paths of the input."""
    quoted: tuple[str, ...] = ()
    """Other texts from the input that `reason` may contain (`Scan.quoted`)."""


@dataclass(frozen=True, kw_only=True)
class CaseList:
    """Everything found below the input."""

    cases: tuple[Case, ...]
    """Cases sorted by id; ids also differ when compared without case."""
    rejected: tuple[RejectedInput, ...] = ()
    """Input that cannot be a case, sorted by id."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Path below the input -> why this image is no scan (a label image)."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Reason for ignoring files (hidden, macOS `._`, not an image, ...) -> number of files."""

    @property
    def ids(self) -> list[str]:
        """Ids of all cases and rejected inputs."""
        return [case.id for case in self.cases] + [one.id for one in self.rejected]
