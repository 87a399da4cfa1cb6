"""The verb `evaluate`: its options, its tables, and how it ends."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.messages.counted import counted
from dinomed3d.runtime.messages.terminal_text import lines_of, one_line

if TYPE_CHECKING:
    from dinomed3d.evaluation.folders import Evaluation


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "evaluate",
        help="score masks by reference masks: Dice, HD95, surface Dice",
        example="dinomed3d evaluate labelsTs masks --labels dataset.json",
        description="Compares the masks of two folders by name, label by label: Dice (as in nnU-Net's "
        "summary.json), 95th-percentile Hausdorff distance and surface Dice, both in mm with the spacing of "
        "the files. A label that is in neither mask of a case does not count there; one that is in a single "
        "mask has Dice 0, surface Dice 0 and no HD95. Exit code 0: all cases evaluated; 1: some were not "
        "(missing or extra masks, different grids), listed at the end; 2: nothing can be evaluated.",
    )
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help="folder of masks, or one")
    parser.add_argument(
        "prediction", type=Path, metavar="PREDICTION", help="folder of masks of the same names"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="dataset.json",
        help="names of labels and regions, and the ignore label (default: every value above 0)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1.0,
        metavar="MM",
        help="surface distance that surface Dice tolerates, mm (default: 1)",
    )
    parser.add_argument(
        "-o",
        dest="out",
        type=Path,
        metavar="OUT.csv",
        help="all cases and labels (default: evaluation.csv in the folder of the predictions)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, write the CSV, print both tables and what was not evaluated."""
    from dinomed3d.evaluation.folders import evaluate, read_labels
    from dinomed3d.runtime.files.atomic_files import atomic_write

    labels = None if arguments.labels is None else read_labels(arguments.labels)
    with json_alone(arguments.json):
        result = evaluate(
            arguments.reference,
            arguments.prediction,
            labels=labels,
            tolerance_mm=arguments.tolerance,
            progress=lambda case: print(
                one_line(f"evaluating {case}"), file=sys.stderr, flush=True
            ),
        )
    folder = arguments.prediction
    folder = folder if folder.is_dir() else folder.parent
    out = arguments.out or folder / "evaluation.csv"
    if result.rows:  # an empty one would take the place of the last that is of use
        csv = result.per_case().to_csv(index=False, lineterminator="\n")
        atomic_write(out, csv.encode("utf-8", "backslashreplace"))
    if arguments.json:
        print_json("dinomed3d-evaluate-1", _content(result, out, arguments.tolerance))
    else:
        _print_tables(result, out, arguments.tolerance)
    return 1 if result.problems else 0


def _print_tables(result: Evaluation, out: Path, tolerance_mm: float) -> None:
    """Print both tables and what was not evaluated."""
    table = result.per_case()
    if len(table):
        shown = {"float_format": "{:.4g}".format, "na_rep": "-"}
        print(lines_of(table.to_string(index=False, **shown)))
        print(f"\nmeans over cases (surface Dice at {tolerance_mm:g} mm):")
        print(lines_of(result.per_label().to_string(**shown)))
    where = f"table: {out}" if len(table) else "no table is written"
    print(f"\n{counted(len(result.evaluated), 'case')} evaluated; {where}")
    if result.left_out:
        files = counted(len(result.left_out), "file")
        print(
            f"left out: {files} that a prediction writes next to its masks (single labels, original slices, earlier "
            "versions of a mask)"
        )
    for case, reason in result.problems.items():
        print(one_line(f"not evaluated: {case}: {reason}"))
    if not len(table) and any(case.endswith("_0000") for case in result.problems):
        print(
            "names that end in _0000 are those of images: evaluate the folder of labels, such as labelsTr"
        )


def _content(result: Evaluation, out: Path, tolerance_mm: float) -> dict[str, Any]:
    """The same as plain data."""
    means = result.per_label().reset_index(names="label").to_dict("records") if result.rows else []
    for row in means:  # a column with a number that does not exist is one of floats
        row["cases"] = None if row["cases"] != row["cases"] else int(row["cases"])
    return {
        "tolerance_mm": tolerance_mm,
        "cases": result.per_case().to_dict("records"),
        "means": means,
        "not_evaluated": result.problems,
        "left_out": result.left_out,
        "table": out if result.rows else None,
    }
