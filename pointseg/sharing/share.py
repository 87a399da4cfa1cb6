"""A packaged model and its card, put on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from dinomed3d.hub.local_model import CLOUD
from dinomed3d.hub.push import push_package
from dinomed3d.runtime.errors import UserError
from pointseg.models.checkpoint import DISTILLED, FORMAT, read_checkpoint
from pointseg.sharing.model_card import model_card
from pointseg.sharing.package import ABOUT, is_packaged


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
        UserError: no package; as `push`.
    """
    content = read_checkpoint(package, (FORMAT, DISTILLED))
    if not is_packaged(content):
        raise UserError(
            f"--push: {package} is no package: it may name scenes; name the file to make with -o"
        )
    licence = content[ABOUT]["licence"]
    return push_package(
        package,
        repository,
        kind=CLOUD,
        card=card,
        make_card=lambda name: model_card(content, name=name).encode("utf-8"),
        licence=licence.encode("utf-8") if licence else None,
        private=private,
        command="pointseg-package",
    )


def card_of(package: Path, name: str) -> bytes:
    """The card that is made from a package, for who finds it by this name.

    Raises:
        UserError: it is no package.
    """
    content = read_checkpoint(package, (FORMAT, DISTILLED))
    if not is_packaged(content):
        raise UserError(f"--card: {package} is no package; name the file to make with -o")
    return model_card(content, name=name).encode("utf-8")
