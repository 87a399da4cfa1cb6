"""The scripts in examples/ run as they are."""

import subprocess
import sys

import pytest

from tests import ROOT

EXAMPLES = ROOT / "examples"
ARGUMENTS = {
    "lift_slices.py": [],
    "predict_onnx.py": ["--help"],
    "structure.py": [],
    "benchmarks/airborne.py": ["--help"],
    "benchmarks/artifacts.py": ["--help"],
    "benchmarks/brats.py": ["--help"],
    "benchmarks/chosen_views.py": ["--points", "500", "--scenes", "2", "--views", "2"],
    "benchmarks/encoded_once.py": ["--tiny"],
    "benchmarks/ditr.py": ["--tiny"],
    "benchmarks/ditr_tabletop.py": ["--tiny", "--arms", "0,1,3,6,9,10"],
    "benchmarks/few_cases.py": ["--help"],
    "benchmarks/gpu.py": ["--list"],
    "benchmarks/hippocampus.py": ["--help"],
    "benchmarks/hospital.py": ["--tiny", "--parts", "many-labels"],
    "benchmarks/launches.py": ["--tiny", "--networks", "litept"],
    "benchmarks/lifting.py": ["--tiny"],
    "benchmarks/litept.py": ["--tiny"],
    "benchmarks/memory_model.py": ["--quick"],
    "benchmarks/outdoor_probe.py": ["--help"],
    "benchmarks/real_clouds.py": ["--tiny", "--backbones", "minkunet", "--parts", "lidar"],
    "benchmarks/scaling.py": ["--help"],
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


@pytest.mark.parametrize("script", [slow(script) for script in ARGUMENTS])
def test_example_runs(script):
    command = [sys.executable, str(EXAMPLES / script), *ARGUMENTS[script]]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=590)
    assert done.returncode == 0, done.stderr
    assert done.stdout
