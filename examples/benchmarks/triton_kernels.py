"""What is known of the Triton kernels of sparse convolution without a GPU: what they compile to, what they leave out.

Every candidate that a GPU would time is compiled for three generations by the ptxas in Triton's wheel (no driver
is needed), and registers, shared memory and the stack, to which registers spill, are read from the machine
code. Tiles are cut of clouds, and the offsets that they need are counted. Nothing here is a time.

    python examples/benchmarks/triton_kernels.py --clouds ../shared/data/points/semantickitti_scan/000000.bin:0.05

A cloud is FILE:VOXEL in metres; a made room is always counted. `--arch 90` compiles for one generation alone,
`--tiny` a single layer.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from markdown import table
from sparse_convolution import room
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pointseg.files import read_cloud
from pointseg.ops.convolution import triton_kernels as kernels
from pointseg.ops.convolution.grid import Grid
from pointseg.ops.convolution.masked_tiles import TILE, masked_tiles
from pointseg.ops.convolution.triton_blocks import (
    Blocks,
    correlate_candidates,
    multiply_candidates,
)
from pointseg.ops.convolution.triton_launch import correlate_constants, multiply_constants

GENERATIONS = {80: "A100", 90: "H100, H200", 120: "RTX 50"}
SHARED = {80: 163, 90: 227, 120: 99}
"""KiB of shared memory that one program may have."""
TYPES = {torch.float32: "fp32", torch.float16: "fp16"}
"""bfloat16 takes the same instructions, in their other form."""
STRIDES = ("weight_offset", "weight_in", "weight_out")
LAYERS = ((6, 32, 125), (64, 64, 27), (96, 96, 27), (256, 256, 27))
"""Channels before and after, and offsets, as they occur in PTv3 and MinkUNet34C."""


@dataclass(frozen=True)
class Compiled:
    """One kernel in one size."""

    what: str
    numbers: str
    blocks: Blocks
    registers: int
    stack: int
    """Bytes of each thread; without spilled registers there are none."""
    shared: int
    """Bytes of each program."""


def compiled(
    kernel: Any, constants: dict[str, Any], numbers: str, blocks: Blocks, arch: int
) -> tuple[int, int, int]:
    """Registers, bytes of stack and bytes of shared memory."""
    kinds = {
        name: "constexpr" if name in constants else _kind(name, numbers)
        for name in kernel.arg_names
    }
    # as at a launch: multiples of 16 let 16 bytes be copied at a time
    channels = constants["OUT" if constants.get("weight_out") == 1 else "IN"]
    even = STRIDES if channels % 16 == 0 else ()
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, (name, kind) in enumerate(kinds.items())
        if kind.startswith("*") or (kind == "i32" and name in ("width", *even))
    }
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=values, attrs=aligned)
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    registers, stack = _usage(made.asm["cubin"])
    return registers, stack, made.metadata.shared


def _kind(name: str, numbers: str) -> str:
    if name in ("rows", "weight", "out", "feat", "grad"):
        return f"*{numbers}"
    if name in ("bias", "sums"):
        return "*fp32"
    whole = ("targets", "width", "tiles", "splits", *STRIDES)
    return "i32" if name in whole else "*i32"


def _usage(cubin: bytes) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    if found is None:
        raise RuntimeError(f"cuobjdump said nothing of registers: {said}")
    return int(found[1]), int(found[2])


def multiply(layer: tuple[int, int, int], dtype: torch.dtype, *, turned: bool) -> Iterator[Any]:
    """Constants and blocks of all candidates, forward or as the gradient of the inputs."""
    before, after, size = layer if not turned else (layer[1], layer[0], layer[2])
    for blocks in multiply_candidates(after, dtype):
        constants = multiply_constants(size, before, after, dtype) | {
            "MIRRORED": turned,
            "BIAS": not turned,
            "WIDEN": False,
            "BLOCK_ROWS": blocks.sizes[0],
            "BLOCK_OUT": blocks.sizes[1],
            "weight_out" if turned else "weight_in": 1,  # Triton compiles a stride of 1 in
        }
        yield kernels.gather_multiply, constants | ({"bias": None} if turned else {}), blocks


def correlate(layer: tuple[int, int, int], dtype: torch.dtype) -> Iterator[Any]:
    """Constants and blocks of all candidates for gradients of weights."""
    before, after, size = layer
    for blocks in correlate_candidates(before, after, dtype):
        constants = correlate_constants(size, before, after, dtype) | {
            "MIRRORED": False,
            "WIDEN": False,
            "BLOCK_IN": blocks.sizes[0],
            "BLOCK_OUT": blocks.sizes[1],
        }
        yield kernels.correlate, constants, blocks


def all_compiled(arch: int, layers: Sequence[tuple[int, int, int]]) -> Iterator[Compiled]:
    """Every candidate of every layer in every type, float32 with and without TF32."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    for layer, (dtype, kind) in itertools.product(layers, TYPES.items()):
        for tf32 in (True, False) if dtype == torch.float32 else (False,):
            matmul.allow_tf32 = tf32
            parts = {
                "forward": multiply(layer, dtype, turned=False),
                "gradient of inputs": multiply(layer, dtype, turned=True),
                "gradient of weights": correlate(layer, dtype),
            }
            for what, candidates in parts.items():
                for kernel, constants, blocks in candidates:
                    used = compiled(kernel, constants, kind, blocks, arch)
                    yield Compiled(what, "tf32" if tf32 else kind, blocks, *used)
    matmul.allow_tf32 = before


