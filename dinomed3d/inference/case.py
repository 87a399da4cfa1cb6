"""What is to be predicted: scans as they lie there, the cases they make, and what cannot be one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dinomed3d.runtime.errors import UserError


class CaseError(UserError):
    """Why one case cannot be done, in one line for whoever reads the report; the others go on."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One image: a file, or the files of one DICOM series in the order of its slices."""

    files: tuple[str, ...]
    """Absolute paths; of members inside the archive, where there is one."""
    ending: str
    """`.nii`, `.nii.gz`, `.mha`, `.nrrd`, or `.dcm` for a DICOM series, whatever its files are called."""
    archive: str | None = None
    """The zip that holds the files."""
    series: str = ""
    """DICOM: which series this is, in words: number, description, files."""
    uid: str = ""
    """DICOM: SeriesInstanceUID."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**self.__dict__, "files": list(self.files)}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Scan:
        """Back from plain data."""
        return Scan(**{**content, "files": tuple(content["files"])})


@dataclass(frozen=True, kw_only=True)
class Case:
    """One prediction: a scan for each channel, or one scan that holds them all."""

    id: str
    """Relative path below the input, `/` between folders, without ending and channel: names the output."""
    scans: tuple[Scan, ...]
    """In the order of the model's channels."""
    size_bytes: int = 0
    """On disk, of all scans."""
    notes: tuple[str, ...] = ()
    """What was chosen for the user, to be told in the report."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "id": self.id,
            "scans": [scan.to_json() for scan in self.scans],
            "size_bytes": self.size_bytes,
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Case:
        """Back from plain data."""
        scans = tuple(Scan.from_json(scan) for scan in content["scans"])
        return Case(**{**content, "scans": scans, "notes": tuple(content["notes"])})


@dataclass(frozen=True, kw_only=True)
class RejectedInput:
    """Something that was to be a case and cannot be one; it is reported like a failed case."""

    id: str
    reason: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CaseList:
    """All that was found below the input."""

    cases: tuple[Case, ...]
    """Sorted by id; ids differ also where capitals are not told apart."""
    refusals: tuple[RejectedInput, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files left alone: why -> how many (hidden, macOS `._`, not an image, ...)."""
