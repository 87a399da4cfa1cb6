"""`dinomed3d predict` compared with `nnUNetv2_predict` on a CT-like volume, both with the device.

The volume of 512 x 512 x 200 voxels and the model with 15 labels are those of `hospital.py`; the model is trained on
the device first.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from command import Measured
from gpu_parts import Bench
from hospital import ONE_PROCESS, TINY, Size
from hospital import Bench as Hospital
from hospital_measure import Commands, compare
from hospital_models import build
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from dinomed3d.cli.main import main as dinomed3d

TINY_CT = replace(
    TINY, ct_shape=(16, 24, 24), ct_spacing_mm=(7.5,) * 3, ct_patch=16, ct_training_patch=16, ct_steps=1
)  # fmt: skip
PRECISIONS = ("auto", "float32")
"""Of ours: what it chooses by itself, and what is exact."""


def prediction(bench: Bench) -> None:
    """Train the model, then both commands: seconds, and how far their masks agree."""
    work = bench.work / "prediction"
    work.mkdir(parents=True, exist_ok=True)
    threads = 1 if bench.tiny else min(16, os.cpu_count() or 1)
    torch.set_num_threads(threads)
    commands: Any = Commands(threads=threads, log=work / "log.txt", device=bench.device.type)
    if bench.tiny:
        commands = InThisProcess()
    size = TINY_CT if bench.tiny else Size()
    hospital = Hospital(work=work, size=size, commands=commands, shared=None, stock_many=False)
    start = time.perf_counter()
    model, scans = hospital.ct_model(bench.device), hospital.ct_scan()
    bench.note("model and scan, s", round(time.perf_counter() - start, 1))
    out, ours = hospital.folder("ct"), {}

    def measure(precision: str) -> dict[str, Any]:
        options = ["--no-mirroring", "--precision", precision]
        ours[precision] = commands.measure_ours(scans, out / precision, model, *options)
        return asdict(ours[precision])

    def compared(precision: str) -> dict[str, Any]:
        found = compare(out / precision, out / "stock")
        return asdict(ours[precision]) | {
            "times as fast": round(stock.seconds / ours[precision].seconds, 2),
            "equal voxels": found.equal,
            "least Dice": found.lowest,
            "worst case": found.worst,
        }

    first, *others = PRECISIONS[: 1 if bench.tiny else None]
    bench.attempt(
        f"dinomed3d predict, {first}", partial(measure, first)
    )  # known if stock takes long
    stock = commands.measure_stock(scans, out / "stock", model, "--disable_tta", *ONE_PROCESS)
    bench.note("nnUNetv2_predict", asdict(stock))
    for precision in others:
        bench.attempt(f"dinomed3d predict, {precision}", partial(measure, precision))
    for precision in ours:  # those that did not fail
        bench.attempt(f"dinomed3d predict, {precision}", partial(compared, precision))


@dataclass(frozen=True)
class InThisProcess:
    """Both commands' work without their processes, on the CPU: for trials, in a second."""

    def measure_ours(self, source: Path, out: Path, model: Path, *options: str) -> Measured:
        """The same verb, its engine in this process."""
        paths = ["-i", str(source), "-o", str(out), "-m", str(model)]
        start = time.perf_counter()
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()) as log,
        ):
            code = dinomed3d(
                ["predict", *paths, "--engine", "threads", "--device", "cpu", *options]
            )
        if code:
            raise RuntimeError(f"dinomed3d predict: {log.getvalue()[-500:]}")
        return Measured(seconds=time.perf_counter() - start, rss_gib=0.0, pss_gib=None)

    def measure_stock(self, source: Path, out: Path, model: Path, *_: str) -> Measured:
        """nnU-Net's predictor on the only scan; its class of the trainer, which imports much, is left out."""
        read = {
            name: json.loads((model / f"{name}.json").read_text()) for name in ("plans", "dataset")
        }
        weights = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
        plans, kind = PlansManager(read["plans"]), weights["init_args"]["configuration"]
        network = build(read["plans"], read["dataset"], kind)
        predictor = nnUNetPredictor(
            use_mirroring=False,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        out.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            predictor.manual_initialization(
                network,
                plans,
                plans.get_configuration(kind),
                [weights["network_weights"]],
                read["dataset"],
                weights["trainer_name"],
                None,
            )
            files = [[str(source / "ct_0000.nii.gz")]]
            predictor.predict_from_files_sequential(files, [str(out / "ct")])
        return Measured(seconds=time.perf_counter() - start, rss_gib=0.0, pss_gib=None)
