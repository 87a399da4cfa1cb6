"""What a training step costs as a whole: parameters, operations, and the peak of its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planners.cost.component_cost import FULL, ComponentCost

ENCODER = ("embedding", "encoder", "adapters")  # the last components in the backward pass
CNN = ("detail", "decoder")  # nnU-Net's network


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Cost of one training step."""

    components: Mapping[str, ComponentCost]
    """Cost of each component, by its name in the figure; "loss" last."""
    inputs: float
    """Bytes of the batch and its target."""
    lifting: float
    """Temporary bytes at the end of the encoder: enlarged slices, and its last block or its taps."""
    passing: float
    """Temporary bytes at the end of the forward pass, in addition to saved activations."""
    block: float
    """Temporary bytes of the backward pass through one block of the encoder."""
    reentry: float
    """Bytes of the gradients with which the backward pass enters the encoder."""
    resident: int
    """Parameters in memory, including those that the step does not use."""

    def _total(self, field: str) -> Any:
        return sum(getattr(cost, field) for cost in self.components.values())

    @property
    def parameters(self) -> int:
        """Parameters of all components of the step."""
        return int(self._total("parameters"))

    @property
    def trained(self) -> int:
        """Parameters that learn."""
        return int(self._total("trained"))

    @property
    def saved(self) -> float:
        """Bytes of activations kept for the backward pass."""
        return float(self._total("saved"))

    @property
    def flops(self) -> float:
        """Operations of forward and backward pass."""
        return float(self._total("flops") + self._total("backward_flops"))

    @property
    def cnn_flops(self) -> float:
        """Operations of the CNN, nnU-Net's own network."""
        parts = [self.components[name] for name in CNN]
        return float(sum(part.flops + part.backward_flops for part in parts))

    @property
    def token_share(self) -> float:
        """Operations of stage II's step for the tokens (encoder, neck, fusion), as a share of the CNN's."""
        return self.flops / self.cnn_flops - 1

    @property
    def state(self) -> float:
        """Bytes of weights, AdamW's moments, and half-precision copies of weights."""
        return float(FULL * self.resident + 2 * FULL * self.trained + self._total("copies"))

    @property
    def peak(self) -> float:
        """Peak memory in bytes: the largest of four moments.

        At the end of the encoder's forward pass its images are still in memory. At the beginning of the
        backward pass all activations are saved and there is no gradient yet. When the backward pass
        enters the encoder, the other components have only gradients left. At its end there are all
        gradients; in between gradients grow about as evenly as saved activations are freed.
        """
        inside = [self.components[name] for name in ENCODER if name in self.components]
        kept = sum(cost.saved for cost in inside)
        outside = FULL * (self.trained - sum(cost.trained for cost in inside))
        moments = (
            kept + self.lifting,
            self.saved + self.passing,
            kept + outside + self.reentry + self.block,
            FULL * self.trained + self.block,
        )
        return self.state + self.inputs + max(moments)
