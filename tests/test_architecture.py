"""Which file may import which (docs/architecture.md), and what each package promises by name."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import PurePosixPath

import pytest

import dinomed3d.lifting
import dinomed3d.networks
from tests import ROOT

sys.path.insert(0, str(ROOT / "examples"))
import structure

PACKAGES = ("dinomed3d/", "planners/", "pointseg/")
SOURCES = {p: text for p, text in structure.read_checkout().items() if p.startswith(PACKAGES)}
TREES = {path: ast.parse(text) for path, text in SOURCES.items()}
GRAPH = {path: set(structure.imports(path, tree, TREES)) for path, tree in TREES.items()}

CORE = (
    "dinomed3d/runtime",
    "dinomed3d/runtime/messages",
    "dinomed3d/runtime/hardware",
    "dinomed3d/runtime/files",
    "dinomed3d/runtime/commands",
    "dinomed3d/hub",
    "dinomed3d/lifting",
)
"""What both sides share; neither imports anything else of ours."""
VOLUMES = (
    "dinomed3d/__init__.py",
    *CORE,
    "dinomed3d/networks",
    "dinomed3d/training/settings",
    "dinomed3d/training/data",
    "dinomed3d/training/checkpoints",
    "dinomed3d/training/start",
    "dinomed3d/training/step",
    "dinomed3d/training",
    "dinomed3d/inference",
    "dinomed3d/inference/dicom",
    "dinomed3d/inference/io",
    "dinomed3d/inference/discovery",
    "dinomed3d/inference/models",
    "dinomed3d/inference/nnunet",
    "dinomed3d/inference/report",
    "dinomed3d/inference/cohort/spec.py",
    "dinomed3d/inference/cohort/outputs",
    "dinomed3d/inference/cohort/events.py",
    "dinomed3d/inference/cohort/worker",
    "dinomed3d/inference/cohort/engines",
    "dinomed3d/inference/cohort",
    "dinomed3d/inference/in_memory",
    "dinomed3d/inference/deployment",
    "dinomed3d/inference/viewer",
    "dinomed3d/evaluation",
    "dinomed3d/dataset",
    "planners",
    "planners/cost",
    "planners/sizing",
    "planners/report",
    "planners/explain",
    "planners/nnunet",
    "dinomed3d/cli/progress",
    "dinomed3d/cli/completion",
    "dinomed3d/cli/doctor",
    "dinomed3d/cli/demo",
    "dinomed3d/cli/verbs",
    "dinomed3d/cli",
    "dinomed3d/shims",
)
"""Rooms of the volume side from the lowest up: a room imports its own files and those of rooms before it.

