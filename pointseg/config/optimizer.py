"""The optimizer and its one-cycle schedule, as data."""

from __future__ import annotations

from dataclasses import dataclass


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


def _require(name: str, value: object, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"OptimizerSpec: '{name}' must be {what}, got {value!r}")
