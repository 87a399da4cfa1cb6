"""Entry point of the console command: parse, then run the verb.

This module and those of the verbs import nothing heavy, so that ``dinomed3d --help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dinomed3d import __version__
from dinomed3d.cli import demo, doctor, evaluate, explain, inspect, package, plan, predict
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.library_warnings import ignore_library_warnings

VERBS = (demo, doctor, predict, evaluate, package, inspect, plan, explain)
"""Modules of the verbs, in the order of ``--help``; each has ``add_parser``."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dinomed3d",
        description="DINO-Med3D inside stock nnU-Net. Training is nnU-Net's own command "
        "(nnUNetv2_train ... -tr DinoMed3DTrainer); the verbs here are what it does not have.",
    )
    parser.add_argument("--version", action="version", version=f"dinomed3d {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb of the console command.

    Args:
        argv: the words after ``dinomed3d``; None takes them from the command line.

    Returns:
        Exit code: 0 done; 1 doctor found errors, or some cases failed (predict, evaluate); 2 a mistake
        that the user can correct; 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    ignore_library_warnings()
    try:
        code: int = arguments.run(arguments)
    except UserError as error:
        print(f"dinomed3d {arguments.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"dinomed3d {arguments.verb}: interrupted", file=sys.stderr)
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
