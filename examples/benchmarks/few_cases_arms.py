"""The arms of `few_cases.py`: what is trained, and how it differs from the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torchio
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from torch import Tensor

CONFIGURATION = "3d_fullres"
"""nnU-Net's configuration that all arms train."""
OURS, STOCK, PRIMUS = "DinoMed3DTrainer", "nnUNetTrainer", "nnUNet_PrimusV3S_Trainer"
"""Trainers, by the names under which nnU-Net's commands find them."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way of training."""

    what: str
    """What it is, for the table."""
    trainer: str = OURS
    """Name of its trainer."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """DINOMED3D_ variables, without the prefix."""
    permuted: bool = False
    """Whether the encoder's tensors are the trained ones with their entries permuted."""
    bias_field: bool = False
    """Whether half of the training patches get a random bias field (MR), which nnU-Net's augmentation lacks."""
    ema: float = 0.0
    """Decay of an exponential average of all weights over steps, which is scored instead of them; 0 for none."""
    full: bool = False
    """Whether the whole encoder learns in stage II, at the rate of adapters."""
    planner: str = ""
    """nnU-Net's planner whose plan it takes; empty for that of all others, its default one."""
    patch_multiple: int = 1
    """Number that the sides of its patch must be multiples of; smaller ones are enlarged."""


TOKENS = {"COMPONENTS": "detail,encoder"}
"""What the arms with tokens share; the encoder and its weights are the caller's."""
ALONE = {"COMPONENTS": "detail"}
TUNED = {"COMPONENTS": "detail,encoder,lora,adapters"}
ARMS: Mapping[str, Arm] = {
    "dino": Arm(what="ours: CNN with pretrained tokens", settings=TOKENS),
    "permuted": Arm(what="the same, encoder's entries permuted", settings=TOKENS, permuted=True),
    "cnn": Arm(what="the CNN alone (nnU-Net's network, our optimiser)", settings=ALONE),
    "stock": Arm(what="nnU-Net's own trainer", trainer=STOCK),
    "cnn-bias": Arm(
        what="the CNN alone, bias fields in its augmentation", settings=ALONE, bias_field=True
    ),
    "dino-bias": Arm(
        what="ours, bias fields in its augmentation", settings=TOKENS, bias_field=True
    ),
    # other networks that nnU-Net trains
    "resenc-m": Arm(
        what="nnU-Net's trainer with ResEnc-M", trainer=STOCK, planner="nnUNetPlannerResEncM"
    ),
    "resenc-l": Arm(
        what="nnU-Net's trainer with ResEnc-L", trainer=STOCK, planner="nnUNetPlannerResEncL"
    ),
    "dino-resenc-m": Arm(
        what="ours with ResEnc-M as its CNN", settings=TOKENS, planner="nnUNetPlannerResEncM"
    ),
    "primus-v3-s": Arm(what="PrimusV3-S with its trainer", trainer=PRIMUS, patch_multiple=8),
    # ablations and alternatives
    "one-slice": Arm(
        what="ours, one slice per embedding instead of three", settings=TOKENS | {"SLICES": "1"}
    ),
    "every-slice": Arm(
        what="ours, every slice encoded", settings=TOKENS | {"SLICES_PER_TOKEN": "1"}
    ),
    "token-8": Arm(what="ours, tokens of 8 voxels", settings=TOKENS | {"VOXELS_PER_TOKEN": "8"}),
    "stage-one": Arm(
        what="ours, after one evaluation's steps of stage I",
        settings=TOKENS | {"STAGE1_EPOCHS": "1", "STAGE1_SLICES": "24"},
    ),
    "lora": Arm(
        what="ours, last third with low-rank updates",
        settings=TOKENS | {"COMPONENTS": "detail,encoder,lora"},
    ),
    "full": Arm(
        what="ours, the whole encoder learning",
        settings=TOKENS | {"RATE_ADAPTERS": "5e-05"},
        full=True,
    ),
    "dino-ema": Arm(what="ours, an average of its weights", settings=TOKENS, ema=0.99),
    "cnn-ema": Arm(what="the CNN alone, an average of its weights", settings=ALONE, ema=0.99),
    "adapters": Arm(what="ours, last third with low-rank updates and 3D adapters", settings=TUNED),
    "permuted-adapters": Arm(
        what="low-rank updates and 3D adapters, encoder's entries permuted",
        settings=TUNED,
        permuted=True,
    ),
    "attention": Arm(
        what="ours, last third with low-rank updates and attention along depth",
        settings=TUNED | {"INTER_SLICE": "attention"},
    ),
}
"""The arms by name."""
SET_HERE = {name for arm in ARMS.values() for name in arm.settings} - {"VOXELS_PER_TOKEN"}
"""Variables that differ between arms, so the caller's own are not kept."""

BIAS_FIELD = 0.5
"""Largest coefficient of the bias field's polynomial: TorchIO's default, `artifacts.py`'s moderate strength."""


class BiasField(ImageOnlyTransform):  # type: ignore[misc]
    """TorchIO's random bias field on a normalised patch, whose darkest voxel counts as no signal."""

    def __init__(self) -> None:
        """Build the transform."""
        super().__init__()
        self.field = torchio.RandomBiasField(coefficients=BIAS_FIELD)

    def _apply_to_image(self, img: Tensor, **_: Any) -> Tensor:
        spread, mean = torch.std_mean(img, dim=(1, 2, 3), keepdim=True)
        gained = self.field(img - img.amin(dim=(1, 2, 3), keepdim=True))
        now_spread, now_mean = torch.std_mean(gained, dim=(1, 2, 3), keepdim=True)
        # normalised again, as the preprocessing of an image with such a field would
        return (gained - now_mean) / now_spread.clamp_min(1e-6) * spread + mean
