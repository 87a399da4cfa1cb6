"""A whole run: find cases, keep what is done, predict the rest, report."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dinomed3d.hub.local_model import name_or_path
from dinomed3d.inference.case import Case, CaseList, RejectedInput
from dinomed3d.inference.cohort.anonymous_events import anonymous_events
from dinomed3d.inference.cohort.deliverables import complete_kept
from dinomed3d.inference.cohort.earlier_failures import EarlierFailures
from dinomed3d.inference.cohort.events import CasesFound, ProgressCallback
from dinomed3d.inference.cohort.record import (
    Record,
    describe_model,
    failed_record,
    read_record,
    remove_leftovers,
    write_failure,
)
from dinomed3d.inference.cohort.resume import (
    COLOUR_TABLE,
    REPORTS,
    Worklist,
    compare_with_output,
    foreign_file,
    protect_inputs,
)
from dinomed3d.inference.cohort.shards import take_shard
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker_process import WorkerProcess, supervise
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.io.label_table import slicer_colours
from dinomed3d.inference.models.model import Model, open_model
from dinomed3d.inference.models.model_files import digest_of
from dinomed3d.inference.models.postprocessing import file_steps, model_steps
from dinomed3d.inference.report.anonymous import Anonymizer
from dinomed3d.inference.report.quality import TrainingRange
from dinomed3d.inference.report.run_flags import flag_edited, flag_orientations
from dinomed3d.inference.report.run_report import write_report
from dinomed3d.runtime.atomic_files import atomic_write
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.extras import how_to_install


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
class _Run:
    """What stays the same during a run."""

    spec: PredictSpec
    model: Model
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


def predict(spec: PredictSpec, on_event: ProgressCallback) -> Outcome:
    """Predict everything below the input.

    Args:
        spec: options.
        on_event: receives events, from any thread.

    Returns:
        The state of all cases of this shard.

    Raises:
        UserError: nothing can be predicted at all; says why.
        KeyboardInterrupt: after the report of what was done until then.
    """
    spec = with_postprocessing(spec)
    if spec.localizer is not None:
        spec = replace(spec, localizer_digest=digest_of(Path(spec.localizer)))
    if spec.engine != "process":
        model = open_model(Path(spec.model), folds=spec.folds, checkpoint=spec.checkpoint)
        return _predict(spec, model, on_event, None)
    worker = WorkerProcess(spec)  # loads what it needs while the cases are searched
    try:
        return _predict(spec, worker.model(), on_event, worker)
    finally:
        worker.end()


def _predict(
    spec: PredictSpec, model: Model, on_event: ProgressCallback, worker: WorkerProcess | None
) -> Outcome:
    started = time.time()
    out, source = Path(spec.out), Path(spec.source)
    if spec.dicom_seg:
        check_dicom_seg(model)
    if spec.dicom_rtstruct:
        check_label_names(model)
    if out.resolve() == source.resolve():
        raise UserError(
            f"-o {out}: must be another folder than -i, whose scans masks would replace"
        )
    found = find_cases(
        source,
        channels=model.channels,
        patterns=spec.patterns,
        skip=[out],
        exclude=spec.exclude,
        reader=model.reader,
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        protect_inputs(found, out)
        names = anonymizer(spec, found) if spec.anonymous else None
    except OSError as error:
        raise UserError(f"-o {out}: cannot be written to ({error.strerror or error})") from error
    if names is None:
        return _work(spec, model, on_event, worker, found, None, started)
    try:
        hidden = anonymous_events(names, on_event)
        return _work(spec, model, hidden, worker, found, names, started)
    except UserError as error:
        raise UserError(
            names.text(str(error))
        ) from None  # the cause would name what this leaves out


def anonymizer(spec: PredictSpec, found: CaseList) -> Anonymizer:
    """What hides the names of a run, which writes its key into the output folder.

    Raises:
        OSError: it cannot be written.
    """
    places = {spec.source: "IN", spec.out: "OUT", spec.model: "MODEL"}
    absolute = {os.path.abspath(path): word for path, word in places.items()}
    longest = sorted((absolute | places).items(), key=lambda place: -len(place[0]))
    return Anonymizer.of(found, Path(spec.out), dict(longest))


def _work(
    spec: PredictSpec,
    model: Model,
    on_event: ProgressCallback,
    worker: WorkerProcess | None,
    found: CaseList,
    names: Anonymizer | None,
    started: float,
) -> Outcome:
    """Predict what was found and is not done yet, and report."""
    out = Path(spec.out)
    try:
        if spec.save_probabilities == "npz":
            write_for_nnunet(out, model, spec)
        shard = take_shard(found, spec.shard, out)
        earlier = EarlierFailures.read(out, shard.ids)
        work = compare_with_output(shard.cases, out, model, spec)
        remove_leftovers(out, [case.id for case in shard.cases])
        kept = [case for case in shard.cases if case.id in set(work.kept)]
        work.completed.extend(complete_kept(kept, work.edited, out, model, spec))
        for rejected in shard.rejected:
            if read_record(out, rejected.id) is None and (why := foreign_file(rejected.id, out)):
                work.blocked[rejected.id] = f"{rejected.reason}; its record is not written: {why}"
                continue
            record = failed_record(rejected, rejected.reason, model, spec)
            write_failure(out, record, keep_mask_as="earlier")
    except OSError as error:
        raise UserError(f"-o {out}: cannot be written to ({error.strerror or error})") from error
    run = _Run(
        spec=spec,
        model=model,
        found=found,
        shard=shard,
        started=started,
        earlier=earlier,
        names=names,
    )
    on_event(CasesFound(shard, work, hint=_not_applied(model, spec)))
    try:
        run_engine(model, spec, work.todo, on_event, worker)
    except BaseException:
        # the user must see what stopped the run, even if the report cannot be written either
        with suppress(OSError):
            _report(run, work)
        raise
    try:
        return _report(run, work)
    except OSError as error:
        raise UserError(
            f"-o {error.filename or out}: the report cannot be written ({error.strerror or error}); the masks of "
            "finished cases are complete, and the same command writes the report once there is room, and no other "
            "program, such as Excel, has it open"
        ) from error


def write_for_nnunet(out: Path, model: Model, spec: PredictSpec) -> None:
    """Write dataset.json and plans.json, which nnUNetv2_ensemble and nnUNetv2_apply_postprocessing read from a folder.

    Raises:
        UserError: files of these names are not from a run of ours, or nnU-Net's reader would turn the axes once more.
        OSError: they cannot be written.
    """
    if spec.orientation is not None and model.reader.endswith("WithReorient"):
        raise UserError(
            f"--orientation must be left out with --save-probabilities npz: nnU-Net's reader of this model, "
            f"{model.reader}, reorients scans itself"
        )
    for name, content in (("dataset.json", model.dataset), ("plans.json", model.plans)):
        text = json.dumps(content, indent=2).encode("ascii")
        path = out / name
        if path.exists() and path.read_bytes() != text and not (out / REPORTS[0]).exists():
            raise UserError(
                f"{path} exists already and is not from a run of ours; use another folder for -o"
            )
        atomic_write(path, text)


def with_postprocessing(spec: PredictSpec) -> PredictSpec:
    """The options with what the postprocessing that they name does.

    Raises:
        UserError: there is none, or it is not one of nnU-Net's.
    """
    if spec.postprocessing is None:
        return spec
    if spec.postprocessing:
        steps = file_steps(Path(spec.postprocessing))
    else:
        steps = model_steps(Path(spec.model), spec.folds)
    return replace(spec, postprocessing_steps=steps)


def _not_applied(model: Model, spec: PredictSpec) -> str | None:
    """A hint where the model has a postprocessing that is not asked for."""
    if model.postprocessing is None or spec.postprocessing is not None:
        return None
    return (
        f"the model has nnU-Net's postprocessing ({model.postprocessing}), which is not applied, as nnUNetv2_predict "
        "does not; --postprocessing applies it"
    )


def check_dicom_seg(model: Model) -> None:
    """Check that DICOM segmentations can be written at all, before hours of prediction.

    Raises:
        UserError: highdicom is not installed, or DICOM cannot store the name of a label.
    """
    if any(importlib.util.find_spec(name) is None for name in ("highdicom", "pydicom")):
        raise UserError(
            f"--dicom-seg needs highdicom, which is not installed; {how_to_install('dicom')}"
        )
    check_label_names(model)


def check_label_names(model: Model) -> None:
    """Check that DICOM can store the names of all labels, before hours of prediction.

    Raises:
        UserError: it cannot.
    """
    from dinomed3d.inference.dicom.segments import foreground_labels

    foreground_labels(model.labels)


def run_engine(
    model: Model,
    spec: PredictSpec,
    cases: list[Case],
    on_event: ProgressCallback,
    worker: WorkerProcess | None,
) -> None:
    """Predict cases with the engine of the spec; `worker` is that of the engine process."""
    if not cases:
        return
    if worker is not None:
        supervise(model, spec, cases, on_event, worker)
    elif spec.engine == "threads":
        from dinomed3d.inference.cohort.threads_backend import run_in_threads

        run_in_threads(model, spec, cases, on_event)
    else:
        from dinomed3d.inference.cohort.ray_backend import run_on_ray

        run_on_ray(model, spec, cases, on_event)


def _report(run: _Run, work: Worklist) -> Outcome:
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
        shown = [flag_edited(r) if name in work.edited else r for name, r in records.items()]
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


def _outcome(run: _Run, own: Mapping[str, Record], blocked: Mapping[str, Record]) -> Outcome:
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


def _finished(out: Path, names: Iterable[str]) -> dict[str, Record]:
    """The records of the cases that are done or have failed."""
    records = {name: read_record(out, name) for name in names}
    return {n: r for n, r in records.items() if r is not None and r["status"] in ("done", "failed")}
