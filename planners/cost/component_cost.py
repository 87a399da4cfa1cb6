"""Cost of one component of the network in a step, as its layers are added to it."""

from __future__ import annotations

from dataclasses import dataclass

HALF, FULL = 2, 4  # bytes of bfloat16 or float16, and of float32


@dataclass(kw_only=True)
class ComponentCost:
    """Cost of one component of the network in one step."""

    parameters: int = 0
    """Weights and biases."""
    trained: int = 0
    """Weights and biases that learn in this step."""
    flops: float = 0.0
    """Operations of the forward pass; a multiplication and an addition count as two."""
    backward_flops: float = 0.0
    """Operations of the backward pass, including recomputation for it."""
    saved: float = 0.0
    """Bytes of activations kept for the backward pass."""
    copies: float = 0.0
    """Bytes of autocast's half-precision copies of weights."""

    def linear(
        self, inputs: int, outputs: int, times: float, *, bias: bool = True, trained: bool = True,
        input_grad: bool = True,
    ) -> None:  # fmt: skip
        """Add a linear layer or convolution: `inputs` per output value, applied at `times` positions."""
        weights = inputs * outputs
        self.parameters += weights + outputs * bias
        self.trained += (weights + outputs * bias) * trained
        self.copies += HALF * weights
        self.flops += 2 * weights * times
        self.backward_flops += 2 * weights * times * (trained + input_grad)

    def vector(self, values: int, *, trained: bool = True) -> None:
        """Add weights that form no matrix: norms, gains, single tokens."""
        self.parameters += values
        self.trained += values * trained

    def add(self, other: ComponentCost, times: int) -> None:
        """Add so many times another cost."""
        self.parameters += other.parameters * times
        self.trained += other.trained * times
        self.flops += other.flops * times
        self.backward_flops += other.backward_flops * times
        self.saved += other.saved * times
        self.copies += other.copies * times
