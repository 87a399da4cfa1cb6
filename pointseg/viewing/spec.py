"""What ``pointseg-view`` is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pointseg.scoring.spec import ScoreSpec

POINTS = 2_000_000
"""Points that are shown: what browsers turn smoothly, and a few dozen megabytes."""


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """Which clouds are shown, and how many of their points."""

    inputs: tuple[Path, ...]
    """Files, or folders to search."""
    reference: Path | None = None
    """File or folder with reference classes of the one input; None: errors are not shown."""
    meaning: ScoreSpec | None = None
    """What labels mean where files do not say so, as for ``pointseg-eval``; its paths do not count."""
    most: int = POINTS
    """Points that are shown, of all clouds together."""
    thinning: str = "random"
    """How points are chosen, one of ``THINNING``."""
    progress: Callable[[float, int, str], None] = lambda done, total, name: None
    """Receives how many clouds are read, in fractions, of how many, and the name of one that is begun."""
    log: Callable[[str], None] = lambda line: None
    """Receives what the user should know."""
