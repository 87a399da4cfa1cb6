"""Entry point of the console command: parse, then one library call per verb.

This module imports nothing heavy, so that ``dinomed3d --help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from dinomed3d import __version__
from dinomed3d.cli import evaluate, package, predict
from dinomed3d.runtime.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dinomed3d",
        description="DINO-Med3D inside stock nnU-Net. Training and prediction are nnU-Net's own "
        "commands (nnUNetv2_train ... -tr DinoMed3DTrainer); the verbs here go beside them.",
    )
    parser.add_argument("--version", action="version", version=f"dinomed3d {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    demo = verbs.add_parser(
        "demo",
        help="train and predict on a synthetic phantom, from nothing to masks, in a few minutes",
        description="Makes a synthetic phantom dataset, then runs nnU-Net's own commands on it: "
        "plan, preprocess, train with DinoMed3DTrainer (tiny encoder, random weights), predict, "
        "evaluate. Prints Dice per label and the paths of the masks and of an overlay picture.",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("dinomed3d_demo"),
        metavar="DIR",
        help="folder for everything the demo writes (default: ./dinomed3d_demo)",
    )
    demo.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to train; auto takes cuda if there is one, else cpu (default: auto)",
    )
    demo.add_argument(
        "--overwrite", action="store_true", help="replace an earlier demo, finished or not, in DIR"
    )
    demo.set_defaults(run=_run_demo)

    doctor = verbs.add_parser(
        "doctor",
        help="check the installation: versions, devices, nnU-Net, weights, folders; each error with its fix",
        description="Prints versions, devices, whether nnU-Net's own look-ups find our trainer "
        "and planner, which weights are configured and the three nnU-Net folders. Exit code 0: "
        "ready for training; 1: there are errors, each with its fix.",
    )
    doctor.set_defaults(run=_run_doctor)

    predict.add_parser(verbs)
    evaluate.add_parser(verbs)
    package.add_parsers(verbs)

    plan = verbs.add_parser(
        "plan",
        help="size network, patch and batch to a dataset and a memory (as nnU-Net's -pl does)",
        description="The same as nnUNetv2_plan_experiment -d DATASET -pl DinoMed3DPlanner for one "
        "dataset, also where nnU-Net is an editable clone that cannot find our planner. The fingerprint "
        "must have been extracted (nnUNetv2_extract_fingerprint). Then: nnUNetv2_preprocess -d DATASET "
        "-plans_name NAME and nnUNetv2_train DATASET CONFIGURATION FOLD -tr DinoMed3DTrainer -p NAME.",
    )
    plan.add_argument("-d", dest="dataset", required=True, metavar="DATASET", help="number or name")
    plan.add_argument(
        "-gpu_memory_target", type=float, default=8.0, metavar="GIB", help="memory (default: 8)"
    )
    plan.add_argument(
        "-overwrite_target_spacing", type=float, nargs=3, metavar=("Z", "Y", "X"),
        help="mm, in the order of the image's axes, instead of nnU-Net's rule",
    )  # fmt: skip
    plan.add_argument(
        "-overwrite_plans_name", default="DinoMed3DPlans", metavar="NAME",
        help="the plan is written to NAME.json (default: DinoMed3DPlans)",
    )  # fmt: skip
    plan.add_argument(
        "-preprocessor_name", default="DefaultPreprocessor", metavar="CLASS",
        help="nnU-Net's preprocessor (default: DefaultPreprocessor)",
    )  # fmt: skip
    plan.set_defaults(run=_run_plan)

    explain = verbs.add_parser(
        "explain",
        help="say what a plan decided and why, and what each part costs in memory and time",
        description="Reads an nnU-Net plan (ours, or a stock one as our trainer would use it) with the "
        "dataset.json beside it. Memory is counted, times are arithmetic over rates measured here.",
    )
    explain.add_argument("plans", type=Path, metavar="PLANS.json", help="the plan")
    explain.add_argument("-c", dest="configuration", metavar="CONFIGURATION", help="only this one")
    explain.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="whose speed is measured; auto takes cuda if there is one, else cpu (default: auto)",
    )
    explain.set_defaults(run=_run_explain)
    return parser


def _run_demo(arguments: argparse.Namespace) -> int:
    from dinomed3d.cli.demo import DemoSpec, run_demo
    from dinomed3d.runtime.signals import end_gently

    end_gently()  # and takes nnU-Net's processes down with it
    result = run_demo(
        DemoSpec(out=arguments.out, device=arguments.device, overwrite=arguments.overwrite)
    )
    print(result.report())
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

    print(
        explain(
            arguments.plans, arguments.configuration, torch.device(choose_device(arguments.device))
        )
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb of the console command.

    Args:
        argv: the words after ``dinomed3d``; None takes them from the command line.

    Returns:
        Exit code: 0 done, 1 (doctor) there are errors, (predict, evaluate) some cases failed, 2 a
        mistake that the user can correct, 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    # timm uses what the newest torch calls deprecated; that is nothing the user can mend
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
