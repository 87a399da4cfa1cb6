"""Options of commands that put a model on the Hugging Face hub; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dinomed3d.runtime.errors import UserError


def add_sharing(parser: argparse.ArgumentParser) -> None:
    """Add the options of an upload."""
    group = parser.add_argument_group(
        "Hugging Face hub",
        "Nothing is uploaded without --push; then it is the package, its card and its licence, as is said before. Log "
        "in once with 'hf auth login', or set HF_TOKEN.",
    )
    group.add_argument(
        "--push", metavar="OWNER/NAME", help="upload to this repository, which is made if need be"
    )
    group.add_argument(
        "--private", action="store_true", help="the repository must be private (default: public)"
    )
    group.add_argument(
        "--card",
        type=Path,
        metavar="FILE.md",
        help="model card: is written there, to be read before an upload; a FILE that exists is uploaded as it is",
    )


def own_card(arguments: argparse.Namespace) -> bytes | None:
    """The card that the user wrote; None: it is made from the model.

    Raises:
        UserError: it exists, and nothing is to be uploaded.
    """
    if arguments.card is None or not arguments.card.exists():
        return None
    if arguments.push is None:
        raise UserError(
            f"--card {arguments.card}: exists; name another file, or upload it with --push"
        )
    return bytes(arguments.card.read_bytes())


def check_needed(arguments: argparse.Namespace, changing: Sequence[str]) -> None:
    """Refuse options that would do nothing.

    Args:
        arguments: of a command that writes a package, uploads it, or both.
        changing: names of its options that change the package.

    Raises:
        UserError: there is nothing to write or to upload, or a package that is not written anew would have to change.
    """
    if arguments.out is not None:
        return
    if arguments.push is None:
        raise UserError("-o: name the file to write")
    for option in changing:
        if getattr(arguments, option) is not None:
            name = option.replace("_", "-")
            raise UserError(f"--{name}: changes the package; name the file to write with -o")
