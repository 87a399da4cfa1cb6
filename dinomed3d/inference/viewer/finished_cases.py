"""The finished cases below an output folder, and what has become of them since an earlier look."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dinomed3d.inference.cohort.outputs.record import Record, read_record
from dinomed3d.inference.cohort.outputs.result_files import REPORTS, record_path

_State = tuple[int, int, int]
"""Time, size and number of a file: with all three equal, it is the same file."""


@dataclass(frozen=True, kw_only=True)
class FinishedCase:
    """What a record says of its case."""

    is_flagged: bool
    """Whether the report asks for a look at it."""
    mask: str
    """Path of the mask below the output folder."""
    files: tuple[str, ...]
    """Paths of all its files below the output folder."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A case as the last look found it."""

    record: _State | None
    """Of the file of its record; None where there is none any more."""
    mask: _State | None
    """Of its mask; None where there is none."""
    case: FinishedCase | None
    """None: the record is not that of a finished case."""
    first: int | None
    """The look that first found it finished; None where none did."""
    last: int
    """The last look that found it changed: predicted again, its mask corrected, or finished no more."""


class FinishedCases:
    """Looks at a folder again and again; records that have not changed are read once."""

    def __init__(self, out: Path) -> None:
        """Nothing is read yet."""
        self.out = out
        self.looks = 0
        """Number of looks until now."""
        self._seen: dict[str, _Seen] = {}

    def look(self) -> dict[str, FinishedCase]:
        """The finished cases as they are now."""
        self.looks += 1
        names = {*_records_below(self.out), *self._seen}
        self._seen = {name: self._look_at(name, self._seen.get(name)) for name in names}
        return {name: seen.case for name, seen in self._seen.items() if seen.case is not None}

    def _look_at(self, name: str, before: _Seen | None) -> _Seen:
        record = _state(record_path(self.out, name))
        if before is not None and before.record == record:
            case = before.case
        else:
            case = None if record is None else self._read(name)
        mask = None if case is None else _state(self.out / case.mask)
        first = self.looks if case is not None else None
        now = _Seen(record=record, mask=mask, case=case, first=first, last=self.looks)
        if before is None or before.first is None:
            return now
        is_same = (before.record, before.mask) == (record, mask)
        is_same |= before.case is None and case is None  # whatever the records of failures say
        return replace(now, first=before.first, last=before.last if is_same else self.looks)

    def _read(self, name: str) -> FinishedCase | None:
        record = read_record(self.out, name)
        if record is None or record["status"] != "done":
            return None
        return FinishedCase(
            is_flagged=bool(record["flags"]),
            mask=record["mask"]["file"],
            files=tuple(_files_of(record)),
        )

    def since(self, look: int) -> tuple[list[str], list[str]]:
        """What the looks after one have found.

        Args:
            look: its number.

        Returns:
            Cases that were first finished since; those that were finished by then and have changed since. While
            a case is predicted again it is not finished for a time: then it is still one that has changed.
        """
        new, changed = [], []
        for name, seen in self._seen.items():
            if seen.first is None:
                continue
            if seen.first > look and seen.case is not None:
                new.append(name)
            if seen.first <= look < seen.last:
                changed.append(name)
        return new, changed


def _state(path: Path) -> _State | None:
    """What changes when a file is written; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _records_below(out: Path) -> Iterator[str]:
    """Names of cases that have a JSON file below a folder, which may be their record."""
    for folder, _, names in os.walk(out):
        place = Path(folder).relative_to(out).as_posix()
        for name in names:
            if name.endswith(".json") and not (place == "." and name in REPORTS):
                stem = name[: -len(".json")]
                yield stem if place == "." else f"{place}/{stem}"


def _files_of(record: Record) -> list[str]:
    """Paths of a case's files below the output folder; `read_record` has checked that they are its own."""
    split = (record.get("split") or {}).get("files") or {}
    return [f"{record['case']}.json", record["mask"]["file"], *record["files"], *split.values()]
