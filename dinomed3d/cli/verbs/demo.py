"""The verb `demo`: its options."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.hardware.device import DEVICES


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "demo",
        help="train and predict on synthetic data in a few minutes",
        example="dinomed3d demo --device cpu",
        description="Makes a synthetic phantom dataset, then runs nnU-Net's own commands on it: "
        "plan, preprocess, train with DinoMed3DTrainer (tiny encoder, random weights), evaluate; test cases "
        "are predicted by 'dinomed3d predict'. Then point clouds of rooms. Prints Dice per label and the "
        "paths of masks, of a picture with the errors, and of the report of the prediction.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("dinomed3d_demo"),
        metavar="DIR",
        help="folder for all files of the demo (default: ./dinomed3d_demo)",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where to train; auto: cuda if there is one, else cpu (default: auto)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier demo in DIR")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo, and print Dice and the paths of its results."""
    from dinomed3d.cli.demo.steps import DemoSpec, run_demo

    spec = DemoSpec(out=arguments.out, device=arguments.device, overwrite=arguments.overwrite)
    with json_alone(arguments.json):
        result = run_demo(spec)
    if arguments.json:
        print_json("dinomed3d-demo-1", asdict(result))
    else:
        print(result.report())
    return 0
