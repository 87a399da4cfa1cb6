"""The outcome of a prediction for one file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The outcome for one file."""

    source: str
    """The input file."""
    status: str
    """done, kept (a valid result existed) or failed."""
    target: str = ""
    """The output file."""
    points: int = 0
    """Number of points."""
    unlabelled: int = 0
    """Points without a position, whose class is -1."""
    rejected: int | None = None
    """Points whose class is -1 because they have less confidence than asked for. None: nothing was asked for."""
    classes: dict[str, int] | None = None
    """Points of each class that occurs."""
    visible: float | None = None
    """Share of points visible in images, for models that read images."""
    seconds: float = 0.0
    """Time for reading, predicting and writing."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    reason: str = ""
    """Why it failed."""
