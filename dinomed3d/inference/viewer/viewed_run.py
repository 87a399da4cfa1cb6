"""The finished cases of an output folder, and which of its files a browser may be given."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinomed3d.inference.case import Case, CaseError, CaseList
from dinomed3d.inference.cohort.outputs.mask_digest import is_edited
from dinomed3d.inference.cohort.outputs.record import Record, read_record
from dinomed3d.inference.cohort.outputs.result_files import REPORTS
from dinomed3d.inference.io.image import read_case
from dinomed3d.inference.report.anonymous import KEY_FILE, TABLE_FILE, Anonymizer
from dinomed3d.inference.viewer.display import Display, read_shown_mask, shown_labels
from dinomed3d.inference.viewer.finished_cases import FinishedCases
from dinomed3d.inference.viewer.recorded_case import CHANGED, has_changed, recorded_case
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.terminal_text import one_line

_SHOWN_REPORTS = tuple(name for name in REPORTS if name != TABLE_FILE)
"""Reports that a browser may be given: not the table of pseudonyms."""
_LEFT_OUT = "the reason is left out, since the run is anonymous; without --anonymous it is shown"


CORRECTED = "the mask has changed since it was predicted: it is shown as it is now"
"""Note on a case whose mask was corrected by hand."""


@dataclass(frozen=True, kw_only=True)
class ViewedCase:
    """A finished case as it is listed."""

    number: int
    """Stays its own while the viewer runs, whatever cases are finished meanwhile."""
    id: str
    """The case, as its files are named."""
    name: str
    """As it is shown: a pseudonym where the run is anonymous."""
    is_flagged: bool
    """Whether the report asks for a look at it."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What has become of a run since its cases were listed."""

    new: int
    """How many cases are finished that never were before."""
    changed: list[int]
    """Numbers of cases that were finished by then, and predicted again, corrected or removed since."""
    has_report: bool
    """Whether there is a report."""


