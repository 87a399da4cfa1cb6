"""Twelve kinds of data, as the planner knows them after resampling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from planners.dataset_stats import DatasetStats


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
            voxels=math.prod(self.shape) * self.cases,
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
