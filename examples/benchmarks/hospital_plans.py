"""The plans of the small models of `hospital.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What is planned and trained; axes as the plan has them, after its transposition."""

    name: str
    labels: int
    """Foreground labels 1, 2, ..."""
    regions: bool = False
    """Predict overlapping regions of these labels instead of the labels."""
    spacing_mm: tuple[float, ...] = (1.5, 1.5, 1.5)
    """Of the axes of the patch."""
    patch: tuple[int, ...] = (96, 96, 96)
    """Two axes: a 2d plan."""
    thick_stages: int = 0
    """The first stages leave the first axis alone."""
    transpose: tuple[int, int, int] = (0, 1, 2)
    normalization: str = "CTNormalization"
    features: tuple[int, ...] = (8, 16, 32, 64)
    training_patch: tuple[int, ...] | None = None
    steps: int = 200
    seed: int = 0

    @property
    def configuration(self) -> str:
        return "3d_fullres" if len(self.patch) == 3 else "2d"

    @property
    def dataset(self) -> dict[str, Any]:
        """dataset.json."""
        every = list(range(1, self.labels + 1))
        labels: dict[str, Any] = {"background": 0}
        if self.regions:  # each within the one before, written over it
            middle = every[: max(2, len(every) // 2)]
            labels |= {"all": every, "some": middle, "one": 1}
        else:
            labels |= {f"organ {k}": k for k in every}
        content = {
            "channel_names": {"0": "CT" if self.normalization.startswith("CT") else "MRI"},
            "labels": labels,
            "numTraining": 1,
            "file_ending": ".nii.gz",
        }
        return content | ({"regions_class_order": [3, 2, 1]} if self.regions else {})

    def plans(self, intensities: dict[str, float]) -> dict[str, Any]:
        """plans.json, with nnU-Net's defaults where this benchmark has no wish."""
        dim, stages = len(self.patch), len(self.features)
        thick = [1] + [3] * (dim - 1), [1] + [2] * (dim - 1)
        strides = [[1] * dim] + [
            thick[1] if 0 < i <= self.thick_stages else [2] * dim for i in range(1, stages)
        ]
        image = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
        resample = "resample_data_or_seg_to_shape"
        configuration = {
            "data_identifier": f"nnUNetPlans_{self.configuration}",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": list(self.patch),
            "median_image_size_in_voxels": list(self.patch),
            "spacing": list(self.spacing_mm),
            "normalization_schemes": [self.normalization],
            "use_mask_for_norm": [False],
            "resampling_fn_data": resample,
            "resampling_fn_data_kwargs": image,
            "resampling_fn_seg": resample,
            "resampling_fn_seg_kwargs": image | {"is_seg": True, "order": 1},
            "resampling_fn_probabilities": resample,
            "resampling_fn_probabilities_kwargs": image | {"order": 1},
            "batch_dice": False,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": stages,
                    "features_per_stage": list(self.features),
                    "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                    "kernel_sizes": [
                        thick[0] if i < self.thick_stages else [3] * dim for i in range(stages)
                    ],
                    "strides": strides,
                    "n_conv_per_stage": [2] * stages,
                    "n_conv_per_stage_decoder": [2] * (stages - 1),
                    "conv_bias": True,
                    "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
        return {
            "dataset_name": "Dataset900_Hospital",
            "plans_name": "nnUNetPlans",
            "original_median_spacing_after_transp": [1.5, 1.5, 1.5],
            "original_median_shape_after_transp": [200, 270, 270],
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": list(self.transpose),
            "transpose_backward": [self.transpose.index(axis) for axis in range(3)],
            "configurations": {self.configuration: configuration},
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": intensities},
        }
