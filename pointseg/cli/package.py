"""``pointseg-package``: parse, package a model, upload it if asked. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dinomed3d.hub.sharing_options import add_sharing, check_needed, own_card
from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.run_command import run_command
from pointseg.cli.arguments import add_own_backbone

NAME = "pointseg-package"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-package runs/first/best.pt -o first.pt",
        description="Writes a trained model for others: weights, classes and recipe without the state of the training, "
        "which names its scenes, with scores and licence. All commands take it in place of best.pt; one made of "
        "last.pt of pointseg-distill is for pointseg-train --init. With --push it is uploaded "
        "with a model card; others then predict with -m hf:owner/name.",
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="best.pt of pointseg-train, last.pt of pointseg-distill, or hf:owner/name",
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="OUT.pt",
        help="the file to write; may be left out with --push of a MODEL that is a package already",
    )  # fmt: skip
    parser.add_argument(
        "--scores", type=Path, metavar="FILE",
        help="metrics.json of pointseg-test for the card (default: test/metrics.json next to MODEL, if it is of MODEL)",
    )  # fmt: skip
    parser.add_argument(
        "--licence", type=Path, metavar="FILE", help="text under which the weights may be passed on"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.pt if it exists")
    add_own_backbone(parser)
    add_sharing(parser)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from dinomed3d.hub.local_model import CLOUD, local_model
    from dinomed3d.hub.push import check_push
    from dinomed3d.runtime.files.atomic_files import atomic_write
    from pointseg.sharing.package import package_model
    from pointseg.sharing.share import card_of, share_package

    repository = check_push(arguments.push, private=arguments.private)
    check_needed(arguments, ("scores", "licence"))
    card = own_card(arguments)
    package = local_model(arguments.model, CLOUD)
    if arguments.out is not None:
        package = package_model(
            package,
            arguments.out,
            scores=arguments.scores,
            licence=arguments.licence,
            backbone=arguments.backbone,
            overwrite=arguments.overwrite,
        )
        print(package)
    if arguments.card is not None and card is None:
        name = package.name if repository is None else f"hf:{repository}"
        atomic_write(arguments.card, card_of(package, name))
        print(arguments.card)
    if repository is not None:
        print(share_package(package, repository, private=arguments.private, card=card))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(NAME, lambda: _run(arguments), results=arguments.out)


if __name__ == "__main__":
    sys.exit(main())
