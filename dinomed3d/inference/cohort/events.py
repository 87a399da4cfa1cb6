"""What happens during a run, as events for progress displays and between processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dinomed3d.inference.case import CaseList
    from dinomed3d.inference.cohort.outputs.resume import Worklist
    from dinomed3d.inference.models.model import Model


@dataclass(frozen=True)
class CasesFound:
    """The input was searched and compared with the results of earlier runs."""

    shard: CaseList
    """The cases and rejected inputs of this run."""
    work: Worklist
    """The cases by what is to be done with them."""
    hint: str | None = None
    """What the user may want to know about the model."""


@dataclass(frozen=True)
class CaseStarted:
    """A worker opens the files of a case."""

    case: str
    """Id of the case."""


@dataclass(frozen=True)
class CaseStep:
    """A step of a case begins or has ended: a sign of progress."""

    case: str
    """Id of the case."""
    step: str
    """Name of the step."""
    ended: bool
    """Whether it has ended."""


@dataclass(frozen=True)
class CaseProgress:
    """A network has predicted windows of a case."""

    case: str
    """Id of the case."""
    done: int
    """Windows that are done in this step."""
    windows: int
    """All windows of this step."""
    step: str = "network"
    """Name of the step: `network`, or before it `localizer` or `first stage`."""


@dataclass(frozen=True)
class CaseEnded:
    """A case has its final record."""

    case: str
    """Id of the case."""
    reason: str | None
    """Why it failed; None if it is done."""
    seconds: Mapping[str, float]
    """Duration of each step."""


@dataclass(frozen=True)
class WorkerAlive:
    """Windows went through a network since the last event: a sign of progress."""


@dataclass(frozen=True)
class RunStalled:
    """The run cannot go on: a thread hangs, and threads cannot be ended (the engine `threads`)."""

    message: str
    """What to do."""


@dataclass(frozen=True)
class ModelOpened:
    """A worker process has checked the model."""

    model: Model
    """The model without its weights."""


@dataclass(frozen=True)
class WorkerReady:
    """A worker has loaded the networks."""

    pid: int
    """Process id of the worker."""
    device: str = ""
    """Where its networks run, such as `cuda:0`; empty where it is not said."""


@dataclass(frozen=True)
class WorkerFailed:
    """A worker cannot work for a reason that the user can remove."""

    message: str
    """Text of the UserError."""


Event = (
    CasesFound
    | CaseStarted
    | CaseStep
    | CaseProgress
    | CaseEnded
    | WorkerAlive
    | RunStalled
    | ModelOpened
    | WorkerReady
    | WorkerFailed
)
ProgressCallback = Callable[[Event], None]
"""Receives events, from any thread."""
