"""Sparse convolutions of `gpu.py`: cases for their parity, and the time of a single one.

A device can have two ways for them, kernels in Triton and plain torch; this is the one place that knows the switch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from gpu_equal import Results, Side, differentiated
from gpu_parts import Bench
from gpu_peers import LIBRARIES, is_there, peer_convolution
from gpu_scenes import Scene, single

from pointseg.ops.convolution.grid import Grid
from pointseg.ops.convolution.sparse_convolution import convolve
from pointseg.ops.convolution.triton_choice import SWITCH, kernels_for

CHANNELS, VOXELS = 256, 50_000
"""Of the single convolution: spconv-triton publishes 0.11 ms for it on an H100, and 0.12 for spconv, in float16."""


@contextmanager
def plain_path() -> Iterator[None]:
    """Sparse convolutions by plain torch, where the device would take kernels of its own."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    try:
        yield
    finally:
        del os.environ[SWITCH]
        if before is not None:
            os.environ[SWITCH] = before


def has_kernels(device: torch.device) -> bool:
    """Whether the device takes kernels of its own; where they fail, it takes the plain path and says so once."""
    return kernels_for(torch.empty(1, device=device, dtype=torch.float16)) is not None


def paths(device: torch.device) -> Mapping[str, Callable[[], AbstractContextManager[object]]]:
    """Contexts by what they add to a name; the first is what the device chooses by itself."""
    chosen: Mapping[str, Callable[[], AbstractContextManager[object]]] = {"": nullcontext}
    return chosen if device.type == "cpu" else {**chosen, ", plain path": plain_path}


def convolutions(scene: Scene, width: int) -> dict[str, Callable[[Side], Results]]:
    """Submanifold, strided and inverse convolutions, with another number of channels after than before."""
    feat, more = scene.numbers(width), width // 2

    def along(size: int, way: str) -> Callable[[Side], Results]:
        def case(side: Side) -> Results:
            grid = scene.grid(side)
            pairs = grid.kernel_map(size) if way == "same" else grid.coarser(size)[1]
            pairs = pairs.transposed if way == "up" else pairs
            generator = torch.Generator().manual_seed(4)
            weight = torch.randn(more, size**3, width, generator=generator)
            weight *= (size**3 * width) ** -0.5
            rows = feat[: pairs.sources]
            return differentiated(
                lambda x, w: convolve(x, w, pairs), side.of(rows), side.of(weight)
            )

        return case

    return {
        "convolution 3^3": along(3, "same"),
        "convolution 5^3": along(5, "same"),
        "strided convolution": along(2, "down"),
        "inverse convolution": along(2, "up"),
    }


def single_convolution(bench: Bench) -> None:
    """Milliseconds of one submanifold convolution 3^3 in float16: ours in each way, and other libraries'."""
    width, count = (8, 60) if bench.tiny else (CHANNELS, VOXELS)
    cloud, gauge = single(count).to(bench.device), bench.gauge
    generator = torch.Generator().manual_seed(3)
    feat = torch.randn(count, width, generator=generator).to(bench.device, torch.float16)
    weight = torch.randn(width, 3, 3, 3, width, generator=generator) * (27 * width) ** -0.5
    weight = weight.to(bench.device, torch.float16)
    quick = {"warm": 1, "repeats": 1} if bench.tiny else {"warm": 10, "repeats": 50}

    def table() -> None:
        Grid(cloud.grid_coord, cloud.batch).kernel_map(3).table  # noqa: B018

    bench.attempt("kernel map, ms", lambda: gauge.milliseconds(table))
    pairs = Grid(cloud.grid_coord, cloud.batch).kernel_map(3)
    bench.note("pairs a voxel", round(float((pairs.table < count).sum()) / count, 2))

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return convolve(feat, weight, pairs)

    def backward() -> None:
        differentiated(lambda x, w: convolve(x, w, pairs), feat, weight)

    bench.note("Triton kernels", has_kernels(bench.device))
    for path, chosen in paths(bench.device).items():
        with chosen():
            bench.attempt(f"ours{path}, ms", lambda: gauge.milliseconds(forward, **quick))
            bench.attempt(f"ours{path}, with gradients, ms", lambda: gauge.milliseconds(backward))
            bench.attempt(f"ours{path}, GiB", lambda: gauge.peak_gib(forward))
    for library in LIBRARIES:
        if not is_there(library):
            bench.note(library, "not installed")
            continue
        other = peer_convolution(library, cloud, weight)
        bench.attempt(
            f"{library}, ms", lambda run=other: gauge.milliseconds(lambda: run(feat), **quick)
        )
