"""Stage I's batches: slices with their neighbours, each of another case, through nnU-Net's loader."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import Tensor

from dinomed3d.training.data.augmentation import (
    SHALLOWEST,
    SpatialAugmentation,
    spatial_augmentation,
)
from dinomed3d.training.data.replicated_ends import CasesWithReplicatedEnds

Augmenter: TypeAlias = NonDetMultiThreadedAugmenter | SingleThreadedAugmenter
"""What nnU-Net's loop draws batches from: worker processes, or none."""


MIN_DEPTH = SHALLOWEST + 1
"""Slices of a patch before it is augmented, at least, and odd: one is in the middle."""


class StageOneLoader(nnUNetDataLoader):
    """nnU-Net's loader, but no case comes twice in a batch before all have come once."""

    def get_indices(self) -> np.ndarray:
        """Identifiers of a batch's cases."""
        rounds = -(-self.batch_size // len(self.indices))
        drawn = [np.random.permutation(self.indices) for _ in range(rounds)]
        return np.concatenate(drawn)[: self.batch_size]


class SlicesAsChannels(BasicTransform):
    """Makes the middle slice of a patch and its neighbours channels, in the order of `stack_slices`.

    (C, D, H, W) becomes (K * C, H, W), and its target (R, D, H, W) that of the middle slice, (R, H, W). Of
    data of single slices, (C, H, W), the slice is its own neighbour.
    """

    def __init__(self, slices: int) -> None:
        super().__init__()
        self.slices = slices

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        if img.ndim == 3:
            return img.repeat(self.slices, 1, 1)
        first = (img.shape[1] - self.slices) // 2
        return img[:, first : first + self.slices].transpose(0, 1).flatten(0, 1)

    def _apply_to_segmentation(self, segmentation: Tensor, **params: Any) -> Tensor:
        return (
            segmentation if segmentation.ndim == 3 else segmentation[:, segmentation.shape[1] // 2]
        )


def stage_one_batches(
    trainer: nnUNetTrainer,
    cases: list[str],
    *,
    augmentation: SpatialAugmentation,
    slices: int,
    count: int,
    foreground_share: float,
) -> Augmenter:
    """Batches {"data": (N, K * C, H, W), "target": (N, R, H, W)} of slices of the training cases.

    Slices are rotated in plane, so that a slice and its neighbours stay aligned; single slices are augmented
    as in stage II. The previous configuration's labels (cascade) are not read.

    Args:
        trainer: whose dataset, labels and transforms are used.
        cases: identifiers.
        augmentation: of stage II.
        slices: K, odd.
        count: N, slices in a batch.
        foreground_share: share of the slices that are drawn around a voxel of foreground.
    """
    configuration, labels = trainer.configuration_manager, trainer.label_manager
    patch = configuration.patch_size
    dataset: Any = trainer.dataset_class(trainer.preprocessed_dataset_folder, cases)
    if len(patch) == 3:
        depth = max(slices, MIN_DEPTH)
        patch = (depth, *patch[1:])
        augmentation = spatial_augmentation(patch, configuration.spacing, in_plane=True)
        dataset = CasesWithReplicatedEnds(dataset, depth // 2)
    transforms = nnUNetTrainer.get_training_transforms(
        patch,
        augmentation.rotation,
        None,  # no deep supervision
        augmentation.mirrored,
        augmentation.in_plane,
        use_mask_for_norm=configuration.use_mask_for_norm,
        regions=labels.foreground_regions if labels.has_regions else None,
        ignore_label=labels.ignore_label,
    )
    loader = StageOneLoader(
        dataset,
        count,
        augmentation.region,
        patch,
        labels,
        oversample_foreground_percent=foreground_share,
        transforms=ComposeTransforms([transforms, SlicesAsChannels(slices)]),
    )
    return augmenter(loader, pin_memory=trainer.device.type == "cuda")


def augmenter(loader: nnUNetDataLoader, *, pin_memory: bool) -> Augmenter:
    """Worker processes for a loader, as many as nnU-Net allows (nnUNet_n_proc_DA); they start when first asked.

    Args:
        loader: infinite.
        pin_memory: whether batches go to a GPU.
    """
    count = get_allowed_n_proc_DA()
    if count == 0:
        return SingleThreadedAugmenter(loader, None)
    return NonDetMultiThreadedAugmenter(
        loader,
        None,
        count,
        num_cached=max(6, count // 2),
        pin_memory=pin_memory,
        wait_time=0.002,
    )


def finish(batches: Augmenter) -> None:
    """End a loader's worker processes; they start again if another batch is asked for."""
    if isinstance(batches, NonDetMultiThreadedAugmenter):
        batches._finish()


def loader_of(batches: Augmenter) -> nnUNetDataLoader:
    """The loader behind them."""
    parallel = isinstance(batches, NonDetMultiThreadedAugmenter)
    return batches.generator if parallel else batches.data_loader
