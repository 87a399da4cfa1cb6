"""Options of a training run that pointseg-train and pointseg-distill share; imports nothing heavy."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.hardware.device import choose_device
from dinomed3d.runtime.messages.terminal_text import one_line
from pointseg.cli.arguments import NameOrPlugin, add_device, at_least
from pointseg.conventions import BACKBONES, MODEL_SIZES, PRETRAINED_BACKBONES
from pointseg.plugins import FORM, is_plugin

if TYPE_CHECKING:
    from pointseg.config.recipe import Recipe
    from pointseg.datasets.dataset import Dataset
    from pointseg.training.run.spec import TrainSpec


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of a run."""
    parser.add_argument(
        "--backbone", default="ptv3", type=NameOrPlugin(BACKBONES), metavar="NAME",
        help=f"3D network: {', '.join(BACKBONES)}; or {FORM}, a class of your own in an installed package or in the "
        "current folder (default: ptv3)",
    )  # fmt: skip
    parser.add_argument(
        "--model-size", choices=MODEL_SIZES,
        help="size of the backbone: small or full; of sonata, utonia and litept a published one, unless the file of "
        "--init says it (default: small or tiny for the dataset synthetic, else full)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run (default: runs/DATASET-BACKBONE)"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue from last.pt in --out")
    start.add_argument(
        "--overwrite", action="store_true", help="start a new run although --out holds one"
    )
    parser.add_argument(
        "--override", action="append", default=[], metavar="KEY=VALUE",
        help="change the recipe, such as epochs=100 or optimizer.lr=0.001 (see --show-recipe)",
    )  # fmt: skip
    parser.add_argument("--show-recipe", action="store_true", help="print the recipe and stop")
    parser.add_argument(
        "--devices", type=at_least(1), default=1, metavar="N", help="number of GPUs (default: 1)"
    )
    parser.add_argument(
        "--accumulate-grad-batches", type=at_least(1), default=1, metavar="N",
        help="split each batch into N smaller ones and accumulate their gradients, to save memory (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=at_least(0), metavar="N",
        help="processes that load data (default: by number of cores)",
    )  # fmt: skip
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="N",
        help="seed of random numbers (default: 0)",
    )
    add_device(parser)


def model_size(arguments: argparse.Namespace) -> str:
    """The size of the backbone."""
    if arguments.model_size is not None:
        return str(arguments.model_size)
    if arguments.dataset != "synthetic" or is_plugin(arguments.backbone):
        return "full"
    return "tiny" if arguments.backbone in PRETRAINED_BACKBONES else "small"


def default_out(arguments: argparse.Namespace, prefix: str = "") -> Path:
    """The folder of a run that is given none."""
    name = f"{prefix}{arguments.dataset}-{arguments.backbone}"
    return Path("runs") / name.replace(
        ":", "."
    )  # of a class of one's own; no name of a file on Windows


def lock_out(arguments: argparse.Namespace, out: Path) -> AbstractContextManager[None]:
    """Keep other runs from the folder of a run, before anything heavy is loaded.

    Raises:
        UserError: another process is training there.
    """
    from pointseg.training.run.devices import is_main_process
    from pointseg.training.run.run_dir import lock_run_dir

    # of several processes of one run the first one locks it; Slurm's own launcher does not say so by RANK
    is_later = arguments.devices > 1 and os.environ.get("SLURM_PROCID", "0") != "0"
    leads = is_main_process() and not is_later
    return lock_run_dir(out) if leads and not arguments.show_recipe else nullcontext()


def run_spec(
    arguments: argparse.Namespace, recipe: Recipe, dataset: Dataset, out: Path
) -> TrainSpec:
    """A training run by the options of :func:`add_run`.

    Raises:
        UserError: the folder holds a run, or none to resume; a precision that the device lacks.
    """
    from pointseg.config.precision import choose_precision
    from pointseg.training.run.devices import devices_and_nodes, loader_workers
    from pointseg.training.run.run_dir import check_run_dir
    from pointseg.training.run.spec import TrainSpec

    check_run_dir(out, resume=arguments.resume, overwrite=arguments.overwrite)
    device = choose_device(arguments.device)
    devices, nodes = devices_and_nodes(arguments.devices)
    return TrainSpec(
        dataset=dataset,
        recipe=recipe,
        out=out,
        resume=arguments.resume,
        device=device,
        devices=devices,
        nodes=nodes,
        precision=choose_precision(arguments.precision, device),
        accumulate_grad_batches=arguments.accumulate_grad_batches,
        workers=loader_workers(arguments.workers),
        seed=arguments.seed,
        log=lambda text: print(one_line(text), file=sys.stderr),
    )
