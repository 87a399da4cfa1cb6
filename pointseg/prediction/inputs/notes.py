"""What the user should know of a cloud: its type, its scale, points without a position, values of its fields."""

from __future__ import annotations

from pathlib import Path

from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import Recipe
from pointseg.datasets.scale import ScaleDoubt
from pointseg.files import cloud_suffix
from pointseg.files.columns.scales import Scales
from pointseg.files.las.header import header_notes, read_header
from pointseg.files.las.read import is_copc
from pointseg.files.ply.read import list_notes
from pointseg.prediction.inputs.advice import COMMAND, Advice


def no_position_note(points: int) -> str:
    """What the user should know of points without a position."""
    return f"{points} points have no position; their class is -1"


def scale_notes(doubt: ScaleDoubt | None, *, refuse: bool, advice: Advice = COMMAND) -> list[str]:
    """What the user should know of a cloud whose scale is doubtful.

    Raises:
        UserError: it is, and is to be refused.
    """
    if doubt is not None and refuse:
        unit = "" if doubt.unit is None else f"{advice.unit(doubt.unit)}, or "
        raise UserError(f"{advice.who}{doubt.found}; {unit}{advice.skip}")
    return [] if doubt is None else [doubt.found]


def file_notes(path: Path, scales: Scales, recipe: Recipe) -> list[str]:
    """What the user should know about a file: its type, and the values of the fields that the model reads."""
    values = [note for name in ("coord", *recipe.needs) for note in scales.notes.get(name, ())]
    return type_notes(path) + values


def type_notes(path: Path) -> list[str]:
    """What the user should know about the type of a file."""
    if cloud_suffix(path) == ".ply":
        return list_notes(path)
    if cloud_suffix(path) not in (".las", ".laz"):
        return []
    copc = ["is cloud-optimised (COPC); the result is plain LAZ"] if is_copc(path) else []
    return copc + header_notes(read_header(path))
