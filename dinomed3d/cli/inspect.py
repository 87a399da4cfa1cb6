"""The verb `inspect`: describes a trained model."""

from __future__ import annotations

import argparse
import json
from typing import Any

from dinomed3d.cli.model_arguments import add_model_arguments


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "inspect",
        help="say what a trained model is: labels, channels, spacing, size, licence",
        description="Reads a trained model's folder or zip and checks it, without building its network.",
    )
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read the model, and print what it is."""
    from dinomed3d.inference.models.describe import inspect_json, inspect_text
    from dinomed3d.inference.models.model import open_model
    from dinomed3d.runtime.hub_model import VOLUME, local_model

    path = local_model(arguments.model, VOLUME)
    model = open_model(path, folds=arguments.folds, checkpoint=arguments.checkpoint)
    if arguments.json:
        print(json.dumps(inspect_json(model), indent=1))
    else:
        print(inspect_text(model))
    return 0
