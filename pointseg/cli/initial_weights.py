"""Options that say from which weights a run starts, and what its file decides; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.errors import UserError
from pointseg.conventions import PRETRAINED_ENCODERS

if TYPE_CHECKING:
    from torch import nn

    from pointseg.config.recipe import Recipe
    from pointseg.models.initial_file import InitialFile

RANDOM = Path("none")
"""Value of --init that asks for random weights."""


def add_initial(parser: argparse.ArgumentParser) -> None:
    """Add --init and --adapt-input."""
    parser.add_argument(
        "--init", type=Path, metavar="FILE",
        help="initial weights: of pointseg-train or pointseg-distill, a backbone in Pointcept's format, or a file of "
        "Sonata, Concerto, Utonia or LitePT for --backbone sonata, utonia or litept; also of the Hugging Face hub, as "
        "hf:owner/name (its model.pt) or hf:owner/name/file; 'none': random ones, also for those",
    )  # fmt: skip
    parser.add_argument(
        "--adapt-input", action="store_true",
        help="with --init of Sonata, Concerto, Utonia or LitePT: make the first layer for other features than the "
        "file's (--override features=...); weights of new ones start at zero",
    )  # fmt: skip


def open_start(arguments: argparse.Namespace, out: Path) -> InitialFile | None:
    """The file that the run starts from, or continues from; None: random weights.

    Raises:
        UserError: no such file; a pretrained encoder, or a frozen part, without weights.
    """
    from dinomed3d.hub.local_model import WEIGHTS, local_model
    from pointseg.models.initial_file import open_initial
    from pointseg.training.run.run_dir import LAST

    backbone, init = arguments.backbone, arguments.init
    if arguments.resume and init is not None:
        raise UserError("--init: is for a new run, --resume continues one; leave one of them out")
    if arguments.resume:  # the recipe of a resumed run is that of its first call
        last = out / LAST
        return open_initial(last, backbone) if last.is_file() else None
    if init is not None and init != RANDOM:
        return open_initial(local_model(init, WEIGHTS), backbone)
    if arguments.show_recipe:
        return None
    tune = getattr(arguments, "tune", "all")
    if tune != "all":
        raise UserError(
            f"--tune {tune}: what is not trained would stay random; give weights with --init FILE"
        )
    if init is None and backbone in PRETRAINED_ENCODERS:
        raise UserError(
            f"--backbone {backbone}: is a pretrained encoder; give the file of its weights with --init FILE, or "
            "--init none to start from random ones"
        )
    return None


def fit_to_start(
    arguments: argparse.Namespace,
    recipe: Recipe,
    start: InitialFile | None,
    fields: frozenset[str] | None,
) -> Recipe:
    """The recipe with what file, data and --override decide, in this order.

    Args:
        arguments: of the command.
        recipe: of the dataset.
        start: the file that the run starts from.
        fields: that the scenes of the dataset have; None: as the recipe has them.

    Raises:
        UserError: the file does not fit the options, or the dataset lacks what its weights read.
    """
    from pointseg.config.encoder_recipe import check_fields, with_pretrained_input
    from pointseg.config.serialization import override

    if start is not None:
        fitted = start.fit(recipe)
        if fitted is not recipe and arguments.model_size is not None:
            raise UserError(
                f"--model-size {arguments.model_size}: {start.path} says the size of its network; leave it out"
            )
        recipe = fitted
    known = frozenset(recipe.needs) if fields is None else fields
    # Twice: the scale follows voxels that are overridden, and an overridden scale stays.
    recipe = with_pretrained_input(override(recipe, arguments.override), known)
    recipe = override(recipe, arguments.override)
    if fields is not None:
        check_fields(recipe, arguments.dataset, fields)
    return replace(recipe, licence="" if start is None else start.licence)


def initial(
    arguments: argparse.Namespace,
    start: InitialFile | None,
    recipe: Recipe,
    classes: tuple[str, ...] = (),
) -> Callable[[nn.Module], str] | None:
    """What sets the weights of a new network; None: they stay random, or are those of the resumed run."""
    from pointseg.models.pretrained import weights_of

    if start is None or arguments.resume:
        return None
    return weights_of(start, classes, recipe, adapt_input=arguments.adapt_input)


def tell_zeros(recipe: Recipe, say: Callable[[str], None]) -> None:
    """Say which features of the weights the data does not have."""
    if recipe.input.zeros:
        say(
            f"{recipe.dataset} has no {', '.join(recipe.input.zeros)}: zeros for all points, in predictions, too "
            "(input.zeros of the recipe)"
        )
