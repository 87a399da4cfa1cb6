"""``pointseg-eval``: parse, build one ScoreSpec, compare, print the table. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.messages.terminal_text import lines_of, one_line
from pointseg.cli.label_arguments import add_meaning, check_meaning, meaning

NAME = "pointseg-eval"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-eval predicted/scan.laz reference/scan.laz",
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
    add_meaning(parser.add_argument_group("what the labels mean"))
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from pointseg.scoring.report import FORMAT, as_json, as_text, check_output, write_scores
    from pointseg.scoring.score import score

    out = arguments.out
    if out is not None:
        check_output(out, overwrite=arguments.overwrite)
    with json_alone(arguments.json):
        found = score(
            meaning(
                arguments,
                arguments.prediction,
                arguments.reference,
                log=lambda line: print(one_line(line), file=sys.stderr),
            )
        )
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
    check_meaning(parser, arguments)
    return run_command(NAME, lambda: _run(arguments), results=arguments.out)


if __name__ == "__main__":
    sys.exit(main())
