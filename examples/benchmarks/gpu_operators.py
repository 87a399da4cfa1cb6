"""Every operator of `pointseg.ops` on the device, compared with the CPU in float32: results and gradients.

Inputs are rounded to the precision first, so that the CPU sees the same numbers; what differs is how the operator
computes. Whole numbers (curves, kernel maps, cells, windows) must be equal one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from gpu_ceilings import tf32
from gpu_convolutions import convolutions, has_kernels, paths
from gpu_equal import (
    OPERATOR_TOLERANCE,
    PRECISIONS,
    Results,
    Side,
    both,
    difference,
    differentiated,
    judged,
)
from gpu_parts import Bench
from gpu_scenes import Scene
from torch import Tensor

from pointseg.backbones.ptv3.rotary_positions import RotaryPositions
from pointseg.ops.attention.relative_positions import RelativePositions
from pointseg.ops.attention.space_filling_curves import encode
from pointseg.ops.attention.windowed_attention import attend, attend_explicitly
from pointseg.ops.attention.windows import Windows
from pointseg.ops.grouping.neighbour_features import interpolate, neighbour_max
from pointseg.ops.grouping.neighbours import ball, knn
from pointseg.ops.grouping.pooling import pool_cells, pool_grid
from pointseg.ops.grouping.segments import Reduction, Segments
from pointseg.ops.grouping.subsampling import farthest_subsample, grid_subsample
from pointseg.ops.grouping.voxel_keys import voxel_keys
from pointseg.ops.hardware.linear import linear
from pointseg.training.step.losses import cross_entropy, lovasz_softmax

Case = Callable[[Side], Results]
DEPTH = 16
"""Halvings of the curves."""


def operators(bench: Bench) -> None:
    """Compare all of them, the convolutions in each way that the device has."""
    scene, width = Scene(40 if bench.tiny else 20_000), 12 if bench.tiny else 48
    for name, case in whole_numbers(scene).items():
        bench.attempt(name, lambda case=case: same(case, bench.device))
    rest = (
        pooled(scene, width) | attended(scene, width) | grouped(scene, width) | others(scene, width)
    )
    with tf32(False):
        for name, case in rest.items():
            bench.attempt(name, lambda case=case: close(case, bench.device))
        for path, chosen in paths(bench.device).items():
            for name, case in convolutions(scene, width).items():
                with chosen():
                    bench.attempt(f"{name}{path}", lambda case=case: close(case, bench.device))
    if (
        bench.device.type == "cuda"
    ):  # they fall back to the plain path, and equality would say nothing
        bench.note("Triton kernels are used", {"equal": has_kernels(bench.device)})


def same(case: Case, device: torch.device) -> dict[str, bool]:
    """Whether whole numbers are equal one by one."""
    found, wanted = both(case, device, torch.float32)
    return {"equal": all(bool(torch.equal(a.cpu(), b)) for a, b in zip(found, wanted, strict=True))}


def close(case: Case, device: torch.device) -> dict[str, object]:
    """Differences in each precision, and whether they are accepted."""
    errors = {}
    for name, dtype in PRECISIONS.items():
        errors[name] = difference(*both(case, device, dtype))
    return judged(errors, OPERATOR_TOLERANCE)


def whole_numbers(scene: Scene) -> dict[str, Case]:
    """Operators whose results are whole numbers."""

    def curves(side: Side) -> Results:
        return [encode(side.at(scene.voxels), side.at(scene.batch), DEPTH)]

    def maps(side: Side) -> Results:
        grid = scene.grid(side)
        below, down = grid.coarser(2)
        tables = [grid.kernel_map(size).table for size in (3, 5)]
        return [
            *tables, down.table, down.transposed.table, below.coord, below.batch, grid.cells(2).index
        ]  # fmt: skip

    def cells(side: Side) -> Results:
        codes = encode(side.at(scene.voxels), side.at(scene.batch), DEPTH)
        offset = side.at(scene.offset)
        along = pool_cells(codes, codes.argsort(1), offset)
        blocks = pool_grid(side.at(scene.voxels), side.at(scene.batch), offset, 3)
        numbers = [along.segments.index, along.heads, along.offset, along.codes, along.orders]
        return [*numbers, blocks.segments.index, blocks.heads, blocks.offset]

    def subsampled(side: Side) -> Results:
        voxels, offset = side.at(scene.voxels), side.at(scene.offset)
        rows = grid_subsample(voxels, offset, 4)
        return [*rows[:2], voxel_keys(voxels, side.at(scene.batch))]

    def windows(side: Side) -> Results:
        cut = Windows.of(scene.counts, 16, side.device)
        turned = cut.along(side.at(torch.arange(len(scene.voxels)).flip(0)))
        return [cut.rows, cut.slots, cut.borrowed, turned.rows, turned.slots]

    return {
        "curves": curves,
        "kernel maps": maps,
        "cells": cells,
        "grid subsampling": subsampled,
        "windows": windows,
    }


def pooled(scene: Scene, width: int) -> dict[str, Case]:
    """Reductions over segments, some of which are empty."""
    feat, count = scene.numbers(width), len(scene.voxels)
    segments = count // 8 + 2
    index = (scene.numbers(1, seed=6)[:, 0].abs() * count / 16).long().clamp(max=count // 8)

    def reduced(kind: Reduction) -> Case:
        def case(side: Side) -> Results:
            parts = Segments.of(side.at(index), segments)
            return differentiated(lambda x: parts.reduce(x, kind), side.of(feat))

        return case

    def spread(side: Side) -> Results:
        parts = Segments.of(side.at(index), segments)
        return differentiated(parts.spread, side.of(feat[:segments]))

    kinds: Sequence[Reduction] = ("max", "mean", "sum")
    return {f"segments, {kind}": reduced(kind) for kind in kinds} | {"segments, spread": spread}


def attended(scene: Scene, width: int) -> dict[str, Case]:
    """Attention within windows, with and without relative positions; rotary positions."""
    qkv = scene.numbers(3 * width, seed=3)

    def cut(side: Side) -> Windows:
        return Windows.of(scene.counts, min(256, scene.counts[1]), side.device)

    def plain(heads: int) -> Case:
        def case(side: Side) -> Results:
            windows = cut(side)
            return differentiated(lambda x: attend(x, windows, heads=heads), side.of(qkv))

        return case

    def relative(side: Side) -> Results:
        windows, place = cut(side), side.at(scene.voxels)
        torch.manual_seed(0)
        bias = RelativePositions(16, 2).to(side.device)

        def biased(x: Tensor) -> Tensor:
            return attend_explicitly(
                x, windows, heads=2, bias=bias, grid_coord=place, upcast_softmax=True
            )

        results = differentiated(biased, side.of(qkv))
        return [*results, bias.rpe_table.grad]

    def rotary(side: Side) -> Results:
        module = RotaryPositions(width // 2, 100.0, positions="grid_coord").to(side.device)
        at = SimpleNamespace(grid_coord=side.at(scene.voxels))
        return differentiated(lambda x: module(x, 2, at), side.of(qkv))

    return {
        "attention": plain(2),
        "attention, channels of a head that kernels pad": plain(4),
        "attention with relative positions": relative,
        "rotary positions": rotary,
    }


def grouped(scene: Scene, width: int) -> dict[str, Case]:
    """Distances to neighbours, and what is read from the neighbours that the CPU found."""
    feat, ends, metres = scene.numbers(width), scene.offset, scene.metres()
    rows, apart = knn(metres, ends, metres, ends, 4)
    inside, _ = ball(metres, ends, metres, ends, radius_m=0.05, k=8)

    def nearest(side: Side) -> Results:
        points, offset = side.at(metres), side.at(ends)
        return [knn(points, offset, points, offset, 4)[1].nan_to_num(posinf=1.0)]

    def within(side: Side) -> Results:
        points, offset = side.at(metres), side.at(ends)
        found = ball(points, offset, points, offset, radius_m=0.05, k=8)
        return [found[1].nan_to_num(posinf=1.0)]

    def interpolated(side: Side) -> Results:
        given = side.at(rows), side.at(apart)
        return differentiated(lambda x: interpolate(x, *given), side.of(feat))

    def greatest(side: Side) -> Results:
        given = side.at(inside)
        return differentiated(lambda x: neighbour_max(x, given), side.of(feat))

    def farthest(side: Side) -> Results:
        few = torch.tensor([min(1000, scene.counts[0])])
        points = side.at(metres[: int(few)])
        return [points[farthest_subsample(points, side.at(few), 4)[0]]]

    return {
        "nearest neighbours": nearest,
        "neighbours in a ball": within,
        "interpolation": interpolated,
        "maximum of neighbours": greatest,
        "farthest point sampling": farthest,
    }


def others(scene: Scene, width: int) -> dict[str, Case]:
    """Linear layers and losses."""
    feat, logits = scene.numbers(width), scene.numbers(20, seed=7)
    weight, bias = feat[:width] * width**-0.5, feat[width]
    segment = (scene.numbers(1, seed=8)[:, 0].abs() * 8).long().clamp(max=20) - 1

    def layer(side: Side) -> Results:
        return differentiated(linear, *(side.of(tensor) for tensor in (feat, weight, bias)))

    def losses(side: Side) -> Results:
        labels, given = side.at(segment), side.of(logits)
        # the gradient of Lovasz-softmax jumps where two errors are almost equal
        regions = lovasz_softmax(given, labels)
        return [regions, *differentiated(lambda x: cross_entropy(x, labels), given)]

    return {"linear": layer, "cross-entropy and Lovasz-softmax": losses}
