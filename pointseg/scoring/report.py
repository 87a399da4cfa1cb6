"""Scores as a text table, as JSON and as files."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from dinomed3d.runtime.errors import UserError
from pointseg.evaluation.saved_labels import write_json
from pointseg.pictures.confusion import write_confusion
from pointseg.scoring.spec import PairScore, Scored

SCORES = {"iou": "IoU", "precision": "precision", "recall": "recall", "f1": "F1"}
FORMAT = "pointseg-scores-1"


def output_files(out: Path) -> tuple[Path, ...]:
    """The files that ``write_scores`` writes: one that ends in ``.json``, or three in a folder."""
    if out.suffix.lower() == ".json":
        return (out,)
    return (out / "metrics.json", out / "confusion.png", out / "confusion.csv")


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse files that are there already.

    Raises:
        UserError: there are some, or ``out`` is a file where a folder is meant.
    """
    if out.suffix.lower() != ".json" and out.is_file():
        raise UserError(f"-o {out}: must be a folder, or a file that ends in .json")
    there = [file for file in output_files(out) if file.exists()]
    if there and not overwrite:
        raise UserError(f"{there[0]}: exists; choose another -o, or replace it with --overwrite")


def write_scores(found: Scored, out: Path) -> None:
    """Write the scores, into a folder with the confusion matrix as table and picture."""
    metrics, *matrix = output_files(out)
    write_json(metrics, as_json(found))
    if matrix:
        picture, table = matrix
        write_confusion(found.confusion.matrix, found.names, picture, table)


def as_json(found: Scored) -> dict[str, Any]:
    """Everything, with None where a score is not defined."""
    confusion, values = found.confusion, found.per_class()
    labelled, predicted = confusion.matrix.sum(1), confusion.matrix.sum(0)
    return {
        "format": FORMAT,
        "points": int(confusion.matrix.sum()),
        "ignored_points": sum(pair.ignored for pair in found.pairs),
        "accuracy": _or_none(confusion.accuracy()),
        "kappa": _or_none(confusion.kappa()),
        "mean": {name: _or_none(value) for name, value in found.means().items()},
        "mean_class_accuracy": _or_none(confusion.mean_accuracy_present()),
        "classes": {
            name: {
                **{score: _or_none(column[row]) for score, column in values.items()},
                "reference_points": int(labelled[row]),
                "predicted_points": int(predicted[row]),
            }
            for row, name in enumerate(found.names[: found.classes])
        },
        "confusion": {"names": list(found.names), "matrix": confusion.matrix.tolist()},
        "pairs": [asdict(pair) for pair in found.pairs],
        "missing": list(found.missing),
        "surplus": list(found.surplus),
    }


def as_text(found: Scored) -> str:
    """What was compared with what, then a line per class in percent, means, and overall scores."""
    confusion, values, means = found.confusion, found.per_class(), found.means()
    counts = confusion.matrix.sum(1)
    rows = [
        [name, *(_percent(values[score][row]) for score in SCORES), f"{counts[row]:,}"]
        for row, name in enumerate(found.names[: found.classes])
    ]
    rows.append(
        ["mean of present", *(_percent(means[s]) for s in SCORES), f"{confusion.matrix.sum():,}"]
    )
    table = pd.DataFrame(rows, columns=["class", *SCORES.values(), "points"])
    table = table.set_index("class").rename_axis(None).rename_axis("class", axis=1)
    kappa = confusion.kappa()
    lines = [
        *_readings(found),
        str(table.to_string()),
        f"overall accuracy  {_percent(confusion.accuracy())}",
        f"Cohen's kappa     {'-' if math.isnan(kappa) else f'{kappa:.4f}'}",
    ]
    without = int(confusion.matrix[:, found.classes :].sum())
    if without:
        lines.append(f"{without:,} of these points have no predicted class and count as wrong")
    return "\n".join([*lines, *_troubles(found)])


def _readings(found: Scored) -> list[str]:
    """Fields and mappings; files that were read alike together."""
    alike: dict[tuple[str, str, str, str], list[PairScore]] = {}
    for pair in found.pairs:
        if (m := pair.meaning) is not None:
            key = m.prediction_field, m.prediction_values, m.reference_field, m.reference_values
            alike.setdefault(key, []).append(pair)
    lines = []
    for (field, values, other, how), pairs in alike.items():
        meanings = [pair.meaning for pair in pairs if pair.meaning is not None]
        mapping = dict(sorted(item for m in meanings for item in m.mapping.items()))
        ignored = sorted({value for m in meanings for value in m.ignored})
        where = (
            "" if len(alike) == 1 else f" ({Path(pairs[0].prediction).name}, {len(pairs)} files)"
        )
        shown = ", ".join(f"{value}={name}" for value, name in mapping.items())
        left_out = f"; ignored: {', '.join(map(str, ignored))}" if ignored else ""
        lines.append(f"prediction  field '{field}': {values}{where}")
        lines.append(f"reference   field '{other}': {how}: {shown or 'no values'}{left_out}")
    return lines


def _troubles(found: Scored) -> list[str]:
    alone = [p for p in found.pairs if p.error is None and p.tolerance is None]
    coarse = max((p.tolerance or 0 for p in found.pairs), default=0)
    lines = [f"failed: {pair.error}" for pair in found.failed]
    lines += [f"missing: {path} has no prediction" for path in found.missing]
    lines += [f"surplus: {path} has no reference and was not used" for path in found.surplus]
    if alone:
        lines.append(
            f"note: {len(alone)} pairs hold labels alone; only the number of points was compared"
        )
    if coarse > 0.1:
        lines.append(f"note: positions were compared to {coarse:.2g} only, the step of the files")
    return lines


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
