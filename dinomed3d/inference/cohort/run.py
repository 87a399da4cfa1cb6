"""A whole run: find cases, keep what is done, predict the rest, report."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from dinomed3d.inference.case import CaseList
from dinomed3d.inference.cohort.anonymous_events import anonymous_events
from dinomed3d.inference.cohort.engines.run_engine import run_engine
from dinomed3d.inference.cohort.engines.worker_process import WorkerProcess
from dinomed3d.inference.cohort.events import CasesFound, ProgressCallback
from dinomed3d.inference.cohort.outcome import Outcome, Run, report
from dinomed3d.inference.cohort.outputs.complete_kept import complete_kept
from dinomed3d.inference.cohort.outputs.describe import failed_record
from dinomed3d.inference.cohort.outputs.earlier_failures import EarlierFailures
from dinomed3d.inference.cohort.outputs.foreign_files import foreign_file, protect_inputs
from dinomed3d.inference.cohort.outputs.nnunet_files import write_for_nnunet
from dinomed3d.inference.cohort.outputs.output_lock import hold_output
from dinomed3d.inference.cohort.outputs.record import read_record
from dinomed3d.inference.cohort.outputs.remove_results import remove_leftovers, write_failure
from dinomed3d.inference.cohort.outputs.result_files import EARLIER
from dinomed3d.inference.cohort.outputs.resume import Worklist, compare_with_output
from dinomed3d.inference.cohort.outputs.shards import take_shard
from dinomed3d.inference.cohort.resolve_options import (
    check_with_model,
    hint_of_postprocessing,
    resolve,
)
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.models.model import Model, open_model
from dinomed3d.inference.report.anonymous import Anonymizer
from dinomed3d.runtime.errors import UserError


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
    spec = resolve(spec)
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
    """Find the cases and predict them; where reports are anonymous, events and errors are as well."""
    started, out = time.time(), Path(spec.out)
    check_with_model(spec, model)
    found = find_cases(
        Path(spec.source),
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
        with hold_output(out, spec.shard):
            return _work(spec, model, on_event, worker, found, None, started)
    try:
        hidden = anonymous_events(names, on_event)
        with hold_output(out, spec.shard):
            return _work(spec, model, hidden, worker, found, names, started)
    except UserError as error:
        # without its cause, which would name what this leaves out
        raise UserError(names.text(str(error))) from None


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
        run, work = _begin(spec, model, found, names, started)
    except OSError as error:
        raise UserError(f"-o {out}: cannot be written to ({error.strerror or error})") from error
    on_event(CasesFound(run.shard, work, hint=hint_of_postprocessing(spec, model)))
    try:
        run_engine(model, spec, work.todo, on_event, worker)
    except BaseException:
        # the user must see what stopped the run, even if the report cannot be written either
        with suppress(OSError):
            report(run, work)
        raise
    try:
        return report(run, work)
    except OSError as error:
        raise UserError(
            f"-o {error.filename or out}: the report cannot be written ({error.strerror or error}); the masks of "
            "finished cases are complete, and the same command writes the report once there is room, and no other "
            "program, such as Excel, has it open"
        ) from error


def _begin(
    spec: PredictSpec, model: Model, found: CaseList, names: Anonymizer | None, started: float
) -> tuple[Run, Worklist]:
    """Compare the cases with the output folder, complete those that are done, and record rejected inputs.

    Raises:
        UserError: the output folder contains results of another model or of other settings.
        OSError: it cannot be written to.
    """
    out = Path(spec.out)
    if spec.save_probabilities == "npz":
        write_for_nnunet(out, model, spec)
    shard = take_shard(found, spec.shard, out)
    run = Run(
        spec=spec,
        model=model,
        found=found,
        shard=shard,
        started=started,
        earlier=EarlierFailures.read(out, shard.ids),
        names=names,
    )
    work = compare_with_output(shard.cases, out, model, spec)
    remove_leftovers(out, [case.id for case in shard.cases])
    kept = [case for case in shard.cases if case.id in set(work.kept)]
    work.completed.extend(complete_kept(kept, work.edited, out, model, spec))
    for rejected in shard.rejected:
        if read_record(out, rejected.id) is None and (why := foreign_file(rejected.id, out)):
            work.blocked[rejected.id] = f"{rejected.reason}; its record is not written: {why}"
            continue
        record = failed_record(rejected, rejected.reason, model, spec)
        write_failure(out, record, keep_mask_as=EARLIER)
    return run, work
