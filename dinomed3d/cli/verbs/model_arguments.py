"""Arguments that name a trained model, for `package` and `inspect`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, its folds and its checkpoint."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder, zip, or hf:owner/name")
    parser.add_argument(
        "-f",
        "--folds",
        dest="folds",
        nargs="+",
        metavar="FOLD",
        help="folds to read (default: all)",
    )
    parser.add_argument(
        "--checkpoint",
        default="checkpoint_final.pth",
        metavar="NAME",
        help="checkpoint file of each fold in a model folder (default: checkpoint_final.pth)",
    )
