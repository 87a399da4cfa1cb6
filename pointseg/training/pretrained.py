"""Initial weights of a new run: a model of pointseg, or a published backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.tensor_files import TensorFileError, read_torch
from pointseg.backbones import load_backbone
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import read_recipe
from pointseg.images.config import ImageConfig
from pointseg.segmenter import Segmenter
from pointseg.training.checkpoint import DISTILLED, FORMAT, read_checkpoint


def initial_weights(
    path: Path, classes: Sequence[str], recipe: Recipe
) -> Callable[[nn.Module], str]:
    """A function that sets the weights of a segmenter from a file.

    From a file of ``pointseg-train`` it takes the backbone, and the head if the classes are the same; from
    ``pointseg-distill`` and from files in Pointcept's format only the backbone. All keys of the backbone
    must fit.

    Args:
        path: a file of ``pointseg-train`` or ``pointseg-distill``, or one that ``load_backbone`` reads.
        classes: of the new run.
        recipe: of the new run.

    Returns:
        A function that changes a segmenter in place and returns what it did, in words.

    Raises:
        UserError: no such file; raised by the function: weights that do not fit.
    """
    if not path.is_file():
        raise UserError(f"--init {path}: there is no such file")

    def load(segmenter: nn.Module) -> str:
        assert isinstance(segmenter, Segmenter)
        if not _is_ours(path):
            encoder = None if recipe.images is None else recipe.images.encoder
            load_backbone(segmenter.backbone, path, encoder=encoder)
            return f"backbone from {path}; the head is new"
        content = read_checkpoint(path, (FORMAT, DISTILLED))
        state, wanted = content["model"], segmenter.state_dict()
        distilled = content["format"] == DISTILLED
        same = not distilled and list(content["classes"]) == list(classes)
        if distilled:
            _check_student(path, read_recipe(content["recipe"]), recipe)
            state = {k: v for k, v in state.items() if k.startswith("backbone.")}
        else:
            _check_images(path, read_recipe(content["recipe"]).images, recipe.images)
        if not same:
            state = {**state, **{k: v for k, v in wanted.items() if k.startswith("seg_head.")}}
        try:
            segmenter.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(
                f"--init {path}: its backbone differs from the one of this run ({str(error):.300}); give the "
                "same --backbone, --model-size and features"
            ) from error
        what = "distilled backbone" if distilled else "backbone"
        return f"{what} from {path}; " + ("the head is taken, too" if same else "the head is new")

    return load


def _check_student(path: Path, learned: Recipe, run: Recipe) -> None:
    """Refuse a distilled backbone whose inputs mean something else in this run.

    Raises:
        UserError: other features, colours, voxels or another backbone; a run that reads images.
    """
    if run.images is not None:
        raise UserError(
            f"--init {path}: is a distilled backbone, which reads no images; leave out --images"
        )
    for name in ("backbone", "features", "color_range", "voxel_m"):
        theirs, ours = getattr(learned, name), getattr(run, name)
        if theirs != ours:
            raise UserError(
                f"--init {path}: was distilled with {name} {theirs}, this run has {ours}; give the same "
                f"(--backbone, or --override {name}=...)"
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


def _is_ours(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return False
    try:
        content = read_torch(path, mapped=True)
    except TensorFileError:  # load_backbone reads it again and reports the error
        return False
    return isinstance(content, dict) and content.get("format") in (FORMAT, DISTILLED)
