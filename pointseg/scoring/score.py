"""Compare predictions with references: the run of ``pointseg-eval``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.files.columns.names import key_of
from pointseg.metrics import Confusion
from pointseg.scene import IGNORE
from pointseg.scoring.compare import compare
from pointseg.scoring.labels import FileLabels, read_labels
from pointseg.scoring.pairs import Pairs, find_pairs
from pointseg.scoring.prediction_classes import NO_CLASS, Classes, read_record
from pointseg.scoring.spec import PairScore, Scored, ScoreError, ScoreSpec

NO_CLASS_NAME = "(no class)"


def score(spec: ScoreSpec) -> Scored:
    """Compare two files, or the files of two folders; of folders, a bad pair costs only itself.

    Raises:
        UserError: nothing can be compared: see ``find_pairs``; two files that do not fit.
    """
    pairs, counts = find_pairs(spec), _Counts()
    done = []
    for number, (ours, theirs) in enumerate(pairs.found):
        if len(pairs.found) > 1:
            spec.log(f"[{number + 1}/{len(pairs.found)}] {ours.name}")
        try:
            done.append(_score_pair(ours, theirs, spec, counts))
        except (UserError, OSError) as error:
            if pairs.found == [(spec.prediction, spec.reference)]:
                raise
            done.append(PairScore(str(ours), str(theirs), error=str(error)))
    done += _twice(pairs)
    if all(pair.error is not None for pair in done):
        for pair in done:
            spec.log(f"failed: {pair.error}")
        raise ScoreError(f"none of {len(done)} pairs could be compared; the first: {done[0].error}")
    names, confusion, classes = counts.confusion(spec)
    return Scored(
        names,
        confusion,
        classes,
        tuple(done),
        missing=tuple(map(str, pairs.missing)),
        surplus=tuple(map(str, pairs.surplus)),
    )


def _twice(pairs: Pairs) -> list[PairScore]:
    return [
        PairScore(
            str(first), str(second), error=f"{first} and {second} have one name; move one away"
        )
        for first, second in pairs.twice
    ]


def _score_pair(ours: Path, theirs: Path, spec: ScoreSpec, counts: _Counts) -> PairScore:
    record, own = read_record(ours), read_record(theirs)
    prediction = read_labels(
        ours, spec.prediction_field, spec.columns,
        option="--prediction-field", is_ours=record is not None,
    )  # fmt: skip
    reference = read_labels(
        theirs,
        spec.reference_field,
        spec.columns,
        option="--reference-field",
        is_ours=own is not None,
    )
    both = compare(prediction, reference, record, own, spec)
    counts.check(both.classes, ours)
    if spec.prediction_field is None and record is None:
        counts.check_field(prediction, "--prediction-field")
    if spec.reference_field is None and own is None:
        counts.check_field(reference, "--reference-field")
    found = _count(both.guess, both.truth)
    counts.add(found, both.classes)
    points = sum(found.values())
    right = sum(count for (label, predicted), count in found.items() if label == predicted)
    alone = _confusion(found, [*_numbers(found), NO_CLASS])
    return PairScore(
        str(ours),
        str(theirs),
        points=points,
        ignored=len(both.truth) - points,
        accuracy=right / points if points else None,
        miou=alone.miou_present(range(len(alone.matrix) - 1)) if points else None,
        meaning=both.meaning,
        tolerance=both.tolerance,
    )


def _count(guess: NDArray[np.int32], truth: NDArray[np.int32]) -> Counter[tuple[int, int]]:
    """Points by reference class and predicted class; those without a reference class do not count."""
    counted = truth != IGNORE
    both = np.stack([truth[counted], guess[counted]], axis=1)
    found, counts = np.unique(both, axis=0, return_counts=True)
    return Counter({(int(t), int(g)): int(n) for (t, g), n in zip(found, counts, strict=True)})


def _numbers(counts: Counter[tuple[int, int]]) -> list[int]:
    return sorted({number for pair in counts for number in pair} - {NO_CLASS})


def _confusion(counts: Counter[tuple[int, int]], numbers: list[int]) -> Confusion:
    rows = {number: row for row, number in enumerate(numbers)}
    matrix = np.zeros((len(numbers), len(numbers)), np.int64)
    for (truth, guess), count in counts.items():
        matrix[rows[truth], rows[guess]] += count
    return Confusion.of(matrix)


@dataclass
class _Counts:
    """The sum over all pairs, whose predictions must have the same classes."""

    points: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: Classes | None = None
    first: Path | None = None
    fields: dict[str, tuple[str, Path]] = field(default_factory=dict)
    """By option: the field of the first file that was compared, as names are compared, and the file."""

    def check(self, classes: Classes, path: Path) -> None:
        """Refuse a prediction with other classes than those that were added."""
        if self.classes is not None and classes != self.classes:
            raise ScoreError(
                f"{path}: its classes, by its record or field, are not those of {self.first}; compare it separately"
            )
        self.first = self.first or path

    def check_field(self, labels: FileLabels, option: str) -> None:
        """Refuse a file whose labels were taken from another field than those before, although it has theirs, too."""
        key, path = self.fields.setdefault(option, (key_of(labels.field), labels.path))
        if key != key_of(labels.field) and key in labels.keys:
            raise ScoreError(
                f"{labels.path}: its labels would be those in '{labels.field}', those of {path} are in '{key}', which "
                f"both have; say which with {option}"
            )

    def add(self, found: Counter[tuple[int, int]], classes: Classes) -> None:
        """Add a pair."""
        self.classes = classes
        self.points += found

    def confusion(self, spec: ScoreSpec) -> tuple[tuple[str, ...], Confusion, int]:
        """Names, matrix and number of classes; points without a predicted class have a column of their own."""
        known = None if self.classes is None else self.classes.names
        numbers = _numbers(self.points) if known is None else list(known)
        names = [str(n) for n in numbers] if known is None else list(known.values())
        classes = len(numbers)
        if any(guess == NO_CLASS for _, guess in self.points):
            numbers, names = [*numbers, NO_CLASS], [*names, NO_CLASS_NAME]
        if not numbers:
            raise ScoreError(f"{spec.reference}: no point could be compared with a reference class")
        return tuple(names), _confusion(self.points, numbers), classes
