"""AdamW or SGD with a parameter group for the backbone's blocks, and the one-cycle schedule."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from pointseg.config.optimizer import OptimizerSpec

BLOCK = "block"
"""Parameters with this in their name are trained at ``block_lr_scale`` of the rate."""


def build_optimizer(module: nn.Module, spec: OptimizerSpec) -> Optimizer:
    """Over all parameters that are trained: a group of those without ``block`` in their name, one of the rest.

    A group without parameters is left out.

    Raises:
        ValueError: nothing is trained.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError("build_optimizer: 'module' must have parameters that require a gradient")
    others = [p for name, p in named if BLOCK not in name]
    blocks = [p for name, p in named if BLOCK in name]
    # The schedule sets the rates of its first step; before, they are the largest ones.
    groups: list[dict[str, Any]] = [
        {"params": others, "lr": spec.lr},
        {"params": blocks, "lr": spec.lr * spec.block_lr_scale},
    ]
    groups = [group for group in groups if group["params"]]
    if spec.name == "sgd":
        return SGD(
            groups, momentum=spec.momentum, nesterov=spec.nesterov, weight_decay=spec.weight_decay
        )
    return AdamW(groups, betas=(spec.momentum, 0.999), weight_decay=spec.weight_decay)


def build_scheduler(optimizer: Optimizer, spec: OptimizerSpec, *, steps: int) -> OneCycleLR:
    """Rates rise along a cosine from lr / div to lr, then fall along one to lr / div / final_div.

    Args:
        optimizer: as :func:`build_optimizer` makes it, not yet used.
        spec: the same.
        steps: of the whole run; ``step()`` is called after each but the last.

    Raises:
        ValueError: no steps.

    Source: Smith 2017, arXiv:1708.07120, as PyTorch's OneCycleLR has it.
    """
    if steps < 1:
        raise ValueError(f"build_scheduler: 'steps' must be >= 1, got {steps}")
    warmup = spec.warmup_fraction
    if warmup * steps == 1:  # PyTorch divides by the length of the rise, which is then 0 steps
        warmup = 0.0
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=float(warmup),
        anneal_strategy="cos",
        cycle_momentum=spec.cycle_momentum,
        div_factor=spec.div,
        final_div_factor=spec.final_div,
    )
