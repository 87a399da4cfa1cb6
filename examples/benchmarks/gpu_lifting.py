"""Features of images onto points: by geometry (`lift`), and as a batch of DITR reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from gpu_equal import difference
from gpu_parts import Bench
from gpu_scenes import single
from lifting import FUSES, Input, Job, lifted, prepared

from pointseg.ditr import PointImages

WIDTHS = (384, 1024)
"""Channels of ViT-S and ViT-L."""
TOLERANCE = 1e-5
"""Of lifted features, as of operators in float32."""


def lift_points(bench: Bench) -> None:
    """A million points and ten views, each fusion: milliseconds and equality with the CPU; then DITR's reading."""
    sizes: dict[str, Any] = {"points": 100_000, "channels": WIDTHS[0]}
    if bench.tiny:
        sizes = {"points": 300, "channels": 8, "views": 3, "size": (48, 64)}
    job = Job(**sizes)
    given = prepared(job)
    for fuse in FUSES:
        for sample in ("nearest", "bilinear"):
            chosen = replace(job, fuse=fuse, sample=sample)
            bench.attempt(f"{fuse}, {sample}", lambda job=chosen: _lift(bench, job, given))
    for width in (8,) if bench.tiny else WIDTHS:
        bench.attempt(f"views of a batch, {width} channels", lambda w=width: _read(bench, w))


def _lift(bench: Bench, job: Job, given: Input) -> dict[str, Any]:
    moved = replace(given, points=given.points.to(bench.device), maps=given.maps.to(bench.device))
    (found, seen), (wanted, known) = lifted(job, moved), lifted(job, given)
    apart = difference([found], [wanted])
    few = {"warm": 0, "repeats": 1} if bench.tiny else {"warm": 2, "repeats": 5}
    run = lambda: lifted(job, moved)  # noqa: E731
    return {
        "ms": bench.gauge.milliseconds(run, **few),
        "GiB": bench.gauge.peak_gib(run),
        "difference": apart,
        "equal": apart <= TOLERANCE and bool(torch.equal(seen.cpu(), known)),
        "waits": None if bench.tiny else bench.gauge.waits(run),
    }


def _read(bench: Bench, width: int) -> dict[str, Any]:
    """One cloud, whose loader has chosen a view for each point."""
    count, views, size = (120, 3, (48, 64)) if bench.tiny else (100_000, 10, (480, 640))
    random = torch.Generator().manual_seed(0)
    stride = 16
    cells = size[0] // stride, size[1] // stride
    sides = torch.tensor([size[1], size[0]])  # pixels are (x, y)
    cloud = replace(
        single(count),
        image_coord=torch.rand(count, 1, 2, generator=random) * sides,
        image_mask=torch.rand(count, 1, generator=random) < 0.9,
        image_view=torch.randint(0, views, (count,), generator=random).to(torch.int16),
        image_maps=torch.randn(1, views, width, *cells, generator=random),
    )
    images = PointImages(None, channels=width, stride=stride, image_size=size).eval()
    with torch.no_grad():
        wanted, known = images(cloud)
        cloud, images = cloud.to(bench.device), images.to(bench.device)
        found, seen = images(cloud)
        few = {"warm": 0, "repeats": 1} if bench.tiny else {"warm": 2, "repeats": 9}
        return {
            "ms": bench.gauge.milliseconds(lambda: images(cloud), **few),
            "equal": bool(torch.equal(found.cpu(), wanted) and torch.equal(seen.cpu(), known)),
            "waits": None if bench.tiny else bench.gauge.waits(lambda: images(cloud)),
        }
