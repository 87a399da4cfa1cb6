"""The verb `inspect`: describes a trained model."""

from __future__ import annotations

import argparse
from typing import Any

from dinomed3d.cli.verbs.model_arguments import add_model_arguments
from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "inspect",
        help="say what a trained model is: labels, channels, licence",
        example="dinomed3d inspect liver.zip",
        description="Reads a trained model's folder or zip and checks it, without building its network.",
    )
    add_model_arguments(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read the model, and print what it is."""
    from dinomed3d.hub.local_model import VOLUME, local_model
    from dinomed3d.inference.models.describe import inspect_json, inspect_text
    from dinomed3d.inference.models.model import open_model

    with json_alone(arguments.json):
        path = local_model(arguments.model, VOLUME)
        model = open_model(path, folds=arguments.folds, checkpoint=arguments.checkpoint)
    if arguments.json:
        print_json("dinomed3d-inspect-1", inspect_json(model))
    else:
        print(inspect_text(model))
    return 0
