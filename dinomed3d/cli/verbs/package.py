"""The verb `package`: puts a trained model into one zip, and on the Hugging Face hub if asked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dinomed3d.cli.verbs.model_arguments import add_model_arguments
from dinomed3d.hub.sharing_options import add_sharing, check_needed, own_card


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "package",
        help="put a trained model into one zip, or on the hub",
        example="dinomed3d package $nnUNet_results/Dataset017_Liver/DinoMed3DTrainer__DinoMed3DPlans__3d_fullres "
        "-o liver.zip",
        description="Makes a zip of a trained nnU-Net v2 model that 'predict' and 'inspect' take: plans.json, "
        "dataset.json without lists of cases, the folds' weights as safetensors, the trainer's name, means of the "
        "validation, versions, licence text, and the sha256 of every file. Models that hold DINOv3 weights must carry "
        "that licence: name its text with --licence. With --push it is uploaded with a model card; others then predict "
        "with -m hf:owner/name.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "-o",
        dest="out",
        type=Path,
        metavar="OUT.zip",
        help="the zip to write; may be left out with --push of a MODEL that is a package already",
    )
    parser.add_argument(
        "--licence", type=Path, metavar="FILE", help="text under which the weights may be passed on"
    )
    parser.add_argument(
        "--training-labels",
        type=Path,
        metavar="FOLDER",
        help="label images of the training set: 'predict' then flags volumes outside their range",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.zip if it exists")
    add_sharing(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the package, upload it if asked, and print its path and name."""
    from dinomed3d.hub.local_model import VOLUME, local_model
    from dinomed3d.hub.push import check_push
    from dinomed3d.inference.models.package import package_model

    repository = check_push(arguments.push, private=arguments.private)
    check_needed(arguments, ("licence", "training_labels", "folds"))
    card = own_card(arguments)
    package = local_model(arguments.model, VOLUME)
    if arguments.out is not None:
        package = package_model(
            package,
            arguments.out,
            licence=arguments.licence,
            training_labels=arguments.training_labels,
            folds=arguments.folds,
            checkpoint=arguments.checkpoint,
            overwrite=arguments.overwrite,
        )
        print(package)
    if arguments.card is not None and card is None:
        _write_card(package, arguments.card, repository)
    if repository is not None:
        from dinomed3d.inference.models.share import share_package

        print(share_package(package, repository, private=arguments.private, card=card))
    return 0


def _write_card(package: Path, card: Path, repository: str | None) -> None:
    """Write the card that is made from the model."""
    from dinomed3d.inference.models.model import open_model
    from dinomed3d.inference.models.share import card_of
    from dinomed3d.runtime.files.atomic_files import atomic_write

    name = package.name if repository is None else f"hf:{repository}"
    atomic_write(card, card_of(open_model(package), name))
    print(card)
