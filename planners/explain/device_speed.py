"""Measured speed of a device: throughputs that convert a plan's FLOPs into a rough time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinomed3d.training.step.precision import autocast
from planners.cost.component_cost import ComponentCost

CONVOLUTIONAL = ("neck", "detail", "fusion", "decoder")
"""Components that consist of convolutions; the others consist of matrix products."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Measured throughput, floating-point operations per second."""

    products: float
    """Throughput of matrix products as in a transformer block."""
    convolutions: float
    """Throughput of 3 x 3 x 3 convolutions as in the decoder."""
    device: str
    """Name of the device."""

    def seconds(self, components: Mapping[str, ComponentCost]) -> dict[str, float]:
        """Time of each component, forward and backward, without norms, losses and data loading."""
        return {
            name: (cost.flops + cost.backward_flops)
            / (self.convolutions if name in CONVOLUTIONAL else self.products)
            for name, cost in components.items()
        }


def measure_speed(device: torch.device, *, seconds: float = 1.0) -> Speed:
    """Measure each throughput for about `seconds`, in the precision that training uses on the device."""
    linear = nn.Linear(768, 3072).to(device)
    tokens = torch.randn(2048, 768, device=device)
    conv = nn.Conv3d(64, 64, 3, padding=1).to(device)
    volume = torch.randn(1, 64, 16, 64, 64, device=device)
    return Speed(
        products=2 * 2048 * 768 * 3072 / _time(lambda: linear(tokens), device, seconds),
        convolutions=2 * 16 * 64 * 64 * 64 * 64 * 27 / _time(lambda: conv(volume), device, seconds),
        device=str(device),
    )


def _time(run: Callable[[], Tensor], device: torch.device, seconds: float) -> float:
    """Median seconds of a call."""
    times: list[float] = []
    with torch.inference_mode(), autocast(device):
        _finish(run())  # the first one warms up
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            _finish(run())
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def _finish(result: Tensor) -> None:
    """Wait for the device."""
    float(result.flatten()[0])
