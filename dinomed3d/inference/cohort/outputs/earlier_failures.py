"""Failures that an earlier run has reported already: a run that meets only these has nothing new to say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinomed3d.inference.cohort.outputs.record import Record, read_record
from dinomed3d.inference.cohort.outputs.result_files import SUMMARY


@dataclass(frozen=True, kw_only=True)
class EarlierFailures:
    """What had failed in the output folder before this run began."""

    inputs: Mapping[str, Any]
    """Failed case -> its files as they were then."""
    without_record: frozenset[str]
    """Cases that the summary of the run before calls failed, by their name in it."""

    @staticmethod
    def read(out: Path, cases: Iterable[str]) -> EarlierFailures:
        """Read them, before the records of this run replace them.

        Args:
            out: the output folder.
            cases: ids of all cases and rejected inputs of this run.
        """
        records = {case: read_record(out, case) for case in cases}
        return EarlierFailures(
            inputs={
                case: record["inputs"]
                for case, record in records.items()
                if record is not None and record["status"] == "failed"
            },
            without_record=frozenset(_named_failed(out / SUMMARY)),
        )

    def has(self, record: Record, *, blocked_as: str | None = None) -> bool:
        """Whether a failed case had failed before, with the same files.

        Args:
            record: of the failed case, as it is now.
            blocked_as: for a case whose record could not be written, its name in the summary.
        """
        if blocked_as is not None:
            return blocked_as in self.without_record
        return bool(self.inputs.get(record["case"]) == record["inputs"])


def _named_failed(summary: Path) -> set[str]:
    """Names of the failed cases in run.json; none where there is no such file of ours."""
    try:
        failed = json.loads(summary.read_text(encoding="utf-8"))["failed"]
        return {str(entry["case"]) for entry in failed}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return set()
