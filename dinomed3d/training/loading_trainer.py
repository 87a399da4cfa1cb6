"""The part of the trainer that loads patches: how they are augmented, their halo, and stage I's own batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from dinomed3d.networks import NetworkSpec
from dinomed3d.training.data.augmentation import SpatialAugmentation, spatial_augmentation
from dinomed3d.training.data.inner_target import InnerTarget
from dinomed3d.training.data.replicated_ends import CasesWithReplicatedEnds
from dinomed3d.training.data.stage_one_loader import (
    Augmenter,
    finish,
    loader_of,
    stage_one_batches,
)
from dinomed3d.training.resumable_trainer import ResumableTrainer
from dinomed3d.training.step.distributed import processes
from dinomed3d.training.step.stages import deep_supervision_scales


def halo_of(spec: NetworkSpec, patch_size: Sequence[int]) -> int:
    """Slices beyond each end of a patch that the embedding reads as neighbours."""
    is_2d = len(patch_size) == 2
    return 0 if is_2d or "encoder" not in spec.components else spec.slices // 2


class LoadingTrainer(ResumableTrainer):
    """nnU-Net's trainer with our patches; its loaders and transforms are used as they are."""

    augmentation: SpatialAugmentation
    """How patches are rotated, scaled and mirrored, once it is configured."""
    patches: Augmenter | None
    """Stage II's batches, while stage I has its own."""

    @property
    def halo(self) -> int:
        """Slices at both ends of a patch that the embedding reads as neighbours and nothing else."""
        return halo_of(self.spec, self.configuration_manager.patch_size)

    @property
    def slices_per_step(self) -> int:
        """Slices of a step of stage I in this process, for which its memory is planned."""
        token, patch = self.spec.voxels_per_token, self.configuration_manager.patch_size
        tokens = -(-patch[-2] // token) * -(-patch[-1] // token)
        return self.recipe.slices_per_step(tokens, processes=processes())

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(  # noqa: N802  nnU-Net's name
        self,
    ) -> tuple[Any, bool, Any, tuple[int, ...]]:
        """Of 3D patches by their spacing (`spatial_augmentation`), of single slices as nnU-Net does."""
        patch, spacing = self.configuration_manager.patch_size, self.configuration_manager.spacing
        if len(patch) == 2:
            found = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            self.augmentation = SpatialAugmentation(*found)
            return self.augmentation
        self.augmentation = spatial_augmentation(patch, spacing)
        self.inference_allowed_mirroring_axes = self.augmentation.mirrored
        where = "in plane" if self.augmentation.in_plane else "in 3D"
        self.print_to_log_file(
            f"patches are rotated and scaled {where} (spacing {list(spacing)} mm)"
        )
        return self.augmentation

    def get_dataloaders(self) -> tuple[Augmenter, Augmenter]:
        """As nnU-Net, with a halo; in stage I training has batches of its own, and nnU-Net's wait for stage II."""
        whole = self.configuration_manager
        depth, *sides = whole.patch_size
        if self.halo:
            self.configuration_manager = ConfigurationManager(
                whole.configuration | {"patch_size": [depth + 2 * self.halo, *sides]}
            )
        training, validation = super().get_dataloaders()
        self.configuration_manager = whole
        if self.stage == 1:
            finish(training)
            self.patches, training = training, self._stage_one_batches(loader_of(training).indices)
        return training, validation

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """As nnU-Net, with repeated end slices as the neighbours of end slices."""
        depth = self.configuration_manager.patch_size[0] - 2 * self.halo  # as loaders see it
        training, validation = super().get_tr_and_val_datasets()
        if not self.halo:
            return training, validation
        return (
            CasesWithReplicatedEnds(training, self.halo, min_depth=depth),
            CasesWithReplicatedEnds(validation, self.halo, min_depth=depth),
        )

    def get_training_transforms(
        self, patch_size: Any, rotation: Any, scales: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """As nnU-Net, but targets lose the halo before they are made smaller for deep supervision."""
        without = None if self.halo else scales
        transforms = super().get_training_transforms(patch_size, rotation, without, *args, **kwargs)
        return self._inner_targets(transforms, scales)

    def get_validation_transforms(self, scales: Any, *args: Any, **kwargs: Any) -> Any:
        """As `get_training_transforms`."""
        without = None if self.halo else scales
        transforms = super().get_validation_transforms(without, *args, **kwargs)
        return self._inner_targets(transforms, scales)

    def _inner_targets(self, transforms: Any, scales: Any) -> Any:
        if not self.halo:
            return transforms
        steps = [transforms, InnerTarget(self.halo)]
        if scales is not None:
            depth, *sides = self.configuration_manager.patch_size  # as loaders see it
            inner = deep_supervision_scales(self.spec, [depth - 2 * self.halo, *sides])
            steps.append(DownsampleSegForDSTransform(ds_scales=inner))
        return ComposeTransforms(steps)

    def _stage_one_batches(self, cases: list[str]) -> Augmenter:
        return stage_one_batches(
            self,
            cases,
            augmentation=self.augmentation,
            slices=self.spec.slices,
            count=self.slices_per_step,
            foreground_share=self.recipe.foreground_share,
        )
