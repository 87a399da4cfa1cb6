"""What may import what (DESIGN.md), and what each package promises by name."""

import ast
from pathlib import Path

import pytest

import dinomed3d.lifting
import dinomed3d.networks
from tests import ROOT

ADAPTERS = {
    "dinomed3d/training/trainer.py",
    "dinomed3d/training/nnunet_plan.py",
    "dinomed3d/cli/doctor.py",
    "dinomed3d/inference/nnunet/build_network.py",
    "dinomed3d/inference/nnunet/plan.py",
    "dinomed3d/inference/nnunet/sliding_window.py",
    "planners/explain.py",
    "planners/nnunet.py",
}
"""The only files that touch nnU-Net."""


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_there_are_files_to_look_at():
    assert len(files("dinomed3d")) > 20 and files("planners") and files("pointseg")


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("dinomed3d/lifting", ("nnunetv2", "pointseg", "planners", "monai", "dinomed3d.networks")),
        ("dinomed3d/networks", ("nnunetv2", "pointseg", "planners", "dinomed3d.training")),
        ("dinomed3d", ("pointseg",)),
        ("dinomed3d/training", ("planners", "dinomed3d.cli")),
        ("pointseg", ("nnunetv2", "planners")),
        ("planners", ("pointseg",)),
    ],
)
def test_arrows(package, forbidden):
    wrong = {
        f"{file.relative_to(ROOT)} -> {name}"
        for file in files(package)
        for name in imports(file)
        if name.startswith(forbidden)
    }
    assert not wrong


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("dinomed3d/lifting", ("dinomed3d.lifting", "dinomed3d.runtime")),
        ("dinomed3d/runtime", ("dinomed3d.runtime",)),
    ],
)
def test_the_lowest_rooms_import_nothing_else_of_ours(room, allowed):
    for file in files(room):
        ours = {n for n in imports(file) if n.startswith(("dinomed3d", "pointseg", "planners"))}
        assert all(n.startswith(allowed) for n in ours), file


def test_only_adapters_touch_nnunet():
    everything = files("dinomed3d") + files("planners") + files("pointseg")
    touching = {
        file.relative_to(ROOT).as_posix()
        for file in everything
        if any(name.startswith("nnunetv2") for name in imports(file))
    }
    assert touching == ADAPTERS


def test_no_drawer_files():
    names = {
        file.name for package in ("dinomed3d", "planners", "pointseg") for file in files(package)
    }
    assert not names & {"utils.py", "common.py", "misc.py", "base.py", "helpers.py"}


def test_public_names():
    """Removing one of these is a breaking change: edit the list on purpose or not at all."""
    assert dinomed3d.lifting.__all__ == [
        "MODELS",
        "Camera",
        "Cameras",
        "DinoEncoder",
        "Encoder",
        "FeatureMap",
        "Last",
        "Max",
        "Mean",
        "Nearest",
        "Projector",
        "Random",
        "SelectView",
        "SliceStack",
        "ViewFusion",
        "WeightsError",
        "build_encoder",
        "check_rigid",
        "default_taps",
        "depth_at",
        "find_weights",
        "in_image",
        "lift",
        "load_weights",
        "neighbour_slices",
        "pad_to_multiple",
        "sample_and_fuse",
        "sample_bilinear",
        "sample_nearest",
        "stack_slices",
        "unstack_slices",
        "z_buffer",
    ]
    assert dinomed3d.networks.__all__ == [
        "COMPONENTS",
        "DinoMed3D",
        "NetworkSpec",
        "build_network",
        "depth_kernels",
        "load_pretrained_encoder",
        "spec_for_patch",
    ]
