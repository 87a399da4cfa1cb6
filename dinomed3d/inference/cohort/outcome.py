"""The end of a run: the report of all cases in the output folder, and what became of those of this run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dinomed3d.hub.local_model import name_or_path
from dinomed3d.inference.case import Case, CaseList, RejectedInput
from dinomed3d.inference.cohort.outputs.describe import describe_model, failed_record
from dinomed3d.inference.cohort.outputs.earlier_failures import EarlierFailures
from dinomed3d.inference.cohort.outputs.mask_digest import sha256
from dinomed3d.inference.cohort.outputs.record import Record, read_record
from dinomed3d.inference.cohort.outputs.result_files import COLOUR_TABLE
from dinomed3d.inference.cohort.outputs.resume import Worklist
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.io.label_table import slicer_colours
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.report.anonymous import Anonymizer
from dinomed3d.inference.report.quality import TrainingRange
from dinomed3d.inference.report.run_flags import flag_edited, flag_orientations
from dinomed3d.inference.report.run_report import write_report
from dinomed3d.runtime.files.atomic_files import atomic_write


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    done: tuple[str, ...]
    """Cases with a mask."""
    failed: Mapping[str, str]
    """Failed cases and rejected inputs -> reason."""
    failed_before: frozenset[str]
    """Those of them that had failed in an earlier run already, with the same files."""
    missing: tuple[str, ...]
    """Cases that are neither done nor failed, because the run was interrupted."""
    report: Path
    """The HTML report."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What stays the same during a run."""

    spec: PredictSpec
    """Its options, resolved."""
    model: Model
    """The model that predicts, without its weights."""
    found: CaseList
    """Everything below the input."""
    shard: CaseList
    """The part of it that this run predicts."""
    started: float
    """Seconds since the epoch."""
    earlier: EarlierFailures
    """What had failed before it began."""
    names: Anonymizer | None
    """Replaces names in reports; None: reports name cases as they are."""


def report(run: Run, work: Worklist) -> Outcome:
    """Write the report of all cases in the output folder, and sum up this shard."""
    out = Path(run.spec.out)
    names = sorted(run.found.ids)
    of_shard: list[Case | RejectedInput] = [*run.shard.cases, *run.shard.rejected]
    blocked = {
        one.id: failed_record(one, work.blocked[one.id], run.model, run.spec)
        for one in of_shard
        if one.id in work.blocked
    }
    records = _finished(out, names) | blocked
    while True:
        content = {
            "model": {
                "source": name_or_path(run.model.source),
                "name": run.model.name,
                **describe_model(run.model),
            },
            "spec": run.spec.for_report(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(run.started)),
            "seconds": round(time.time() - run.started, 1),
            "devices": sorted(
                {f"{r['device']}, {r['precision']}" for r in records.values() if "device" in r}
            ),
            "left_out": dict(run.found.left_out),
            "ignored": dict(run.found.ignored),
            "not_compared": TrainingRange.of(run.model).not_compared,
            "missing": [name for name in names if name not in records],
        }
        edited = _digests(out, {n: r for n, r in records.items() if n in work.edited})
        shown = [flag_edited(r, edited[n]) if n in edited else r for n, r in records.items()]
        if run.spec.orientation is None:
            shown = flag_orientations(shown)
        if run.names is not None:
            run.names.write_table(out, names)
            shown, content = [run.names.record(r) for r in shown], run.names.run(content)
        write_report(out, shown, content)
        atomic_write(out / COLOUR_TABLE, slicer_colours(run.model.mask_values).encode("utf-8"))
        # another shard may have finished a case meanwhile, and this report may have replaced its own
        reported, records = records.keys(), _finished(out, names) | blocked
        if records.keys() == reported:
            break
    return _outcome(run, {n: records[n] for n in run.shard.ids if n in records}, blocked)


def _outcome(run: Run, own: Mapping[str, Record], blocked: Mapping[str, Record]) -> Outcome:
    """Sum up the cases of this shard, under the names that reports have for them."""

    def shown(case: str) -> str:
        return case if run.names is None else run.names.name(case)

    def said(case: str) -> str:
        reason = str(own[case]["reason"])
        return reason if run.names is None else run.names.text(reason, case)

    failed = [name for name, record in own.items() if record["status"] == "failed"]
    before = {
        name
        for name in failed
        if run.earlier.has(own[name], blocked_as=shown(name) if name in blocked else None)
    }
    return Outcome(
        done=tuple(shown(name) for name in own if name not in set(failed)),
        failed={shown(name): said(name) for name in failed},
        failed_before=frozenset(map(shown, before)),
        missing=tuple(shown(name) for name in run.shard.ids if name not in own),
        report=Path(run.spec.out) / "report.html",
    )


def _digests(out: Path, records: Mapping[str, Record]) -> dict[str, str]:
    """sha256 of the masks as they are now; one may have been moved away meanwhile."""
    masks = {name: out / record["mask"]["file"] for name, record in records.items()}
    return {name: sha256(mask) for name, mask in masks.items() if mask.is_file()}


def _finished(out: Path, names: Iterable[str]) -> dict[str, Record]:
    """The records of the cases that are done or have failed."""
    records = {name: read_record(out, name) for name in names}
    return {n: r for n, r in records.items() if r is not None and r["status"] in ("done", "failed")}
