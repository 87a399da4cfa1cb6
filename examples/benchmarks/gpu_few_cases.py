"""The benchmark with few training cases (`few_cases.py`), all of its arms at the same time on one device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import few_cases
import few_cases_data
import few_cases_table
from gpu_parts import Bench

ARMS = ("adapters", "permuted-adapters", "cnn", "stock")
CASES, STEPS, EVERY = 4, 300, 100
"""Training cases, optimizer steps and steps between evaluations."""


def parallel_arms(bench: Bench) -> None:
    """Prepare the dataset once, then a process for each arm; what is not finished in time is ended."""
    if bench.data is None or bench.weights is None:
        bench.note(
            "skipped", "give --data, a raw dataset of nnU-Net, and --weights, of DINOv2 ViT-S"
        )
        return
    work = bench.work / "few_cases"
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(work / name)
    work.mkdir(parents=True, exist_ok=True)
    few_cases_data.prepare(bench.data, work, small=False)
    few_cases_data.permute(bench.weights, work / "permuted.safetensors")
    bench.note("seconds left after preparing", round(bench.left))
    running = {arm: _begin(bench, work, arm) for arm in ARMS}
    for arm, process in running.items():
        try:
            process.wait(max(1.0, bench.left - 5))
        except subprocess.TimeoutExpired:
            process.kill()
        bench.note(arm, _result(work, arm, process.returncode))
    if few_cases_table.results(work):
        bench.note("table", few_cases_table.summary(work))


def _begin(bench: Bench, work: Path, arm: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, few_cases.__file__, str(bench.data), "--work", str(work)]
    command += ["--weights", str(bench.weights), "--arms", arm, "--seeds", "0"]
    command += ["--cases", str(CASES), "--steps", str(STEPS), "--every", str(EVERY)]
    command += ["--device", bench.device.type]
    with open(work / f"{arm}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _result(work: Path, arm: str, code: int | None) -> dict[str, Any]:
    """Of a finished arm its scores, of another one what it had."""
    runs = {run["arm"]: run for run in few_cases_table.results(work)}
    if arm in runs:
        return {key: runs[arm][key] for key in ("steps", "curve", "dice")}
    lines = (work / f"{arm}.log").read_text(errors="replace").splitlines()
    return {"error": f"ended with {code} before its last step", "log": lines[-12:]}
