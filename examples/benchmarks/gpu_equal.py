"""Results of a device compared with those of a CPU in float32: how far apart they may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pointseg.ops.hardware.pieces import decided_for

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OPERATOR_TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
"""Norm of the difference over the norm of the CPU's result, both from inputs that are rounded alike: a few units in
the last place of one rounding, 2^-24, 2^-9 and 2^-12, for results and gradients."""
NETWORK_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-1, "float16": 2e-2}
"""Of features at the end of a network, whose layers round one after the other."""
GRADIENT_TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-1, "float16": 5e-2}
"""Of the gradients of all its parameters together."""

Results = Sequence[Tensor]


@dataclass(frozen=True)
class Side:
    """One of two computations that are compared: in a precision on a device, or in float32 on the CPU."""

    device: torch.device
    dtype: torch.dtype
    wanted: bool = False
    """Whether it is the CPU's, which computes in float32 with numbers of that precision."""

    def of(self, tensor: Tensor) -> Tensor:
        """Numbers rounded to the precision."""
        value = tensor.to(self.dtype)
        return value.float() if self.wanted else value.to(self.device)

    def at(self, tensor: Tensor) -> Tensor:
        """Whole numbers and positions, as they are."""
        return tensor.to(self.device)


def ways_of(device: torch.device) -> AbstractContextManager[object]:
    """The ways of a GPU, also in a trial on a CPU, which then compares them with its own."""
    return decided_for("cuda") if device.type == "cpu" else nullcontext()


def both(
    case: Callable[[Side], Results], device: torch.device, dtype: torch.dtype
) -> tuple[Results, Results]:
    """What is found on the device, and what is wanted."""
    with ways_of(device):
        found = case(Side(device, dtype))
    return found, case(Side(torch.device("cpu"), dtype, wanted=True))


def difference(found: Results, wanted: Results) -> float:
    """Norm of the difference of all tensors together, over the norm of what is wanted.

    Raises:
        ValueError: another number of tensors or other shapes.
    """
    if [a.shape for a in found] != [b.shape for b in wanted]:
        shapes = [[tuple(t.shape) for t in tensors] for tensors in (found, wanted)]
        raise ValueError(f"difference: shapes {shapes[0]} where {shapes[1]} are wanted")
    apart = total = 0.0
    for a, b in zip(found, wanted, strict=True):
        a, b = a.detach().double().cpu(), b.detach().double().cpu()
        apart += float((a - b).square().sum())
        total += float(b.square().sum())
    return (apart / total) ** 0.5 if total else apart**0.5


def within(value: float, tolerance: float) -> bool:
    """Whether a difference is one that is accepted; one that is not finite is none."""
    return value <= tolerance  # NaN compares False


def differentiated(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The result of a function and its gradients with respect to its inputs, at a fixed upstream gradient."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    result = function(*leaves)
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randint(-2, 3, result.shape, generator=generator)  # exact in every precision
    result.backward(upstream.to(result.device, result.dtype))
    return [result, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def judged(errors: dict[str, float], tolerances: dict[str, float]) -> dict[str, Any]:
    """Errors by precision, and whether all of them are accepted."""
    equal = all(within(value, tolerances[name]) for name, value in errors.items())
    return {**{name: float(f"{value:.2g}") for name, value in errors.items()}, "equal": equal}
