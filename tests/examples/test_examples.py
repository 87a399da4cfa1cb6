"""The scripts in examples/ run as they are."""

import os
import runpy
import subprocess
import sys
from unittest.mock import patch

import pytest
import torch

from pointseg.ditr import PointImages
from tests import ROOT

EXAMPLES = ROOT / "examples"
ONE = ["--threads", "1"]
ARGUMENTS = {
    "lift_slices.py": [],
    "predict_onnx.py": ["--help"],
    "structure.py": ["--help"],
    "benchmarks/airborne.py": ["--help"],
    "benchmarks/artifacts.py": ["--help"],
    "benchmarks/brats.py": ["--help"],
    "benchmarks/chosen_views.py": ["--points", "500", "--scenes", "2", "--views", "2", *ONE],
    "benchmarks/encoded_once.py": ["--tiny", *ONE],
    "benchmarks/ditr.py": ["--tiny"],
    "benchmarks/ditr_tabletop.py": ["--tiny", "--arms", "0,1,3,6,9,10"],
    "benchmarks/few_cases.py": ["--help"],
    "benchmarks/gpu.py": ["--list"],
    "benchmarks/hippocampus.py": ["--help"],
    "benchmarks/hospital.py": ["--tiny", "--parts", "many-labels", *ONE],
    "benchmarks/launches.py": ["--tiny", "--networks", "litept"],
    "benchmarks/lifting.py": ["--tiny"],
    "benchmarks/litept.py": ["--tiny"],
    "benchmarks/memory_model.py": ["--quick"],
    "benchmarks/outdoor_probe.py": ["--help"],
    "benchmarks/real_clouds.py": ["--tiny", "--backbones", "minkunet", "--parts", "lidar"],
    "benchmarks/scaling.py": ["--help"],
    "benchmarks/shared_slices.py": ["--tiny", *ONE],
    "benchmarks/sparse_convolution.py": ["--tiny"],
    "benchmarks/step_cost.py": ["--help"],
    "benchmarks/stock_plans.py": ["--help"],
    "benchmarks/triton_kernels.py": ["--help"],
}


def test_every_example_is_run():
    found = {p.relative_to(EXAMPLES).as_posix() for p in EXAMPLES.rglob("*.py")}
    scripts = {n for n in found if "argparse" in (EXAMPLES / n).read_text(encoding="utf-8")}
    assert scripts | {"lift_slices.py"} == set(ARGUMENTS)


def slow(script):
    """Marked where it trains or predicts something, however small."""
    quick = script if ARGUMENTS[script] in ([], ["--help"], ["--list"]) else None
    return quick or pytest.param(script, marks=[pytest.mark.slow, pytest.mark.timeout(600)])


@pytest.fixture
def as_found():
    """What a script may set for its own process is afterwards as it was."""
    threads = torch.get_num_threads()
    counted = patch.object(PointImages, "encode", PointImages.encode)  # by encoded_once.py
    with patch.dict(os.environ), patch.object(sys, "path", list(sys.path)), counted:
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("script", [slow(script) for script in ARGUMENTS])
@pytest.mark.filterwarnings("default")  # as where a user runs it
@pytest.mark.usefixtures("as_found")
def test_example_runs(script, monkeypatch, capfd):
    """In this process, which has imported already what takes a new one seconds."""
    path = EXAMPLES / script
    monkeypatch.setattr(sys, "argv", [str(path), *ARGUMENTS[script]])
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        assert end.code in (None, 0), capfd.readouterr().err
    assert capfd.readouterr().out


def test_an_example_runs_as_a_process_of_its_own():
    """Nothing that it needs was imported by a test."""
    command = [sys.executable, str(EXAMPLES / "lift_slices.py")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=590)
    assert done.returncode == 0, done.stderr
    assert done.stdout
