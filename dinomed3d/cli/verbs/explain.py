"""The verb `explain`: decisions and cost of a plan."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.hardware.device import DEVICES
from dinomed3d.runtime.messages.terminal_text import lines_of


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "explain",
        help="print why a plan is as it is, and what it costs",
        example="dinomed3d explain $nnUNet_preprocessed/Dataset017_Liver/DinoMed3DPlans.json -c 3d_fullres",
        description="Reads an nnU-Net plan (ours, or a stock one as our trainer would use it) and the "
        "dataset.json in its folder. Memory is counted; times are computed from the device's measured throughput.",
    )
    parser.add_argument("plans", type=Path, metavar="PLANS.json", help="the plan")
    parser.add_argument(
        "-c",
        dest="configuration",
        metavar="CONFIGURATION",
        help="configuration to explain (default: all)",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="device to time; auto: cuda if there is one, else cpu (default: auto)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explain one configuration or all, and print it."""
    import torch

    from dinomed3d.runtime.hardware.device import choose_device
    from planners.explain import explain, explain_json

    device = torch.device(choose_device(arguments.device))
    if arguments.json:
        with json_alone(True):
            content = explain_json(arguments.plans, arguments.configuration, device, _say)
        print_json("dinomed3d-explain-1", content)
    else:
        print(lines_of(explain(arguments.plans, arguments.configuration, device, _say)))
    return 0


def _say(text: str) -> None:
    """Print on stderr what is about to take seconds: stdout holds results alone."""
    print(lines_of(text), file=sys.stderr, flush=True)
