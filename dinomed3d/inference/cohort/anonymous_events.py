"""What a run shows while it works, without personal data (`Anonymizer`)."""

from __future__ import annotations

from dataclasses import replace

from dinomed3d.inference.cohort.events import (
    CaseEnded,
    CaseProgress,
    CasesFound,
    CaseStarted,
    CaseStep,
    Event,
    ProgressCallback,
)
from dinomed3d.inference.report.anonymous import Anonymizer


def anonymous_events(names: Anonymizer, on_event: ProgressCallback) -> ProgressCallback:
    """A receiver of events that passes them on with pseudonyms."""

    def receive(event: Event) -> None:
        if isinstance(event, CasesFound):
            on_event(_found(names, event))
        elif isinstance(event, CaseEnded):
            reason = None if event.reason is None else names.text(event.reason, event.case)
            on_event(replace(event, case=names.name(event.case), reason=reason))
        elif isinstance(event, (CaseStarted, CaseStep, CaseProgress)):
            on_event(replace(event, case=names.name(event.case)))
        else:
            on_event(event)

    return receive


def _found(names: Anonymizer, event: CasesFound) -> CasesFound:
    """The search's result; of what is shown, names are in what was left out, is to do and is done again."""
    shard, work = event.shard, event.work
    return CasesFound(
        shard=replace(
            shard,
            left_out=names.left_out(shard.left_out),
            ignored=names.ignored(shard.ignored),
        ),
        work=replace(
            work,
            todo=[replace(case, id=names.name(case.id)) for case in work.todo],
            redone={names.name(case): names.text(why, case) for case, why in work.redone.items()},
        ),
        hint=event.hint,
    )
