"""Compiles the kernels of sparse convolutions before they are timed, on all cores: one at a time takes minutes.

Kernels are kept on disk by Triton, so that later parts, in other processes, find them.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from gpu_backbones import backbone
from gpu_ceilings import tf32
from gpu_equal import PRECISIONS
from gpu_parts import Bench, attempted
from gpu_points import NETWORKS
from gpu_scenes import single
from torch import nn

from pointseg.ops.convolution.grid import Grid
from pointseg.ops.convolution.layers import InverseConv3d, StridedConv3d, SubmanifoldConv3d

LAYERS = (SubmanifoldConv3d, StridedConv3d, InverseConv3d)
VOXELS = 400
"""Enough for every offset of a kernel to be met."""
TRAINED = "float16"
"""The precision of training steps; in the others networks predict alone."""


@dataclass(frozen=True)
class Layer:
    """A convolution whose kernels are compiled."""

    kind: type[nn.Module]
    shape: tuple[int, ...]
    """Channels in and out, and for submanifold ones the size of the kernel."""
    precision: str
    """Of `PRECISIONS`."""
    rounded: bool
    """Whether float32 is multiplied as TF32."""
    trained: bool
    """Whether gradients are computed, too."""


def compiling(bench: Bench) -> None:
    """Compile what the networks need: full-size ones as they are timed, narrower ones as they are compared."""
    layers = dict.fromkeys(_needed(bench))
    ordered = sorted(layers, key=lambda layer: -sum(layer.shape[:2]))  # the longest first
    work, start = partial(_compile, bench.device), time.monotonic()
    if bench.tiny:
        _report(bench, map(work, ordered[:2]), 2, start)
        return
    with multiprocessing.get_context("fork").Pool(
        max(1, (os.cpu_count() or 2) - 1), torch.set_num_threads, (1,)
    ) as pool:
        _report(bench, pool.imap_unordered(work, ordered), len(ordered), start)


def _report(bench: Bench, errors: Iterable[Any], count: int, start: float) -> None:
    """Note errors of layers, and how far it has come."""
    for number, error in enumerate(errors, 1):
        if error is not None:
            bench.note(f"layer {number}", error)
        if number % 20 == 0 or number == count:
            seconds = round(time.monotonic() - start, 1)
            bench.note("compiled", {"layers": number, "of": count, "s": seconds})


def _needed(bench: Bench) -> Iterable[Layer]:
    for name in NETWORKS:
        for precision in PRECISIONS:
            shapes = _layers(name, "tiny" if bench.tiny else "full")
            rounded = precision == "float32"
            for kind, shape in shapes:
                yield Layer(kind, shape, precision, rounded, trained=precision == TRAINED)
            for kind, shape in _layers(name, "tiny" if bench.tiny else "narrow"):
                yield Layer(kind, shape, precision, rounded=False, trained=True)


def _layers(name: str, size: str) -> Sequence[tuple[type[nn.Module], tuple[int, ...]]]:
    """Kinds and shapes of the convolutions of a network, each once."""
    with torch.device("meta"):
        network = backbone(name, size)
    found: dict[Any, None] = {}
    for layer in network.modules():
        if isinstance(layer, LAYERS) and layer.kernel_size > 1:
            size_of = (layer.kernel_size,) if isinstance(layer, SubmanifoldConv3d) else ()
            found[type(layer), (layer.in_channels, layer.out_channels, *size_of)] = None
    return list(found)


def _compile(device: torch.device, layer: Layer) -> dict[str, str] | None:
    """Run a layer on a few voxels; its error, if it has one."""
    found = attempted(partial(_run, device, layer))
    return found if isinstance(found, dict) else None


def _run(device: torch.device, layer: Layer) -> None:
    cloud, dtype = single(VOXELS).to(device), PRECISIONS[layer.precision]
    grid = Grid(cloud.grid_coord, cloud.batch)
    module = layer.kind(*layer.shape, bias=False).to(device, dtype)
    rows = len(grid.coarser(2)[0]) if layer.kind is InverseConv3d else VOXELS
    feat = torch.randn(
        rows, layer.shape[0], device=device, dtype=dtype, requires_grad=layer.trained
    )
    saved: AbstractContextManager[object] = nullcontext() if layer.trained else torch.no_grad()
    with tf32(layer.rounded), saved:
        out = module(feat, grid)
        if layer.trained:
            out.sum().backward()
