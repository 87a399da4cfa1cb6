"""The verb `package`: puts a trained model into one zip."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dinomed3d.cli.model_arguments import add_model_arguments


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "package",
        help="put a trained model into one zip: plans, weights without optimizer, licence, checksums",
        description="Makes a zip of a trained nnU-Net v2 model that 'predict' and 'inspect' take: plans.json, "
        "dataset.json, the folds' weights as safetensors, the trainer's name, versions, licence text, and the "
        "sha256 of every file. Models that hold DINOv3 weights must carry that licence: name its text with --licence.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "-o", dest="out", required=True, type=Path, metavar="OUT.zip", help="the zip to write"
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the package, and print its path."""
    from dinomed3d.inference.models.package import package_model
    from dinomed3d.runtime.hub_model import VOLUME, local_model

    print(
        package_model(
            local_model(arguments.model, VOLUME),
            arguments.out,
            licence=arguments.licence,
            training_labels=arguments.training_labels,
            folds=arguments.folds,
            checkpoint=arguments.checkpoint,
            overwrite=arguments.overwrite,
        )
    )
    return 0
