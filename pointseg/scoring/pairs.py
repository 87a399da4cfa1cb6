"""Which prediction belongs to which reference: files of the same path without the ending."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from pointseg.files import SUFFIXES, cloud_suffix
from pointseg.prediction.inputs.input_files import COPC_SUFFIX, walk_clouds
from pointseg.scoring.labels import LABEL_SUFFIXES
from pointseg.scoring.spec import ScoreSpec


@dataclass
class Pairs:
    """The files of two folders."""

    found: list[tuple[Path, Path]] = field(default_factory=list)
    """Predictions and their references."""
    missing: list[Path] = field(default_factory=list)
    """References without a prediction."""
    surplus: list[Path] = field(default_factory=list)
    """Predictions without a reference."""
    twice: list[tuple[Path, Path]] = field(default_factory=list)
    """Two files of one folder with one name, of which neither is taken."""


def find_pairs(spec: ScoreSpec) -> Pairs:
    """Pair two files, or the files of two folders and those below them.

    Raises:
        UserError: a path that does not exist or is of no known type, a file and a folder, no pairs.
    """
    for path in (spec.prediction, spec.reference):
        if not path.exists():
            raise UserError(f"{path}: does not exist")
    files = [_is_one(path) for path in (spec.prediction, spec.reference)]
    if all(files):
        _check_fields(spec)
        return Pairs([(spec.prediction, spec.reference)])
    if any(files):
        one, many = spec.prediction, spec.reference
        if files[1]:
            one, many = many, one
        raise UserError(f"{one} is a file, {many} a folder; give two files or two folders")
    pairs = Pairs()
    ours, theirs = _by_name(spec.prediction, pairs.twice), _by_name(spec.reference, pairs.twice)
    both = ours.keys() & theirs.keys()
    twice = {
        _key(folder, first)
        for folder in (spec.prediction, spec.reference)
        for first, _ in pairs.twice
        if first.is_relative_to(folder)
    }
    pairs.found = [(ours[key], theirs[key]) for key in sorted(both - twice)]
    pairs.missing = [theirs[key] for key in sorted(theirs.keys() - both - twice)]
    pairs.surplus = [ours[key] for key in sorted(ours.keys() - both - twice)]
    if not both:
        raise UserError(
            f"{spec.prediction}, {spec.reference}: no two files of one name below both folders ({len(ours)} and "
            f"{len(theirs)} files with the endings {', '.join((*SUFFIXES, *LABEL_SUFFIXES))})"
        )
    return pairs


def _check_fields(spec: ScoreSpec) -> None:
    same_field = spec.prediction_field == spec.reference_field
    if same_field and spec.prediction.samefile(spec.reference):
        raise UserError(
            f"{spec.reference}: is the prediction itself; give the file with the reference, or "
            "--prediction-field and --reference-field for two fields of one file"
        )


def _is_one(path: Path) -> bool:
    """Whether a path is one cloud, and not a folder of them."""
    return not path.is_dir() or cloud_suffix(path) is not None


def _by_name(folder: Path, twice: list[tuple[Path, Path]]) -> dict[str, Path]:
    """The clouds below a folder, and files of labels alone, by path without the ending."""
    found: dict[str, Path] = {}
    for path in walk_clouds(folder):
        other = found.setdefault(_key(folder, path), path)
        if other is not path:
            twice.append((other, path))
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if name.lower().endswith(LABEL_SUFFIXES) and not name.startswith("."):
                found.setdefault(_key(folder, path), path)  # a cloud of that name reads its labels
    return found


def _key(folder: Path, path: Path) -> str:
    """The relative path without the ending."""
    name = path.name
    endings = (COPC_SUFFIX, cloud_suffix(path) or "", *LABEL_SUFFIXES)
    for ending in endings:
        if ending and name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    text = path.relative_to(folder).with_name(name).as_posix()
    return unicodedata.normalize("NFC", text)
