"""What can be done about a refused cloud, in the words of where it came from: a command, or a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Ends of the sentences that refuse a cloud."""

    unit: Callable[[str], str]
    """How another unit of its coordinates is given, from the name of one."""
    skip: str
    """How a doubtful scale is accepted."""
    missing: str
    """How fields are given that it lacks."""
    who: str = ""
    """With what the sentence begins; empty where its reader names the file."""


@dataclass(frozen=True, kw_only=True)
class FileAdvice(Advice):
    """Those that refuse a file, whose values may be in another range than their type says."""

    ranges: Callable[[str], str]
    """How ranges of values are given, from the option of commands that states them."""


COMMAND = FileAdvice(
    unit=lambda unit: f"state the unit of its coordinates (--unit {unit})",
    skip="predict it all the same (--skip-scale-check)",
    missing="use a file that has them, or a model that was trained without",
    ranges=lambda option: f"state their range with {option}",
)
"""For users of ``pointseg-predict``."""
ANYWAY = "predict it all the same (pointseg.load_model(..., check_scale=False))"
ARRAYS = Advice(
    unit=lambda unit: "give metres (0.001 * points of millimetres, 1000 * points of kilometres)",
    skip=ANYWAY,
    missing="give them (color=, intensity= for strength, others in a pointseg.Scene), or use a model that was trained "
    "without",
    who="predict: 'points' ",
)
"""For programs that give arrays or scenes."""


def of_file(path: Path) -> FileAdvice:
    """For programs that give a file, which is read as those of the training were."""
    return FileAdvice(
        unit=lambda unit: "give its points as an array, in metres",
        skip=ANYWAY,
        missing=COMMAND.missing,
        ranges=lambda option: f"give its points as arrays, or use pointseg-predict with {option}",
        who=f"{path}: ",
    )
