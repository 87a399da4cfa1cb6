"""Twelve kinds of data, as the planner knows them after resampling, and nnU-Net's rule for them.

The benchmarks and the tests of the planners size these without any images.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from planners.nnunet import DinoMed3DPlanner
from planners.nnunet.plan_entries import cnn_plan
from planners.sizing import CnnPlan, CnnRule, DatasetStats, Sizing, size_configuration


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What a dataset looks like; every dataset here is one that exists in much the same form."""

    spacing_mm: tuple[float, ...]
    """(D, H, W), or (H, W) where there is one slice."""
    shape: tuple[int, ...]
    """Median, of the same axes, voxels."""
    cases: int
    channels: int = 1
    classes: int
    """Labels with background."""

    @property
    def stats(self) -> DatasetStats:
        """What the sizing rules take."""
        return DatasetStats(
            spacing=self.spacing_mm,
            shape=self.shape,
            channels=self.channels,
            classes=self.classes,
        )


FINGERPRINTS: Mapping[str, Fingerprint] = {
    # small crops of MRI, 1 mm in every direction
    "hippocampus": Fingerprint(spacing_mm=(1, 1, 1), shape=(36, 50, 35), cases=260, classes=3),
    # two MRI sequences, slices six times as thick as pixels are wide
    "prostate": Fingerprint(
        spacing_mm=(3.6, 0.62, 0.62), shape=(20, 320, 319), cases=32, channels=2, classes=3
    ),
    # four MRI sequences, 1 mm
    "brain tumour": Fingerprint(
        spacing_mm=(1, 1, 1), shape=(140, 170, 138), cases=484, channels=4, classes=3
    ),
    # cine MRI, few slices 10 mm apart
    "cine heart": Fingerprint(
        spacing_mm=(10, 1.56, 1.56), shape=(9, 237, 208), cases=200, classes=4
    ),
    "liver CT": Fingerprint(
        spacing_mm=(1, 0.77, 0.77), shape=(500, 512, 512), cases=131, classes=3
    ),
    "whole body": Fingerprint(spacing_mm=(2, 2, 2), shape=(900, 400, 400), cases=500, classes=25),
    # a mouse, 0.05 mm
    "micro-CT": Fingerprint(
        spacing_mm=(0.05, 0.05, 0.05), shape=(700, 700, 700), cases=40, classes=5
    ),
    # no two axes have the same spacing
    "retina OCT": Fingerprint(
        spacing_mm=(0.12, 0.0039, 0.0117), shape=(49, 496, 512), cases=110, classes=8
    ),
    "ultrasound": Fingerprint(spacing_mm=(0.5, 0.5), shape=(400, 550), cases=1000, classes=2),
    "X-ray": Fingerprint(spacing_mm=(0.15, 0.15), shape=(2000, 2000), cases=1200, classes=4),
    "one slice": Fingerprint(spacing_mm=(1, 1), shape=(256, 256), cases=300, classes=3),
    "117 labels": Fingerprint(
        spacing_mm=(1.5, 1.5, 1.5), shape=(264, 243, 243), cases=1200, classes=118
    ),
}
TARGETS = (6, 12, 24, 80)
"""GiB of GPUs that are in use."""


@cache
def _planner(channels: int, classes: int) -> DinoMed3DPlanner:
    """A planner for a dataset of which nothing but the description exists, in a folder that is gone again."""
    labels = {"background": 0} | {f"label {number}": number for number in range(1, classes)}
    dataset: dict[str, Any] = {
        "channel_names": {str(number): "MRI" for number in range(channels)},
        "labels": labels,
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }
    fingerprint = {
        "spacings": [[1, 1, 1]],
        "shapes_after_crop": [[1, 1, 1]],
        "median_relative_size_after_cropping": 1.0,
    }
    with tempfile.TemporaryDirectory() as root:
        folders = {f"nnUNet_{name}": str(Path(root, name)) for name in ("raw", "preprocessed")}
        for folder, name, content in (
            ("raw", "dataset", dataset),
            ("preprocessed", "dataset_fingerprint", fingerprint),
        ):
            place = Path(root, folder, "Dataset902_Described")
            (place / "imagesTr").mkdir(parents=True)
            (place / f"{name}.json").write_text(json.dumps(content))
        with patch.dict(os.environ, folders):
            return DinoMed3DPlanner(902)


def stock_rule(stats: DatasetStats, cases: int = 100) -> CnnRule:
    """nnU-Net's rule for training images.

    Args:
        stats: the images.
        cases: number of training cases, which bounds the batch.
    """
    planner = _planner(stats.channels - stats.cascade_channels, max(2, stats.classes))
    voxels = float(math.prod(stats.shape)) * cases
    looked_at: dict[str, Any] = {}

    @cache
    def rule(memory_gib: float) -> CnnPlan:
        spacing, shape = np.array(stats.spacing), np.array(stats.shape)
        return cnn_plan(planner.stock_entry(memory_gib, spacing, shape, "", voxels, looked_at))

    return rule


@cache
def _rule(name: str) -> CnnRule:
    return stock_rule(FINGERPRINTS[name].stats, FINGERPRINTS[name].cases)


def size(name: str, memory_gib: float, forced: Mapping[str, Any] | None = None) -> Sizing:
    """The plan for one kind of data.

    Args:
        name: a key of FINGERPRINTS.
        memory_gib: memory target, GiB.
        forced: fields of NetworkSpec that a user has set.
    """
    return size_configuration(FINGERPRINTS[name].stats, _rule(name), memory_gib, forced)
