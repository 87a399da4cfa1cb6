"""The verb `plan`: nnU-Net's planning with our planner."""

from __future__ import annotations

import argparse
from typing import Any

from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "plan",
        help="size network, patch and batch to a dataset and a memory",
        example="dinomed3d plan -d 17 -gpu_memory_target 24",
        description="The same as nnUNetv2_plan_experiment -d DATASET -pl DinoMed3DPlanner for one "
        "dataset, also where nnU-Net is an editable clone that cannot find our planner. The fingerprint "
        "must have been extracted (nnUNetv2_extract_fingerprint). Then: nnUNetv2_preprocess -d DATASET "
        "-plans_name NAME and nnUNetv2_train DATASET CONFIGURATION FOLD -tr DinoMed3DTrainer -p NAME.",
    )
    parser.add_argument(
        "-d", dest="dataset", required=True, metavar="DATASET", help="number or name of the dataset"
    )
    parser.add_argument(
        "-gpu_memory_target",
        type=float,
        default=8.0,
        metavar="GIB",
        help="GPU memory to plan for, GiB (default: 8)",
    )
    parser.add_argument(
        "-overwrite_target_spacing",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="mm, in the order of the image's axes, instead of nnU-Net's rule",
    )
    parser.add_argument(
        "-overwrite_plans_name",
        default="DinoMed3DPlans",
        metavar="NAME",
        help="the plan is written to NAME.json (default: DinoMed3DPlans)",
    )
    parser.add_argument(
        "-preprocessor_name",
        default="DefaultPreprocessor",
        metavar="CLASS",
        help="nnU-Net's preprocessor (default: DefaultPreprocessor)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan, and print the decisions."""
    with json_alone(arguments.json):
        from planners.nnunet import plan_dataset, plan_json, plan_report

        plans = plan_dataset(
            arguments.dataset,
            memory_gib=arguments.gpu_memory_target,
            plans_name=arguments.overwrite_plans_name,
            preprocessor_name=arguments.preprocessor_name,
            target_spacing=arguments.overwrite_target_spacing,
        )
    if arguments.json:
        print_json("dinomed3d-plan-1", plan_json(plans))
    else:
        print(plan_report(plans))
    return 0
