"""The optimizer and its one-cycle schedule, as values of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from pointseg.config.validation import require


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """Optimizer and learning rate schedule; the defaults are those of PTv3 on indoor data."""

    name: str = "adamw"
    """The optimizer: adamw or sgd."""
    lr: float = 6e-3
    """The largest learning rate, reached at the end of the warm-up."""
    block_lr_scale: float = 0.1
    """Learning rate of parameters with ``block`` in their name, relative to the others."""
    weight_decay: float = 0.05
    """Weight decay of all parameters, biases and norms included."""
    warmup_fraction: float = 0.05
    """Share of the steps in which the learning rate rises."""
    div: float = 10.0
    """The first learning rate is the largest divided by this."""
    final_div: float = 1000.0
    """The last learning rate is the first divided by this."""
    momentum: float = 0.9
    """Momentum of SGD, first beta of AdamW; used as it is only if ``cycle_momentum`` is False."""
    nesterov: bool = True
    """Whether SGD uses Nesterov momentum."""
    cycle_momentum: bool = True
    """True: the momentum (AdamW's first beta) falls from 0.95 to 0.85 while the learning rate rises,
    and rises afterwards, as in PTv3's released code. False: it stays at ``momentum``."""
    clip_norm: float | None = None
    """Gradients are clipped to this norm. None: no clipping."""

    def __post_init__(self) -> None:
        decay, momentum, clip = self.weight_decay, self.momentum, self.clip_norm
        checks = [
            ("name", self.name in ("adamw", "sgd"), "adamw or sgd"),
            *(
                (name, 0 < getattr(self, name) < inf, "above 0")
                for name in ("lr", "block_lr_scale", "div", "final_div")
            ),
            ("weight_decay", 0 <= decay < inf, ">= 0"),
            ("warmup_fraction", 0 <= self.warmup_fraction <= 1, "0 to 1"),
            ("momentum", 0 <= momentum < 1, "in [0, 1)"),
            ("nesterov", not self.nesterov or momentum > 0, "false if 'momentum' is 0"),
            ("clip_norm", clip is None or 0 < clip < inf, "above 0, or null"),
        ]
        for name, is_valid, what in checks:
            require("OptimizerSpec", name, getattr(self, name), is_valid, what)
