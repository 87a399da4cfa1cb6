"""Entry point of the console command: parse, then run the verb.

This module and those of the verbs import nothing heavy, so that ``dinomed3d --help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dinomed3d import __version__
from dinomed3d.cli.verbs import (
    completion,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    inspect,
    package,
    plan,
    predict,
    view,
)
from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.run_command import run_command

VERBS = (
    demo,
    doctor,
    predict,
    view,
    evaluate,
    package,
    export,
    inspect,
    plan,
    explain,
    completion,
)
"""Modules of the verbs, in the order of ``--help``; each has ``add_parser``."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 some cases failed (predict, evaluate), or doctor found errors; 2 a mistake that the "
    "message says how to correct: nothing was done, or the rest of the run could not be; 3 (predict) no case "
    "failed that had not failed in an earlier run; 130 interrupted."
)


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="dinomed3d",
        description="DINO-Med3D inside stock nnU-Net. Training is nnU-Net's own command "
        "(nnUNetv2_train ... -tr DinoMed3DTrainer); the verbs here are what it does not have. Point clouds have "
        "commands of their own: pointseg-prepare, -train, -test, -predict, -eval, -lift, -distill, -cache-features, "
        "-check-cameras, "
        "-package, -view.",
        epilog=EXIT_CODES,
        example="dinomed3d predict --help",
    )
    parser.add_argument("-V", "--version", action="version", version=f"dinomed3d {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for verb in VERBS:
        verb.add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb of the console command.

    Args:
        argv: the words after ``dinomed3d``; None takes them from the command line.

    Returns:
        Exit code, as EXIT_CODES says.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.verb is None:
        parser.print_help(sys.stderr)
        return 2
    return run_command(
        f"dinomed3d {arguments.verb}",
        lambda: arguments.run(arguments),
        results=getattr(arguments, "out", None),
    )


if __name__ == "__main__":
    sys.exit(main())
