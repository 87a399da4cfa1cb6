"""``pointseg-eval``: parse, build one ScoreSpec, compare, print the table. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.argument_parser import ArgumentParser
from dinomed3d.runtime.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.run_command import run_command
from dinomed3d.runtime.terminal_text import lines_of, one_line
from pointseg.cli.arguments import column_names

if TYPE_CHECKING:
    from pointseg.scoring.spec import ScoreSpec

NAME = "pointseg-eval"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        description="Compares labels of clouds with reference labels, point by point: IoU, precision, recall and F1 of "
        "each class, overall accuracy, Cohen's kappa. Rows of both files must be the same points in the same order.",
        epilog="Exit codes: 0 every reference was compared; 1 some could not be compared or have no prediction; 2 "
        "nothing could be compared; 130 interrupted.",
    )
    parser.add_argument(
        "prediction", type=Path, metavar="PREDICTION",
        help="a cloud with predicted classes, such as pointseg-predict writes, or a folder of them; also .label and "
        ".labels files alone",
    )  # fmt: skip
    parser.add_argument(
        "reference", type=Path, metavar="REFERENCE",
        help="the same with reference classes; files of folders belong together by path without the ending",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=Path, metavar="OUT",
        help="write metrics.json, confusion.png and .csv into this folder, or the metrics alone into a file that ends "
        "in .json",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace existing files in OUT")
    add_json(parser)
    _add_meaning(parser.add_argument_group("what the labels mean"))
    return parser


def _add_meaning(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prediction-field", metavar="NAME",
        help="field of the predicted labels (default: that of pointseg-predict, else the only one)",
    )  # fmt: skip
    group.add_argument(
        "--reference-field", metavar="NAME",
        help="field of the reference labels (default: the only one of class, label, segment, classification)",
    )  # fmt: skip
    group.add_argument(
        "--reference-values", choices=("same", "codes"),
        help="whether the reference's numbers mean what the prediction's do, or are ASPRS codes, which become classes "
        "by the record of the prediction (default: as fields and record say; doubt is refused)",
    )  # fmt: skip
    group.add_argument(
        "--map", type=_mapped, nargs="+", action="extend", default=[], metavar="VALUE=CLASS",
        help="class of a value of the reference, by its name or number in the prediction",
    )  # fmt: skip
    group.add_argument(
        "--ignore", type=_value, nargs="+", action="extend", default=[], metavar="VALUE",
        help="values of the reference whose points do not count; those below 0 never do",
    )  # fmt: skip
    group.add_argument(
        "--columns", type=column_names, metavar="NAMES",
        help="names of the columns of text and .bin files, such as x,y,z,label",
    )  # fmt: skip


def _value(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None


def _mapped(text: str) -> tuple[int, str]:
    value, equals, name = text.partition("=")
    if not equals or not name or not value.removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"must be VALUE=CLASS, such as 2=ground, got {text!r}")
    return int(value), name


def _spec(arguments: argparse.Namespace) -> ScoreSpec:
    from pointseg.scoring.spec import ScoreSpec

    values = arguments.reference_values
    return ScoreSpec(
        prediction=arguments.prediction,
        reference=arguments.reference,
        prediction_field=arguments.prediction_field,
        reference_field=arguments.reference_field,
        same_values=None if values is None else values == "same",
        class_of=dict(arguments.map),
        ignored=frozenset(arguments.ignore),
        columns=arguments.columns,
        log=lambda line: print(one_line(line), file=sys.stderr),
    )


def _run(arguments: argparse.Namespace) -> int:
    from pointseg.scoring.report import FORMAT, as_json, as_text, check_output, write_scores
    from pointseg.scoring.score import score

    out = arguments.out
    if out is not None:
        check_output(out, overwrite=arguments.overwrite)
    with json_alone(arguments.json):
        found = score(_spec(arguments))
    if out is not None:
        write_scores(found, out)
    if arguments.json:
        print_json(FORMAT, as_json(found))
    else:
        print(lines_of(as_text(found)))
        compared = len(found.pairs) - len(found.failed)
        where = "" if out is None else f"; results in {out}"
        print(one_line(f"{compared} of {len(found.pairs) + len(found.missing)} compared{where}"))
    return 0 if found.is_complete else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    values = [value for value, _ in arguments.map]
    if len(set(values)) < len(values):
        parser.error("--map: a value is given twice")
    if both := sorted(set(values) & set(arguments.ignore)):
        parser.error(f"--map, --ignore: {both[0]} is in both")
    return run_command(NAME, lambda: _run(arguments), results=arguments.out)


if __name__ == "__main__":
    sys.exit(main())
