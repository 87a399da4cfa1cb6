"""A trained model as a file for others: without the state of its training, with scores and licence."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.tensor_files import TensorFileError, read_torch
from pointseg import __version__
from pointseg.config.recipe import Recipe
from pointseg.models.checkpoint import DISTILLED, FORMAT, read_checkpoint, write_content
from pointseg.models.trained_model import load_model
from pointseg.sharing.distilled import backbone_alone, is_distilled
from pointseg.training.run.run_dir import LAST

log = logging.getLogger(__name__)

ABOUT = "about"
"""Entry of a checkpoint with what its card says of it."""
KEPT = ("format", "recipe", "classes", "colors", "codes", "groups", "model")
"""Entries of a checkpoint that prediction reads. Others, such as `training`, name scenes."""
SCORES = ("test_point_miou", "test_point_iou", "scenes")
LARGEST_SCORES, LARGEST_LICENCE = 16 << 20, 1 << 20
"""Bytes."""


def package_model(
    source: Path,
    out: Path,
    *,
    scores: Path | None = None,
    licence: Path | None = None,
    backbone: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model for others, which all commands read as a checkpoint of `pointseg-train` or `pointseg-distill`.

    Args:
        source: the checkpoint, or another package.
        out: the file to write.
        scores: metrics.json of `pointseg-test` of this checkpoint; None: that in `test` next to it, if there is one.
        licence: text file; models that read features of DINOv3 need its licence.
        backbone: a class of the user's own that the model was trained with.
        overwrite: replace an existing file.

    Returns:
        `out`.

    Raises:
        UserError: no such model; scores of another one; the licence is missing; `out` exists or cannot be written.
    """
    if out.suffix.lower() != ".pt":
        raise UserError(f"-o must name a .pt file, got {out}")
    if out.is_dir() or (out.exists() and not overwrite):
        raise UserError(f"-o {out}: exists; name another file, or use --overwrite")
    content = read_checkpoint(source, (FORMAT, DISTILLED))
    if is_distilled(content):
        if scores is not None:
            raise UserError(
                f"--scores: is for models with classes; {source} is a distilled backbone, leave it out"
            )
        recipe, content["model"] = backbone_alone(source, content, backbone)
        measured = None
    else:
        _, trained = load_model(source, "cpu", backbone=backbone)  # refuses what would not predict
        recipe = trained.recipe
        measured = content.get(ABOUT, {}).get("scores") or _scores(source, scores, trained.sha256)
    before = content.get(ABOUT, {})
    about = {
        "versions": {"pointseg": __version__, "torch": version("torch")},
        "scenes": before.get("scenes") or _scenes(source, content),
        "scores": measured,
        "licence": _licence(licence, recipe, before),
    }
    write_content(out, {**{name: content[name] for name in KEPT if name in content}, ABOUT: about})
    return out


def is_packaged(content: Mapping[str, Any]) -> bool:
    """Whether the content of a checkpoint is that of a package, which names no scene."""
    return set(content) <= {*KEPT, ABOUT} and isinstance(content.get(ABOUT), dict)


def _scenes(source: Path, content: Mapping[str, Any]) -> list[int] | None:
    """Numbers of scenes of training and validation, from the last checkpoint of the same run."""
    last = source.with_name(LAST)
    if not last.is_file():
        return None
    try:
        run = read_torch(last, mapped=True)
        if run["recipe"] != content["recipe"]:
            return None
        return [len(scenes) for scenes in run["training"]["scene_names"]]
    except (TensorFileError, KeyError, TypeError) as error:
        log.warning("number of scenes unknown: %s says none (%s)", last, error)
        return None


def _scores(source: Path, given: Path | None, sha256: str) -> dict[str, Any] | None:
    """What `pointseg-test` measured with this checkpoint."""
    file = source.parent / "test" / "metrics.json" if given is None else given
    if given is None and not file.is_file():
        return None
    try:
        with open(file, encoding="utf-8") as stream:
            found = json.loads(stream.read(LARGEST_SCORES))
        protocol = found["protocol"]
        is_of_this = protocol["checkpoint_sha256"] == sha256
        kept = {name: found[name] for name in SCORES}
        kept |= {"dataset": str(protocol["dataset"]), "splits": list(map(str, protocol["splits"]))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--scores {file}: is no metrics.json of pointseg-test ({type(error).__name__}); test the model again, "
            "or name another"
        ) from error
    if is_of_this:
        return kept if kept["test_point_miou"] is not None else None
    if given is None:
        log.warning("%s is of another checkpoint: the card has no scores", file)
        return None
    raise UserError(f"--scores {file}: is of another checkpoint than {source}; test this one")


def _licence(given: Path | None, recipe: Recipe, before: Mapping[str, Any]) -> str:
    """The text that goes with the weights; empty where there is none."""
    needed = reads_dinov3(recipe)
    if given is None:
        kept = str(before.get("licence", ""))
        if needed and not kept:
            raise UserError(
                "--licence: the model was trained on features of DINOv3, whose licence must be included; give the text "
                "that you received with those weights"
            )
        return kept
    try:
        with open(given, encoding="utf-8-sig") as stream:
            text = stream.read(LARGEST_LICENCE)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--licence {given}: cannot be read as text ({error})") from error
    if not text.strip() or "\0" in text:
        raise UserError(f"--licence {given}: is empty or not the text of a licence")
    if needed and "dinov3" not in text.lower():
        raise UserError(
            f"--licence {given}: does not mention DINOv3, on whose features the model was trained; give the text that "
            "you received with those weights"
        )
    return text


def reads_dinov3(recipe: Recipe) -> bool:
    """Whether a model was trained on features of DINOv3."""
    return recipe.images is not None and "dinov3" in recipe.images.encoder
