"""AdamW over what learns in a stage: which parameters go together, and their rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dinomed3d.training.recipe import Recipe


def build_optimizer(
    network: nn.Module, recipe: Recipe, *, stage: int, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW with a group for each role; the rate itself is set before each step (`set_rates`).

    Args:
        network: a DinoMed3D whose stage has begun.
        recipe: peak rates and decay.
        stage: 1 or 2.
        device: of the network.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            kept = name.endswith(("cls_token", "reg_token", "pos_embed"))
            role = (name.startswith("encoder."), parameter.ndim > 1 and not kept)
            groups.setdefault(role, []).append(parameter)
    optimizer = torch.optim.AdamW(
        # by role, not by rate: a resume with other rates finds its groups again. The first one's
        # rate is what nnU-Net logs and plots: that of the parts outside the encoder
        [{"params": groups[r], "inside": r[0], "decayed": r[1]} for r in sorted(groups)],
        lr=recipe.rate_decoder,
        betas=(0.9, 0.98),
        fused=device.type in ("cuda", "cpu"),
    )
    set_peaks(optimizer, recipe, stage=stage)
    return optimizer


def set_peaks(optimizer: torch.optim.Optimizer, recipe: Recipe, *, stage: int) -> None:
    """Peak rates and decay of every group, as the recipe has them now."""
    outside, inside = (
        (recipe.rate_proxy, recipe.rate_encoder)
        if stage == 1
        else (recipe.rate_decoder, recipe.rate_adapters)
    )
    for group in optimizer.param_groups:
        group["peak"] = inside if group["inside"] else outside
        group["weight_decay"] = recipe.weight_decay if group["decayed"] else 0.0


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put an optimizer's state back, also one from another kind of device.

    Args:
        optimizer: made for the same parameters.
        state: of its `state_dict`; changed in place.
    """
    for group in state["param_groups"]:
        # which kernels run is this device's matter, and by it torch decides where steps are counted
        group["fused"] = optimizer.defaults["fused"]
    optimizer.load_state_dict(state)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Rates of the coming step: each group's peak times the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
