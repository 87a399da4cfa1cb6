"""Options that several commands have; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinomed3d.runtime.hardware.device import DEVICES
from dinomed3d.runtime.messages.suggestion import suggestion
from pointseg.conventions import BACKBONES, DATASETS, PRECISIONS, TTA_NAMES
from pointseg.plugins import FORM, is_plugin

AUTO_PRECISION = (
    "float16 on CUDA, float32 elsewhere; the image encoder runs in bfloat16 on CUDA "
    "unless float32 is chosen"
)
"""Precision of training and prediction with --precision auto."""


def add_data(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options that say which dataset is read."""
    parser.add_argument(
        "--dataset", required=required, type=NameOrPlugin(DATASETS), metavar="NAME",
        help=f"the dataset: {', '.join(DATASETS)}; or {FORM}, a class of your own in an installed package or in the "
        "current folder",
    )  # fmt: skip
    parser.add_argument(
        "--root", type=Path, metavar="DIR",
        help="prepared data (see pointseg-prepare), or your own folder for --dataset folder",
    )  # fmt: skip
    parser.add_argument(
        "--config", type=Path, metavar="YAML",
        help="description of your folder (default: ROOT/dataset.yaml)",
    )  # fmt: skip


def add_device(parser: argparse.ArgumentParser, *, auto: str = AUTO_PRECISION) -> None:
    """Add the options that say where a network runs, and in which precision; ``auto`` explains the default."""
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where networks run (default: auto)"
    )
    parser.add_argument(
        "--precision", choices=("auto", *PRECISIONS), default="auto",
        help=f"auto: {auto} (default: auto)",
    )  # fmt: skip


def add_inference(group: Any, *, is_opt_in: bool = False) -> None:
    """Add the options that change how a scene is predicted.

    Args:
        group: a parser or a group of options.
        is_opt_in: whether test-time augmentation is used only if --tta is given, with or without a set.
    """
    if is_opt_in:
        group.add_argument(
            "--tta", choices=TTA_NAMES, nargs="?", const=True, metavar="SET",
            help="predict every point with test-time augmentation, by the set of the recipe or one of "
            f"{', '.join(TTA_NAMES)}; without it a single pass predicts one point per voxel and copies its label "
            "to the rest",
        )  # fmt: skip
    else:
        group.add_argument(
            "--tta", choices=TTA_NAMES,
            help="set of test-time augmentations (default: that of the recipe)",
        )  # fmt: skip
    group.add_argument(
        "--max-points", type=int, metavar="N",
        help="voxels in one forward pass; larger clouds are cut into tiles (default: that of the recipe)",
    )  # fmt: skip
    group.add_argument(
        "--margin", type=float, metavar="M",
        help="width of the context around the core of each tile, metres; neighbouring tiles overlap by twice that "
        "(default: that of the recipe)",
    )  # fmt: skip


def add_own_backbone(group: Any) -> None:
    """Add the option that lets a model's backbone be imported, if it is a class of the user's own."""
    group.add_argument(
        "--backbone", type=NameOrPlugin(BACKBONES), metavar=FORM,
        help="the class of your own that the model was trained with; it is imported only if you name it here, never "
        "because the model's file does",
    )  # fmt: skip


def inference_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of a ``InferenceConfig`` that the options of :func:`add_inference` change."""
    given = {"tta": arguments.tta, "max_points": arguments.max_points, "margin_m": arguments.margin}
    return {name: value for name, value in given.items() if value is not None and value is not True}


@dataclass(frozen=True)
class NameOrPlugin:
    """An argparse type: one of the known names, or a plug-in's (``package.module:Class``)."""

    known: Sequence[str]
    """The names, which the shell completes."""

    def __call__(self, text: str) -> str:
        """The name as it is.

        Raises:
            ArgumentTypeError: neither a known name nor a plug-in's.
        """
        if text not in self.known and not is_plugin(text):
            raise argparse.ArgumentTypeError(
                f"must be one of {', '.join(self.known)}, or {FORM}, got {text!r}"
                f"{suggestion([text], self.known)}"
            )
        return text


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: integers >= ``least``."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    number.__name__ = "integer"
    return number


def number_or_all(text: str) -> int | str:
    """An argparse type: an integer >= 1, or ``all``."""
    return text if text == "all" else at_least(1)(text)


number_or_all.__name__ = "number"


def column_names(text: str) -> tuple[str, ...]:
    """Names of the columns of a file, between commas."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names) or len(names) < 3:
        raise argparse.ArgumentTypeError(
            f"must be different names between commas, such as x,y,z,intensity, got {text!r}"
        )
    return names
