"""A package and its card, put on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from dinomed3d.hub.local_model import VOLUME
from dinomed3d.hub.push import push_package
from dinomed3d.inference.models.licence import LICENCE, is_dinov3
from dinomed3d.inference.models.model import Model, open_model
from dinomed3d.inference.models.model_card import model_card
from dinomed3d.inference.models.model_files import open_model_files
from dinomed3d.inference.models.portable import portable_dataset, portable_training
from dinomed3d.runtime.errors import UserError


def share_package(package: Path, repository: str, *, private: bool, card: bytes | None) -> str:
    """Upload a package, its card and its licence.

    Args:
        package: that `package_model` wrote.
        repository: `owner/name`.
        private: whether the repository must be private.
        card: text of somebody's own; None: it is made from the model.

    Returns:
        The model's name on the hub, with its commit.

    Raises:
        UserError: no package; one that names cases or paths, or lacks its licence; as `push`.
    """
    model = open_model(package)
    return push_package(
        package,
        repository,
        kind=VOLUME,
        card=card,
        make_card=lambda name: card_of(model, name),
        licence=_checked(model),
        private=private,
        command="dinomed3d package",
    )


def card_of(model: Model, name: str) -> bytes:
    """The card that is made from a package, for who finds it by this name."""
    licence = _licence_text(model)
    text = None if licence is None else licence.decode("utf-8-sig")
    return model_card(model, name=name, licence=text).encode("utf-8")


def _licence_text(model: Model) -> bytes | None:
    files = open_model_files(model.source, root=model.root)
    return files.read(LICENCE) if LICENCE in files.sizes else None


def _checked(model: Model) -> bytes | None:
    """The text of the licence of a package that may be passed on as it is."""
    if model.manifest is None or not model.source.is_file():
        raise UserError(f"--push: {model.source} is no package; name the zip to make with -o")
    stages = [model, *([model.previous] if model.previous is not None else [])]
    if any(
        portable_dataset(stage.dataset) != stage.dataset
        or portable_training(stage.training) != stage.training
        for stage in stages
    ):
        raise UserError(
            f"--push: {model.source} was packaged by a version that kept names of cases or paths in it; package it "
            "again with -o"
        )
    licence = _licence_text(model)
    if licence is None and any(map(is_dinov3, stages)):
        raise UserError(
            f"--push: {model.source} is derived from DINOv3 and lacks its licence; package it again with -o and "
            "--licence"
        )
    return licence
