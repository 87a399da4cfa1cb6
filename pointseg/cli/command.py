"""What the commands share: how one ends, and which data it reads. Imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.signals import end_gently
from pointseg.datasets.conventions import DATASETS

BACKBONES = ("ptv3", "minkunet", "pointnext")


def run_command(name: str, run: Callable[[], int]) -> int:
    """Run a command's work; a user's mistake becomes one line on stderr.

    Returns:
        Exit code: what ``run`` returns, 2 for an error the user can mend, 130 when interrupted.
    """
    end_gently()
    try:
        return run()
    except UserError as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that cannot be written, a full disk
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def add_data(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Options that say which dataset is read."""
    parser.add_argument("--dataset", required=required, choices=DATASETS)
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the prepared data (pointseg-prepare), or your folder",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="YAML",
        help="folder: its description (default: ROOT/dataset.yaml)",
    )


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: whole numbers from ``least`` on."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    number.__name__ = "whole number"
    return number
