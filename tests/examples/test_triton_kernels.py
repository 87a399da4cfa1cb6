"""Kernels compiled without a GPU, and tiles counted: examples/benchmarks/triton_kernels.py."""

import sys

import pytest
import torch

from tests import ROOT

pytest.importorskip("triton", minversion="3.3")
sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))

import triton_kernels as benchmark  # noqa: E402


@pytest.mark.parametrize("what", ["multiply", "correlate"])
def test_steps_overlap_and_no_register_spills(what, tmp_path, monkeypatch):
    """Each stage has shared memory of its own; what Triton cannot overlap has that of one stage."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    layer = (16, 64, 8)
    if what == "multiply":
        kernel, constants, blocks = next(benchmark.multiply(layer, torch.float16, turned=False))
        block = blocks.sizes[0] * constants["BLOCK_IN"] + constants["BLOCK_IN"] * blocks.sizes[1]
    else:
        kernel, constants, blocks = next(benchmark.correlate(layer, torch.float16))
        block = constants["BLOCK_ROWS"] * sum(blocks.sizes)
    registers, stack, shared = benchmark.compiled(kernel, constants, "fp16", blocks, 90)
    assert stack == 0 and 16 <= registers <= 255
    assert blocks.stages * block * 2 <= shared <= 1024 * benchmark.SHARED[90]


def test_offsets_by_hand():
    """A line of 256 voxels along z: three neighbours inside, two at the ends."""
    line = torch.zeros(256, 3, dtype=torch.int64)
    line[:, 2] = torch.arange(256)
    (row,) = benchmark.offsets("line", line, levels=1)
    assert row == ["line", 1, "256", "3.0", "3.0", "3.0"]
    apart = torch.stack([torch.arange(256), torch.arange(256), 2 * (torch.arange(256) % 2)], 1) * 2
    apart = torch.cat([line + torch.tensor([9, 0, 0]), apart])[torch.randperm(512)]
    (row,) = benchmark.offsets("mixed", apart, levels=1)
    assert row[2:] == ["512", "2.0", row[4], "2.0"] and float(row[4]) > 2.0