def resources(arch: int, layers: Sequence[tuple[int, int, int]]) -> list[list[object]]:
    """Rows of the table: of each kernel and type the most that a candidate takes."""
    groups = defaultdict(list)
    for found in all_compiled(arch, layers):
        groups[found.what, found.numbers].append(found)
        print(found, file=sys.stderr)
    return [
        [
            f"sm_{arch} ({GENERATIONS[arch]})",
            what,
            numbers,
            len(of),
            f"{min(c.registers for c in of)} to {max(c.registers for c in of)}",
            sum(c.stack > 0 for c in of),
            f"{max(c.shared for c in of) / 1024:.0f} of {SHARED[arch]}",
        ]
        for (what, numbers), of in groups.items()
    ]


def offsets(name: str, voxels: Tensor, levels: int = 3) -> Iterator[list[object]]:
    """Rows of the table: offsets of 3^3 that rows have, and that tiles of them need, at some resolutions."""
    grid = Grid(voxels, torch.zeros(len(voxels), dtype=torch.int64)).sorted()[0]
    for level in range(levels):
        neighbours = grid.kernel_map(3).neighbours
        found = neighbours >= 0
        padded = torch.cat([found, found.new_zeros(-len(grid) % TILE, 27)])
        unsorted = padded.view(-1, TILE, 27).any(1).sum(1)
        yield [
            name,
            2**level,
            f"{len(grid):,}",
            *(
                f"{counts.float().mean():.1f}"
                for counts in (found.sum(1), unsorted, masked_tiles(neighbours).counts)
            ),
        ]
        grid = grid.coarser()[0]


def read_voxels(named: str) -> tuple[str, Tensor]:
    """Occupied voxels of FILE:VOXEL."""
    file, _, size = named.rpartition(":")
    coord = torch.as_tensor(read_cloud(Path(file)).coord).double()
    cells = ((coord - coord.amin(0)) / float(size)).floor().long()
    return f"{Path(file).name}, {size} m", cells.unique(dim=0)


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, nargs="*", default=list(GENERATIONS))
    parser.add_argument("--clouds", nargs="*", default=[])
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(argv)
    os.environ.setdefault("TRITON_CACHE_DIR", tempfile.mkdtemp(prefix="triton"))
    clouds = [("room, 2 cm", room(300 if args.tiny else 100_000)), *map(read_voxels, args.clouds)]
    rows = [row for name, voxels in clouds for row in offsets(name, voxels)]
    print(table("cloud|voxels to a cell|rows|a row has|tiles need, unsorted|sorted", rows))
    layers = LAYERS[:1] if args.tiny else LAYERS
    rows = [row for arch in args.arch for row in resources(arch, layers)]
    print(table("for|kernel|numbers|compiled|registers|with spills|KiB shared", rows))


if __name__ == "__main__":
    main()
