"""What nnU-Net's augmentation costs on CPU cores, and whether they keep up with a device: measured."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from dinomed3d.training.data.augmentation import (
    SHRINKAGE,
    SpatialAugmentation,
    spatial_augmentation,
)

SAMPLE_VOXELS = 2**23
"""Regions are measured up to this size. Smaller patches of the same shape have regions of the same share: those
of flat patches that are turned in 3D are dozens of times larger than the patches."""
MIN_SIDE = 5
"""Voxels of a side, at least: nnU-Net's blur mirrors three."""


@dataclass(frozen=True, kw_only=True)
class LoaderSpeed:
    """How fast worker processes augment patches of one configuration."""

    seconds_per_voxel: float
    """Of one core per voxel of a patch, all channels together; reading files is not included."""
    processes: int
    """Worker processes that nnU-Net starts (nnUNet_n_proc_DA)."""
    cores: int
    """Cores that this process may use."""

    @property
    def workers(self) -> int:
        """Processes that work at the same time."""
        return max(1, min(self.processes, self.cores))

    def core_seconds(self, voxels: int) -> float:
        """Time of one core for the batch of a step."""
        return self.seconds_per_voxel * voxels

    def note(self, voxels: int, step_seconds: float) -> str:
        """What to do where the workers are slower than the device; empty where they keep up.

        Args:
            voxels: of a step's patches.
            step_seconds: of the device.
        """
        batch_seconds = self.core_seconds(voxels) / self.workers
        if batch_seconds <= step_seconds:
            return ""
        wanted = math.ceil(self.core_seconds(voxels) / step_seconds)
        return (
            f"the loader is the limit: {self.workers} of {self.processes} worker processes at a time give a batch in "
            f"{batch_seconds:.2g} s; nnUNet_n_proc_DA={wanted} on as many cores keeps up, or a plan with smaller "
            "patches (a lower -gpu_memory_target)"
        )


def measure_loader(
    patch: Sequence[int],
    spacing: Sequence[float],
    *,
    channels: int,
    slicewise: bool = False,
    seconds: float = 1.0,
) -> LoaderSpeed:
    """Augment random patches for about `seconds`, with the transforms of training on one core.

    Args:
        patch: (D, H, W) or (H, W), voxels.
        spacing: of the same axes, mm.
        channels: of the images.
        slicewise: whether 3D patches are turned in plane alone, as in stage I.
        seconds: the transforms are drawn at random, so a longer measurement is steadier.
    """

    def of(sample: Sequence[int]) -> SpatialAugmentation:
        if len(sample) == 2:
            return _of_slices(sample)
        return spatial_augmentation(sample, spacing, in_plane=True if slicewise else None)

    whole = channels * math.prod(of(patch).region)
    share = min(1.0, (SAMPLE_VOXELS / whole) ** (1 / len(patch)))
    sample = [min(side, max(MIN_SIDE, round(side * share))) for side in patch]
    augmentation = of(sample)
    transforms = nnUNetTrainer.get_training_transforms(
        sample, augmentation.rotation, None, augmentation.mirrored, augmentation.in_plane
    )
    image = torch.randn(channels, *augmentation.region)
    labels = torch.zeros(1, *augmentation.region, dtype=torch.int16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as nnU-Net's workers
    try:
        count, start = 0, time.thread_time()  # not the clock: other programs may be running
        while not count or time.thread_time() - start < seconds:
            transforms(image=image.clone(), segmentation=labels.clone())
            count += 1
        taken = time.thread_time() - start
    finally:
        torch.set_num_threads(threads)
    return LoaderSpeed(
        seconds_per_voxel=taken / count / math.prod(sample),
        processes=get_allowed_n_proc_DA(),
        cores=_cores(),
    )


def _of_slices(patch: Sequence[int]) -> SpatialAugmentation:
    """nnU-Net's own for 2D patches, turned by up to half a turn."""
    rotation = (-math.pi, math.pi)
    region = get_patch_size(patch, rotation, (0, 0), (0, 0), SHRINKAGE).tolist()
    return SpatialAugmentation(rotation, in_plane=False, region=tuple(region), mirrored=(0, 1))


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
