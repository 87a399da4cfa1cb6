"""Options that say which labels of files are meant, and what their numbers mean; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointseg.cli.arguments import column_names

if TYPE_CHECKING:
    from pointseg.scoring.spec import ScoreSpec


def add_meaning(group: Any) -> None:
    """Add the options that say what labels mean where files do not."""
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


def check_meaning(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options of :func:`add_meaning` that contradict each other."""
    values = [value for value, _ in arguments.map]
    if len(set(values)) < len(values):
        parser.error("--map: a value is given twice")
    if both := sorted(set(values) & set(arguments.ignore)):
        parser.error(f"--map, --ignore: {both[0]} is in both")


def meaning(
    arguments: argparse.Namespace,
    prediction: Path,
    reference: Path,
    *,
    log: Callable[[str], None],
) -> ScoreSpec:
    """What labels mean, by the options of :func:`add_meaning`.

    Args:
        arguments: the parsed options.
        prediction: file or folder with predicted labels.
        reference: likewise, with reference labels.
        log: receives the name of each pair before it is read.
    """
    from pointseg.scoring.spec import ScoreSpec

    values = arguments.reference_values
    return ScoreSpec(
        prediction=prediction,
        reference=reference,
        prediction_field=arguments.prediction_field,
        reference_field=arguments.reference_field,
        same_values=None if values is None else values == "same",
        class_of=dict(arguments.map),
        ignored=frozenset(arguments.ignore),
        columns=arguments.columns,
        log=log,
    )
