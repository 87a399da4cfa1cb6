"""AdamW for the parameters that learn in a stage: parameter groups and their learning rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dinomed3d.training.settings.recipe import Recipe


def build_optimizer(
    network: nn.Module, recipe: Recipe, *, stage: int, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW with one parameter group per role; rates are set before each step (`set_rates`).

    Args:
        network: a DinoMed3D after `begin_stage`.
        recipe: peak learning rates and weight decay.
        stage: 1 or 2.
        device: of the network.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            token = name.endswith(("cls_token", "reg_token", "pos_embed"))
            role = (name.startswith("encoder."), parameter.ndim > 1 and not token)
            groups.setdefault(role, []).append(parameter)
    optimizer = torch.optim.AdamW(
        # Groups follow roles, not learning rates, so that a resume with others finds the same groups.
        # nnU-Net logs the first group's learning rate: that of the modules outside the encoder.
        [{"params": groups[r], "inside": r[0], "decayed": r[1]} for r in sorted(groups)],
        lr=recipe.rate_decoder,
        betas=(0.9, 0.98),
        fused=device.type in ("cuda", "cpu"),
    )
    set_peaks(optimizer, recipe, stage=stage)
    return optimizer


def set_peaks(optimizer: torch.optim.Optimizer, recipe: Recipe, *, stage: int) -> None:
    """Set every group's peak learning rate and weight decay to the recipe's."""
    outside, inside = (
        (recipe.rate_proxy, recipe.rate_encoder)
        if stage == 1
        else (recipe.rate_decoder, recipe.rate_adapters)
    )
    for group in optimizer.param_groups:
        group["peak"] = inside if group["inside"] else outside
        group["weight_decay"] = recipe.weight_decay if group["decayed"] else 0.0


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore an optimizer's state, also from another kind of device.

    Args:
        optimizer: of the same parameters.
        state: its `state_dict`; changed in place.
    """
    for group in state["param_groups"]:
        # whether kernels are fused depends on this device; torch places the step counters by it
        group["fused"] = optimizer.defaults["fused"]
    optimizer.load_state_dict(state)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rates of the next step: each group's peak times the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