A file that is named is a room of its own: the options and the events of a run are below what works with them.
"""
POINTS = (
    *CORE,
    "pointseg/conventions.py",
    "pointseg/plugins.py",
    "pointseg/scene.py",
    "pointseg/geometry",
    "pointseg/ops/hardware",
    "pointseg/ops/grouping",
    "pointseg/ops/convolution",
    "pointseg/ops/attention",
    "pointseg/ops",
    "pointseg/cloud.py",
    "pointseg/files/table",
    "pointseg/files/columns",
    "pointseg/files/labelling",
    "pointseg/files/las",
    "pointseg/files/ply",
    "pointseg/files/pcd",
    "pointseg/files/text",
    "pointseg/files/arrays",
    "pointseg/files/scans",
    "pointseg/files/coordinate_systems",
    "pointseg/files",
    "pointseg/metrics.py",
    "pointseg/most_likely.py",
    "pointseg/transforms",
    "pointseg/backbones/interface",
    "pointseg/backbones/weights",
    "pointseg/backbones/ptv3",
    "pointseg/backbones/pointnext",
    "pointseg/backbones",
    "pointseg/ditr.py",
    "pointseg/segmenter.py",
    "pointseg/distill.py",
    "pointseg/pictures",
    "pointseg/images/readers",
    "pointseg/images",
    "pointseg/images/features",
    "pointseg/images/camera_check",
    "pointseg/datasets",
    "pointseg/config",
    "pointseg/models",
    "pointseg/loading",
    "pointseg/training/step",
    "pointseg/training/tasks",
    "pointseg/training/run",
    "pointseg/training",
    "pointseg/evaluation",
    "pointseg/prediction/inputs",
    "pointseg/prediction/results",
    "pointseg/prediction/streaming",
    "pointseg/prediction",
    "pointseg/scoring",
    "pointseg/lifting",
    "pointseg/viewing",
    "pointseg/__init__.py",
    "pointseg/sharing",
    "pointseg/cli",
)
"""Rooms of the point side, likewise; files at the top are rooms of their own."""
NOT_BELOW = {
    "dinomed3d/training": ("dinomed3d/inference", "planners"),
    "dinomed3d/inference": ("planners",),
}
"""What the order alone would not forbid: neither needs the other."""
NNUNET = {
    "dinomed3d/training/data/augmentation.py",
    "dinomed3d/training/loading_trainer.py",
    "dinomed3d/training/resumable_trainer.py",
    "dinomed3d/training/trainer.py",
    "dinomed3d/training/settings/nnunet_plan.py",
    "dinomed3d/training/data/preprocessed_data.py",
    "dinomed3d/training/data/stage_one_loader.py",
    "dinomed3d/cli/doctor/nnunet_lookups.py",
    "dinomed3d/dataset/check.py",
    "dinomed3d/dataset/description.py",
    "dinomed3d/dataset/files.py",
    "dinomed3d/dataset/voxels.py",
    "dinomed3d/inference/nnunet/build_network.py",
    "dinomed3d/inference/nnunet/plan.py",
    "dinomed3d/inference/nnunet/sliding_window.py",
    "planners/explain/plan_costs.py",
    "planners/explain/loader_speed.py",
    "planners/nnunet/plan_dataset.py",
    "planners/nnunet/planner.py",
    "planners/report/plan_report.py",
}
"""The adapters: the only files that import nnU-Net."""
COMMAND = ("\ndef main(", "\ndef add_parser(")
"""What a file of a ``cli`` that is a command, or a verb of one, defines: only ``main`` imports such files."""


def room(path: str) -> str:
    """The folder of a file, or the file itself; each dataset's folder belongs to the room of datasets."""
    folder = str(PurePosixPath(path).parent)
    if path in VOLUMES:
        return path
    if folder.startswith("pointseg/datasets/"):
        return "pointseg/datasets"
    return path if folder in ("pointseg", "dinomed3d") else folder


def packages_of(path: str) -> set[str]:
    """First parts of the names that a file imports."""
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def upward(order: Sequence[str]) -> list[str]:
    """Imports by the files of some rooms that do not point down in their order."""
    height = {name: number for number, name in enumerate(order)}
    return [
        f"{path} -> {target}"
        for path in GRAPH
        if room(path) in height
        for target in GRAPH[path]
        if height.get(room(target), len(order)) > height[room(path)]
    ]


def test_every_file_has_a_room():
    assert {room(path) for path in GRAPH} <= {*VOLUMES, *POINTS}


@pytest.mark.parametrize("order", [VOLUMES, POINTS], ids=["volumes", "points"])
def test_arrows_point_down(order):
    assert upward(order) == []


def test_there_is_no_circle_of_files():
    assert structure.circles(GRAPH) == []


def test_rooms_that_do_not_need_each_other():
    assert [
        f"{path} -> {target}"
        for below, others in NOT_BELOW.items()
        for path in GRAPH
        if path.startswith(f"{below}/")
        for target in GRAPH[path]
        if target.startswith(others)
    ] == []


def test_commands_are_imported_by_nothing():
    def is_command(path: str) -> bool:
        return "/cli/" in path and any(line in SOURCES[path] for line in COMMAND)

    assert sum(map(is_command, GRAPH)) >= 23, "11 verbs, their command, and 11 commands of clouds"
    assert [
        f"{path} -> {target}"
        for path in GRAPH
        for target in GRAPH[path]
        if ("/cli/" in target and "/cli/" not in path)
        or (is_command(target) and path != "dinomed3d/cli/main.py")
    ] == []


def test_only_adapters_import_nnunet():
    assert {path for path in GRAPH if "nnunetv2" in packages_of(path)} == NNUNET


def test_no_drawer_files():
    drawers = {"utils.py", "common.py", "misc.py", "base.py", "helpers.py"}
    assert not {PurePosixPath(path).name for path in GRAPH} & drawers


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
        "Lens",
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
        "sample_chosen",
        "sample_nearest",
        "stack_slices",
        "unstack_slices",
        "z_buffer",
    ]
    assert dinomed3d.networks.__all__ == [
        "COMPONENTS",
        "CnnSpec",
        "DinoMed3D",
        "NetworkSpec",
        "build_network",
        "load_pretrained_encoder",
        "neck_taps",
        "slice_step",
        "token_side",
    ]
