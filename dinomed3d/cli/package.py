"""The verbs `package` and `inspect`: models that travel."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_parsers(verbs: Any) -> None:
    """Add both verbs to the console command's parser."""
    package = verbs.add_parser(
        "package",
        help="put a trained model into one zip: plans, weights without optimizer, licence, checksums",
        description="Makes a zip of a trained nnU-Net v2 model that 'predict' and 'inspect' take: plans.json, "
        "dataset.json, the folds' weights as safetensors, the trainer's name, versions, licence text, and the "
        "sha256 of every file. Models that hold DINOv3 weights must carry that licence: name its text with --licence.",
    )
    _model_arguments(package)
    package.add_argument("-o", dest="out", required=True, type=Path, metavar="OUT.zip")
    package.add_argument(
        "--licence", type=Path, metavar="FILE", help="text under which the weights may be passed on"
    )
    package.add_argument(
        "--training-labels",
        type=Path,
        metavar="FOLDER",
        help="label images of the training set: 'predict' then flags volumes outside their range",
    )
    package.add_argument("--overwrite", action="store_true", help="replace OUT.zip")
    package.set_defaults(run=_run_package)

    inspect = verbs.add_parser(
        "inspect",
        help="say what a trained model is: labels, channels, spacing, size, licence",
        description="Reads a trained model's folder or zip and checks it, without building its network.",
    )
    _model_arguments(inspect)
    inspect.add_argument("--json", action="store_true", help="as JSON instead of a table")
    inspect.set_defaults(run=_run_inspect)


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder or zip")
    parser.add_argument(
        "-f",
        "--folds",
        dest="folds",
        nargs="+",
        metavar="FOLD",
        help="only these (default: all there are)",
    )
    parser.add_argument(
        "--checkpoint",
        default="checkpoint_final.pth",
        metavar="NAME",
        help="of a model folder (default: checkpoint_final.pth)",
    )


def _run_package(arguments: argparse.Namespace) -> int:
    from dinomed3d.inference.models.package import package_model

    print(
        package_model(
            arguments.model,
            arguments.out,
            licence=arguments.licence,
            training_labels=arguments.training_labels,
            folds=arguments.folds,
            checkpoint=arguments.checkpoint,
            overwrite=arguments.overwrite,
        )
    )
    return 0


def _run_inspect(arguments: argparse.Namespace) -> int:
    from dinomed3d.inference.models.describe import inspect_json, inspect_text
    from dinomed3d.inference.models.model import open_model

    model = open_model(arguments.model, folds=arguments.folds, checkpoint=arguments.checkpoint)
    if arguments.json:
        print(json.dumps(inspect_json(model), indent=1))
    else:
        print(inspect_text(model))
    return 0
