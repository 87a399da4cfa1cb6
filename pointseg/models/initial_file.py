"""The file that a new run starts from, opened before the run's network is built: it may decide what that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.tensor_files import TensorFileError, read_torch
from pointseg.backbones import PretrainedFile, licence_of, read_pretrained
from pointseg.backbones.weights.pretrained_config import configuration
from pointseg.config.encoder_recipe import with_configuration, with_probed
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import read_recipe
from pointseg.conventions import PRETRAINED_BACKBONES, PRETRAINED_ENCODERS
from pointseg.models.checkpoint import DISTILLED, FORMAT, read_checkpoint


@dataclass(frozen=True)
class InitialFile:
    """A file of initial weights: one of ours, of a pretrained 3D network, or a backbone in Pointcept's format."""

    path: Path
    """The file, or a folder of a pretrained network."""
    ours: Mapping[str, Any] | None = None
    """Its content, if pointseg-train or pointseg-distill wrote it."""
    pretrained: PretrainedFile | None = None
    """What it holds, if it is of a network that is published pretrained."""

    @property
    def recipe(self) -> Recipe | None:
        """How the weights were trained, if they are ours."""
        return None if self.ours is None else read_recipe(self.ours["recipe"])

    @property
    def licence(self) -> str:
        """Licence of the weights, and of what is made from them; empty if none is known."""
        if self.recipe is not None:
            return self.recipe.licence
        return "" if self.pretrained is None else licence_of(self.pretrained.family)

    def fit(self, recipe: Recipe) -> Recipe:
        """A recipe whose backbone has the sizes of the file.

        Returns:
            The same recipe if the file decides nothing: the backbone is none of those that are published
            pretrained, or the file does not say its configuration.

        Raises:
            UserError: its weights are of another network; arguments that are missing or out of bounds.
        """
        if recipe.backbone not in (*PRETRAINED_BACKBONES, "linear"):
            return recipe
        if self.recipe is not None:
            self._require(recipe.backbone, self.recipe.backbone)
            return replace(recipe, backbone_config=self.recipe.backbone_config)
        assert self.pretrained is not None
        if recipe.backbone == "linear":
            if self.pretrained.family not in PRETRAINED_ENCODERS:
                raise UserError(
                    f"--init {self.path}: a linear probe reads an encoder, of {', '.join(PRETRAINED_ENCODERS)}; the "
                    f"file is of {self.pretrained.family}"
                )
            return with_probed(recipe, self.pretrained.family, configuration(self.pretrained, {}))
        self._require(recipe.backbone, self.pretrained.family)
        if self.pretrained.config is None:
            return recipe
        return with_configuration(recipe, configuration(self.pretrained, {}))

    def _require(self, wanted: str, found: str) -> None:
        if found != wanted:
            raise UserError(
                f"--init {self.path}: holds weights of {found}, this run has --backbone {wanted}; give --backbone "
                f"{found}"
            )


def open_initial(path: Path, backbone: str) -> InitialFile:
    """Open a file of initial weights.

    Args:
        path: a file of ``pointseg-train`` or ``pointseg-distill``; for Sonata, Utonia and LitePT one that
            ``read_pretrained`` reads, for other backbones one that ``load_backbone`` reads.
        backbone: of the run.

    Raises:
        UserError: no such file; not readable; a head for classes without its network.
    """
    if not path.exists():
        raise UserError(f"--init {path}: there is no such file")
    if _is_ours(path):
        return InitialFile(path, ours=read_checkpoint(path, (FORMAT, DISTILLED)))
    if backbone in (*PRETRAINED_BACKBONES, "linear"):
        return InitialFile(path, pretrained=read_pretrained(path))
    return InitialFile(path)


def _is_ours(path: Path) -> bool:
    if path.is_dir() or path.suffix == ".safetensors":
        return False
    try:
        content = read_torch(path, mapped=True)
    except TensorFileError:  # it is read again for its weights, which reports the error
        return False
    return isinstance(content, dict) and content.get("format") in (FORMAT, DISTILLED)
