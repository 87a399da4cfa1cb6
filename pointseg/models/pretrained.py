"""Initial weights of a new run: a model of pointseg, or a published backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dinomed3d.runtime.errors import UserError
from pointseg.backbones import load_backbone, load_into
from pointseg.backbones.linear_probe import LinearProbe
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import read_recipe
from pointseg.conventions import PRETRAINED_ENCODERS
from pointseg.images.config import ImageConfig
from pointseg.models.checkpoint import DISTILLED
from pointseg.models.initial_file import InitialFile, open_initial
from pointseg.segmenter import Segmenter

DECODER = "backbone.dec."
"""How names of a decoder's parameters begin."""


def initial_weights(
    path: Path, classes: Sequence[str], recipe: Recipe
) -> Callable[[nn.Module], str]:
    """A function that sets the weights of a new network from a file; see :func:`weights_of`.

    Raises:
        UserError: see :func:`pointseg.models.initial_file.open_initial`.
    """
    return weights_of(open_initial(path, recipe.backbone), classes, recipe)


def weights_of(
    start: InitialFile, classes: Sequence[str], recipe: Recipe, *, adapt_input: bool = False
) -> Callable[[nn.Module], str]:
    """A function that sets the weights of a new network from an opened file.

    From a file of ``pointseg-train`` it takes the backbone, and the head if the classes are the same; from
    all others only the backbone. All keys of the backbone must fit, except that a decoder on top of a pretrained
    encoder may be new, or left out.

    Args:
        start: the opened file.
        classes: of the new run; none for a student of distillation.
        recipe: of the new run.
        adapt_input: whether the first layer of a pretrained network is made for other features than the file's.

    Returns:
        A function that changes a segmenter or a distiller in place and returns what it did, in words.

    Raises:
        UserError: raised by the function: weights that do not fit.
    """

    def load(network: nn.Module) -> str:
        if start.ours is not None:
            return _load_ours(network, start, start.ours, classes, recipe)
        backbone = network.backbone
        if isinstance(backbone, LinearProbe):
            backbone = backbone.encoder  # type: ignore[assignment]
        assert isinstance(backbone, nn.Module)
        if start.pretrained is not None:
            columns = recipe.features
            # the reader says the licence itself, which is its first note
            _, *notes = load_into(
                backbone, start.pretrained, columns=columns, adapt_input=adapt_input
            )
            return "; ".join((f"backbone from {start.path}", *notes, "the head is new"))
        encoder = None if recipe.images is None else recipe.images.encoder
        load_backbone(backbone, start.path, encoder=encoder)
        return f"backbone from {start.path}; the head is new"

    return load


def _load_ours(
    network: nn.Module,
    start: InitialFile,
    content: Mapping[str, Any],
    classes: Sequence[str],
    recipe: Recipe,
) -> str:
    """Load a model of pointseg-train or pointseg-distill; see ``weights_of``."""
    path, learned = start.path, read_recipe(content["recipe"])
    distilled = content["format"] == DISTILLED
    if distilled:
        _check_student(path, learned, recipe)
    else:
        _check_inputs(path, learned, recipe)
    if not distilled and isinstance(network, Segmenter):
        _check_images(path, learned.images, recipe.images)
    wanted, state = network.state_dict(), dict(content["model"])
    same = not distilled and list(content["classes"]) == list(classes)
    said = "distilled backbone" if distilled else "backbone"
    notes = [f"{said} from {path}", *_fit_decoder(state, wanted, recipe)]
    if distilled or not isinstance(network, Segmenter):
        state = {k: v for k, v in state.items() if k.startswith("backbone.")}
        own = {k: v for k, v in wanted.items() if not k.startswith("backbone.")}
    else:
        own = {k: v for k, v in wanted.items() if k.startswith("seg_head.")}
        # A head on a decoder that is new, or that is no longer there, would mean nothing.
        same = same and len(notes) == 1
    if not same:
        state |= own
    notes.append("the head is taken, too" if same else "the head is new")
    if learned.licence:
        notes.append(f"licence of the weights that it was trained from: {learned.licence}")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"--init {path}: its backbone differs from the one of this run ({str(error):.300}); give the "
            "same --backbone, --model-size and features"
        ) from error
    return "; ".join(notes)


def _fit_decoder(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], recipe: Recipe
) -> list[str]:
    """Leave out the decoder on top of a pretrained encoder, or start a new one; returns what was done."""
    if recipe.backbone not in PRETRAINED_ENCODERS:
        return []
    ours = {key: value for key, value in wanted.items() if key.startswith(DECODER)}
    theirs = [key for key in state if key.startswith(DECODER)]
    if bool(ours) == bool(theirs):
        return []
    for key in theirs:
        del state[key]
    state |= ours
    return ["the decoder is new" if ours else "its decoder is left out"]


def _check_student(path: Path, learned: Recipe, run: Recipe) -> None:
    """Refuse a distilled backbone whose inputs mean something else in this run.

    Raises:
        UserError: other features, colours, voxels or another backbone; a run that reads images.
    """
    if run.images is not None:
        raise UserError(
            f"--init {path}: is a distilled backbone, which reads no images; leave out --images"
        )
    for name in ("backbone", "features", "color_range", "voxel_m", "input"):
        theirs, ours = getattr(learned, name), getattr(run, name)
        if theirs != ours:
            raise UserError(
                f"--init {path}: was distilled with {name} {theirs}, this run has {ours}; give the same "
                f"(--backbone, or --override {name}=...)"
            )


def _check_inputs(path: Path, learned: Recipe, run: Recipe) -> None:
    """Refuse a model whose input channels mean something else in this run, although they are as many.

    Raises:
        UserError: other features, or another order of them; another range of colours.
    """
    for name in ("features", "color_range"):
        theirs, ours = getattr(learned, name), getattr(run, name)
        if theirs != ours:
            raise UserError(
                f"--init {path}: was trained with {name} {theirs}, this run has {ours}; give the same "
                f"(--override {name}=...)"
            )


def _check_images(path: Path, theirs: ImageConfig | None, ours: ImageConfig | None) -> None:
    """Refuse weights that read features of another image encoder, or none if this run does.

    Raises:
        UserError: one has images and the other has none; another encoder, or other weights of it.
    """
    if theirs is None and ours is not None:
        raise UserError(
            f"--init {path}: was trained without images; leave out --images, or start from a model trained "
            "with them"
        )
    if theirs is not None and ours is None:
        raise UserError(
            f"--init {path}: was trained with --images; add that (--encoder {theirs.encoder}), or start from a "
            "model trained without"
        )
    if theirs is None or ours is None:
        return
    for name, what in (("encoder", "the encoder"), ("weights_sha256", "weights with the digest")):
        one, two = getattr(theirs, name), getattr(ours, name)
        if one != two:
            raise UserError(
                f"--init {path}: was trained on features of {what} {one[:40]}, this run uses {two[:40]}; give the "
                "same --encoder and --weights"
            )