class ViewedRun:
    """An output folder; one case of it is in memory at a time."""

    def __init__(self, out: Path) -> None:
        """List what is finished.

        Raises:
            UserError: there is nothing of a run of ours.
        """
        if not out.is_dir():
            raise UserError(f"OUT: {out} is no folder; give the one that 'predict -o' wrote")
        self.out = out
        self._records = FinishedCases(out)
        self._numbers: dict[str, int] = {}
        self._listing, self._reading = threading.Lock(), threading.Lock()
        self.look = 0
        """The look at the folder that listed the cases."""
        self._shown: tuple[tuple[int, int], Display, Record, list[str]] | None = None
        """Number of the case and of the look at the folder, and what was read then."""
        self.refresh()

    def refresh(self) -> None:
        """List again what is finished: a run may go on while one looks at its first cases.

        Raises:
            UserError: there is nothing of a run of ours any more.
        """
        with self._listing:
            self._list()
            # what is in memory is read again: its mask may have been corrected
            self.look = self._records.looks

    def news(self, look: int) -> News:
        """What has become of the run since a listing; what is listed stays as it is.

        Args:
            look: of the listing.
        """
        with self._listing:
            self._records.look()
            new, changed = self._records.since(look)
            numbers = [self._numbers[case] for case in changed if case in self._numbers]
        has_report = (self.out / "report.html").is_file()
        return News(new=len(new), changed=sorted(numbers), has_report=has_report)

    def _list(self) -> None:
        out, found = self.out, self._records.look()
        if not found:
            raise UserError(
                f"OUT: {out} holds no finished case; give the folder that 'predict -o' wrote"
            )
        self.anonymous = _is_anonymous(out)
        names = {case: one_line(case) for case in found}
        if self.anonymous:
            hide = _anonymizer(out, found)
            names = {case: hide.name(case) for case in found}
        ids = sorted(found, key=lambda case: names[case])
        for case in ids:
            self._numbers.setdefault(case, len(self._numbers))
        self.cases = tuple(
            ViewedCase(
                number=self._numbers[case],
                id=case,
                name=names[case],
                is_flagged=found[case].is_flagged,
            )
            for case in ids
        )
        """In the order of their names."""
        files = {name for name in _SHOWN_REPORTS if (out / name).is_file()}
        if not self.anonymous:
            files.update(*(case.files for case in found.values()))
        self.files = frozenset(files)
        """Paths below the folder that a browser may be given."""

    def find(self, name: str) -> int | None:
        """The number of a case by the name that reports have for it."""
        for case in self.cases:
            if name == (case.name if self.anonymous else case.id):
                return case.number
        return None

    def case(self, number: int) -> ViewedCase | None:
        """The case of a number, unless it is not finished any more."""
        return next((case for case in self.cases if case.number == number), None)

    def open_file(self, name: str) -> bytes | None:
        """The content of a file that a browser may be given, None of any other.

        A link that leads out of the folder is none of ours.
        """
        if name not in self.files:
            return None
        path = _inside(self.out, name)
        return None if path is None else path.read_bytes()

    def display(self, number: int) -> Display:
        """Scan and mask of a case.

        Raises:
            CaseError: they cannot be read; the message names nobody where the run is anonymous.
        """
        return self._read(number)[0]

    def describe(self, number: int) -> dict[str, Any]:
        """What the page shows in addition to the volumes.

        Raises:
            CaseError: as `display`.
        """
        shown, record, notes = self._read(number)
        case = self._case(number)
        return {
            "name": case.name,
            "labels": shown_labels(record["labels"], shown.volumes_ml),
            "channels": record["read_as"]["channels"],
            "windows": shown.windows(),
            "centre_mm": shown.centre_mm(),
            "to_voxel": shown.to_voxel.tolist(),
            "is_flat": shown.is_flat,
            "has_directions": shown.has_directions,
            "steps": shown.steps,
            "flags": [] if self.anonymous else record["flags"],
            "notes": notes,
            "mask": None if self.anonymous else record["mask"]["file"],
        }

    def _read(self, number: int) -> tuple[Display, Record, list[str]]:
        with self._reading:
            wanted = (number, self.look)
            if self._shown is None or self._shown[0] != wanted:
                self._shown = None  # two large volumes need not be in memory at once
                self._shown = (wanted, *self._open(self._case(number).id))
            return self._shown[1:]

    def _case(self, number: int) -> ViewedCase:
        case = self.case(number)
        if case is None:
            raise CaseError("is not finished any more; load the page again")
        return case

    def _open(self, case_id: str) -> tuple[Display, Record, list[str]]:
        try:
            return _open_case(self.out, case_id)
        except CaseError as err:
            reason = str(err)
        except Exception as err:  # whatever a damaged file does to its reader, the other cases stay
            reason = f"{case_id}: cannot be read: unexpected {type(err).__name__}: {err}"
        raise CaseError(f"it cannot be read; {_LEFT_OUT}" if self.anonymous else one_line(reason))


def _open_case(out: Path, case_id: str) -> tuple[Display, Record, list[str]]:
    record = read_record(out, case_id)
    if record is None or record["status"] != "done":
        raise CaseError(f"{case_id}: is not finished any more")
    case, channels = recorded_case(record)
    path = _inside(out, record["mask"]["file"])
    if path is None:
        raise CaseError(f"{record['mask']['file']}: is no file in {out}")
    volume = read_case(case, channels)
    notes = [CHANGED] if has_changed(record, case, channels) else []
    notes += [CORRECTED] if is_edited(record, out) else []
    mask = read_shown_mask(path, volume.grid)
    return Display.of(volume, mask), record, notes


def _is_anonymous(out: Path) -> bool:
    """Whether the last run of a folder was; without its summary, whether any was."""
    try:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return (out / KEY_FILE).exists()
    return bool(isinstance(run, dict) and run.get("anonymous"))


def _anonymizer(out: Path, cases: Iterable[str]) -> Anonymizer:
    if not (out / KEY_FILE).is_file():
        raise UserError(
            f"OUT: {out / KEY_FILE} is missing, without which the cases of this anonymous run have no names; "
            "run the same predict command again"
        )
    found = CaseList(cases=tuple(Case(id=case, scans=()) for case in cases))
    return Anonymizer.of(found, out, {})


def _inside(out: Path, name: str) -> Path | None:
    """The file of this name, unless a link leads out of the folder or nothing ordinary is there."""
    real = Path(os.path.realpath(out / name))
    return real if real.is_relative_to(os.path.realpath(out)) and real.is_file() else None
