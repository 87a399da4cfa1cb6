"""AdamW or SGD with a group of its own for the backbone's blocks, and the one-cycle schedule (section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

BLOCK = "block"
"""Parameters with this in their name are trained at ``block_lr_scale`` of the rate."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """How parameters are moved; section 3's indoor numbers are the defaults."""

    name: str = "adamw"
    """adamw or sgd."""
    lr: float = 6e-3
    """Largest rate, reached at the end of the warm-up."""
    block_lr_scale: float = 0.1
    """Rate of parameters named ``block``, relative to the others."""
    weight_decay: float = 0.05
    """Of all parameters, biases and norms included."""
    warmup_fraction: float = 0.05
    """Share of the steps in which the rate rises."""
    div: float = 10.0
    """The first rate is the largest divided by this."""
    final_div: float = 1000.0
    """The last rate is the first divided by this."""
    momentum: float = 0.9
    """Of SGD; AdamW's first beta. Only if it is not cycled."""
    nesterov: bool = True
    """Of SGD only."""
    cycle_momentum: bool = True
    """Momentum (AdamW's first beta) falls from 0.95 to 0.85 while the rate rises, and rises after, as
    in the references; False: it stays at ``momentum``."""
    clip_norm: float | None = None
    """Gradients are scaled down to this norm; None: they are not."""

    def __post_init__(self) -> None:
        _require("name", self.name, self.name in ("adamw", "sgd"), "adamw or sgd")
        for name in ("lr", "block_lr_scale", "div", "final_div"):
            value = getattr(self, name)
            _require(name, value, 0 < value < float("inf"), "above 0")
        decay, momentum, clip = self.weight_decay, self.momentum, self.clip_norm
        _require("weight_decay", decay, 0 <= decay < float("inf"), ">= 0")
        _require("warmup_fraction", self.warmup_fraction, 0 <= self.warmup_fraction <= 1, "0 to 1")
        _require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
        _require(
            "nesterov", self.nesterov, not self.nesterov or momentum > 0, "false if 'momentum' is 0"
        )
        _require("clip_norm", clip, clip is None or 0 < clip < float("inf"), "above 0, or null")


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


def _require(name: str, value: object, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"OptimizerSpec: '{name}' must be {what}, got {value!r}")
