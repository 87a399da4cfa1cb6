"""What happens during a run, as events for progress displays and between processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dinomed3d.inference.models.model import Model


@dataclass(frozen=True, kw_only=True)
class CasesFound:
    """The input was searched and compared with the results of earlier runs."""

    cases: int
    """Number of cases of this shard."""
    todo: int
    """Number of cases to predict now."""
    kept: int
    """Number of cases with verified results of an earlier run."""
    edited: int
    """Number of kept cases whose mask was corrected by hand."""
    failed: int
    """Number of cases that failed in an earlier run and are not tried again."""
    rejected: int
    """Number of inputs that cannot be a case."""
    redone: Mapping[str, str]
    """Case -> why its results of an earlier run are not valid."""
    ignored: Mapping[str, int]
    """Reason -> number of ignored files."""


@dataclass(frozen=True)
class CaseStarted:
    """A worker opens the files of a case."""

    case: str
    """Id of the case."""


@dataclass(frozen=True)
class CaseProgress:
    """The network has processed a fraction of a case."""

    case: str
    """Id of the case."""
    fraction: float
    """Between 0 and 1."""


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
class ModelOpened:
    """A worker process has checked the model."""

    model: Model
    """The model without its weights."""


@dataclass(frozen=True)
class WorkerReady:
    """A worker has loaded the networks."""

    pid: int
    """Its process id."""


@dataclass(frozen=True)
class WorkerFailed:
    """A worker cannot work for a reason that the user can remove."""

    message: str
    """Text of the UserError."""


Event = (
    CasesFound | CaseStarted | CaseProgress | CaseEnded | ModelOpened | WorkerReady | WorkerFailed
)
ProgressCallback = Callable[[Event], None]
"""Receives events, from any thread."""
