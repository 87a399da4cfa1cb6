"""Cases of a run by status, and the totals of report.html and report.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CaseCounts:
    """Cases of a run by status, each group sorted by name."""

    done: tuple[Mapping[str, Any], ...]
    """Records of the cases that have a mask."""
    failed: tuple[Mapping[str, Any], ...]
    """Records of the cases that cannot be predicted."""
    missing: tuple[str, ...]
    """Names of the cases not done yet: the run was interrupted, or another shard has them."""

    @staticmethod
    def of(records: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> CaseCounts:
        """Sort records; what is neither done nor failed is missing, as are the run's `missing`."""
        ordered = sorted(records, key=lambda record: str(record["case"]))
        begun = {str(r["case"]) for r in ordered if r["status"] not in ("done", "failed")}
        return CaseCounts(
            done=tuple(r for r in ordered if r["status"] == "done"),
            failed=tuple(r for r in ordered if r["status"] == "failed"),
            missing=tuple(sorted({*map(str, run.get("missing") or ()), *begun})),
        )

    @property
    def flagged(self) -> tuple[Mapping[str, Any], ...]:
        """Records of the cases that are done and should be reviewed."""
        return tuple(record for record in self.done if record.get("flags"))

    @property
    def counts(self) -> dict[str, int]:
        """Number of cases that are done, failed, missing, flagged."""
        return {n: len(getattr(self, n)) for n in ("done", "failed", "missing", "flagged")}


def total_seconds(record: Mapping[str, Any]) -> float | None:
    """Seconds of all steps of a case together, None if none was timed."""
    steps = record.get("seconds") or {}
    return round(sum(steps.values()), 3) if steps else None


def total_ml(labels: Mapping[str, Mapping[str, Any]]) -> float:
    """Volume of all labels together; regions overlap, so with regions that of the largest."""
    volumes = [float(entry.get("volume_ml") or 0) for entry in labels.values()]
    regions = any(isinstance(entry.get("value"), list) for entry in labels.values())
    return max(volumes, default=0.0) if regions else sum(volumes)
