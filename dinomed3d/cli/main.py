"""Entry point of the console command: parse, then one library call per verb.

This module imports nothing heavy, so that ``dinomed3d --help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dinomed3d import __version__
from dinomed3d.cli import evaluate, package, predict
from dinomed3d.runtime.device import DEVICES
from dinomed3d.runtime.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dinomed3d",
        description="DINO-Med3D inside stock nnU-Net. Training is nnU-Net's own command "
        "(nnUNetv2_train ... -tr DinoMed3DTrainer); the verbs here are what it does not have.",
    )
    parser.add_argument("--version", action="version", version=f"dinomed3d {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_demo(verbs)
    _add_doctor(verbs)
    predict.add_parser(verbs)
    evaluate.add_parser(verbs)
    package.add_parsers(verbs)
    _add_plan(verbs)
    _add_explain(verbs)
    return parser


def _add_demo(verbs: Any) -> None:
    parser = verbs.add_parser(
        "demo",
        help="train and predict on a synthetic phantom in a few minutes, without data or weights",
        description="Makes a synthetic phantom dataset, then runs nnU-Net's own commands on it: "
        "plan, preprocess, train with DinoMed3DTrainer (tiny encoder, random weights), predict, "
        "evaluate. Prints Dice per label and the paths of the masks and of an overlay picture.",
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
    parser.set_defaults(run=_run_demo)


def _add_doctor(verbs: Any) -> None:
    parser = verbs.add_parser(
        "doctor",
        help="check the installation: versions, devices, nnU-Net, weights, folders",
        description="Prints versions, devices, whether nnU-Net's own look-ups find our trainer and planner, "
        "which weights are configured, and nnU-Net's three folders, each error with its fix. "
        "Exit code 0: ready for training; 1: there are errors.",
    )
    parser.set_defaults(run=_run_doctor)


def _add_plan(verbs: Any) -> None:
    parser = verbs.add_parser(
        "plan",
        help="size network, patch and batch to a dataset and a memory (as nnU-Net's -pl does)",
        description="The same as nnUNetv2_plan_experiment -d DATASET -pl DinoMed3DPlanner for one "
        "dataset, also where nnU-Net is an editable clone that cannot find our planner. The fingerprint "
        "must have been extracted (nnUNetv2_extract_fingerprint). Then: nnUNetv2_preprocess -d DATASET "
        "-plans_name NAME and nnUNetv2_train DATASET CONFIGURATION FOLD -tr DinoMed3DTrainer -p NAME.",
    )
    parser.add_argument(
        "-d", dest="dataset", required=True, metavar="DATASET", help="number or name"
    )
    parser.add_argument(
        "-gpu_memory_target", type=float, default=8.0, metavar="GIB", help="memory (default: 8)"
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
    parser.set_defaults(run=_run_plan)


def _add_explain(verbs: Any) -> None:
    parser = verbs.add_parser(
        "explain",
        help="print what a plan decided and why, and what each layer costs in memory and time",
        description="Reads an nnU-Net plan (ours, or a stock one as our trainer would use it) and the "
        "dataset.json in its folder. Memory is counted; times are computed from rates measured here.",
    )
    parser.add_argument("plans", type=Path, metavar="PLANS.json", help="the plan")
    parser.add_argument("-c", dest="configuration", metavar="CONFIGURATION", help="only this one")
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="whose speed is measured; auto: cuda if there is one, else cpu (default: auto)",
    )
    parser.set_defaults(run=_run_explain)


def _run_demo(arguments: argparse.Namespace) -> int:
    from dinomed3d.cli.demo import DemoSpec, run_demo
    from dinomed3d.runtime.signals import end_gently

    end_gently()  # a signal then stops nnU-Net's processes, too
    spec = DemoSpec(out=arguments.out, device=arguments.device, overwrite=arguments.overwrite)
    print(run_demo(spec).report())
    return 0


def _run_doctor(arguments: argparse.Namespace) -> int:
    from dinomed3d.cli.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding.text())
    return 1 if any(finding.state == "error" for finding in findings) else 0


def _run_plan(arguments: argparse.Namespace) -> int:
    from planners.nnunet import plan_dataset

    print(
        plan_dataset(
            arguments.dataset,
            memory_gib=arguments.gpu_memory_target,
            plans_name=arguments.overwrite_plans_name,
            preprocessor_name=arguments.preprocessor_name,
            target_spacing=arguments.overwrite_target_spacing,
        )
    )
    return 0


def _run_explain(arguments: argparse.Namespace) -> int:
    import torch

    from dinomed3d.runtime.device import choose_device
    from planners.explain import explain

    device = torch.device(choose_device(arguments.device))
    print(explain(arguments.plans, arguments.configuration, device))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb of the console command.

    Args:
        argv: the words after ``dinomed3d``; None takes them from the command line.

    Returns:
        Exit code: 0 done; 1 doctor found errors, or some cases failed (predict, evaluate); 2 a mistake
        that the user can correct; 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    # timm uses what the newest torch deprecates; a user can do nothing about it
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")
    try:
        code: int = arguments.run(arguments)
    except UserError as error:
        print(f"dinomed3d {arguments.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"dinomed3d {arguments.verb}: interrupted", file=sys.stderr)
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
