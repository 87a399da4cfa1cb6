"""Image features on a million points: `lift` compared with a plain NumPy loop over the views.

Both get the same points, cameras, depth maps and feature maps, and must give the same features for
the same points. There are two loops: the obvious one, which reads the maps as encoders give them,
channels first; and an optimised one that puts the channels of each map last, so that whole rows are
copied. Each figure comes from a separate process; times are the least of several rounds, alternating
between ours and the loops. Memory is the peak above what was held before and above the result, which
all of them must return.

Points lie on a room's walls, floor and furniture; cameras stand in it and look around. With depth maps
a hidden point is not visible, and fewer views show a point.

    python examples/benchmarks/lifting.py [--threads 1] [--points 1000000] [--views 10]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from own_process import peak, reset_peak, run_job
from torch import Tensor

from dinomed3d.lifting import (
    Camera,
    Cameras,
    FeatureMap,
    Last,
    Max,
    Mean,
    Nearest,
    ViewFusion,
    lift,
    sample_bilinear,
    sample_nearest,
    z_buffer,
)

STRIDE, DEPTH_TOLERANCE = 16, 0.2
FUSES: dict[str, Callable[[], ViewFusion]] = {
    "last": Last,
    "nearest": Nearest,
    "mean": Mean,
    "max": Max,
}
LIMIT_MIB = 256
"""Memory that `lift` may take in addition to its arguments and result; BYTES_PER_POINT more for each point."""
BYTES_PER_POINT = 80


@dataclass(frozen=True)
class Job:
    """One measurement."""

    points: int = 1_000_000
    views: int = 10
    channels: int = 384
    size: tuple[int, int] = (480, 640)
    fuse: str = "last"
    sample: str = "nearest"
    depth: bool = False
    by: str = "lift"
    """"lift", "loop" or "careful"."""
    streamed: bool = False


@dataclass(frozen=True)
class Input:
    cameras: list[Camera]
    depths: list[Tensor] | None
    points: Tensor
    maps: Tensor


def prepared(job: Job) -> Input:
    """A room of 8 x 6 x 3 m with 15 boxes, and cameras near its middle."""
    random = torch.Generator().manual_seed(0)

    def surface(low: Tensor, extent: Tensor, count: int) -> Tensor:
        areas = torch.stack([extent[1] * extent[2], extent[0] * extent[2], extent[0] * extent[1]])
        faces = torch.multinomial(areas.repeat(2), count, replacement=True, generator=random)
        place = torch.rand(count, 3, generator=random)
        place[torch.arange(count), faces % 3] = (faces // 3).float()
        return place * extent + low

    room = torch.tensor([8.0, 6, 3])
    parts = [surface(torch.zeros(3), room, job.points - 15 * (job.points // 30))]
    for _ in range(15):
        extent = 0.3 + torch.rand(3, generator=random)
        low = torch.rand(3, generator=random) * (room - extent) * torch.tensor([1, 1, 0])
        parts.append(surface(low, extent, job.points // 30))
    points = torch.cat(parts)[torch.randperm(job.points, generator=random)]
    height, width = job.size
    lens = torch.tensor([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]])
    cameras = []
    for number in range(job.views):
        angle = torch.tensor(2 * torch.pi * number / job.views)
        right = torch.stack([angle.sin(), -angle.cos(), torch.zeros(())])
        forward = torch.stack([angle.cos(), angle.sin(), torch.zeros(())])
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack([right, torch.tensor([0.0, 0, -1]), forward])
        at = torch.tensor([4, 3, 1.6]) - 2 * forward
        pose[:3, 3] = -pose[:3, :3] @ at
        cameras.append(Camera(intrinsics=lens, size=job.size, world_to_camera=pose))
    depths = [z_buffer(camera, points) for camera in cameras] if job.depth else None
    cells = -(-height // STRIDE), -(-width // STRIDE)
    maps = torch.randn(job.views, job.channels, *cells, generator=random)
    return Input(cameras, depths, points, maps)


def lifted(job: Job, given: Input) -> tuple[Tensor, Tensor]:
    features: Any = FeatureMap(given.maps, STRIDE, job.size)
    if job.streamed:
        features = (FeatureMap(part, STRIDE, job.size) for part in given.maps.split(1))
    return lift(
        features,
        Cameras(given.cameras, depths=given.depths, depth_tolerance=DEPTH_TOLERANCE),
        given.points,
        fuse=FUSES[job.fuse](),
        sample=sample_nearest if job.sample == "nearest" else sample_bilinear,
    )


def looped(job: Job, given: Input) -> tuple[Tensor, Tensor]:
    """The same in NumPy, view by view."""
    points = given.points.numpy().astype(np.float64)
    height, width = job.size
    out = np.zeros((len(points), job.channels), np.float32)
    count = np.zeros(len(points), np.int64)
    best = np.full(len(points), np.inf, np.float32)
    for view, camera in enumerate(given.cameras):
        pose = camera.world_to_camera.numpy()
        q = points @ pose[:3, :3].T + pose[:3, 3]
        z = q[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            uv = (q @ camera.intrinsics.numpy().T)[:, :2] / z[:, None]
        u, v = uv.T
        visible = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        if given.depths is not None:
            index = np.flatnonzero(visible)
            found = given.depths[view].numpy()[v[index].astype(int), u[index].astype(int)]
            visible[index] = (np.abs(z[index] - found) <= DEPTH_TOLERANCE) & (found > 0)
        if job.fuse == "nearest":
            visible &= z.astype(np.float32) < best
            best[visible] = z[visible]
        index = np.flatnonzero(visible)
        features = _read(job, given.maps[view].numpy(), u[index], v[index])
        if job.fuse in ("last", "nearest"):
            out[index] = features
        elif job.fuse == "mean":
            out[index] += features
        else:
            first = count[index] == 0
            out[index] = np.where(first[:, None], features, np.maximum(out[index], features))
        count[index] += 1
    if job.fuse == "mean":
        out /= np.maximum(count, 1).astype(np.float32)[:, None]
    return torch.from_numpy(out), torch.from_numpy(count > 0)


def _read(job: Job, values: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    _, rows, columns = values.shape
    last = np.ascontiguousarray(values.transpose(1, 2, 0)) if job.by == "careful" else None

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return values[:, row, column].T if last is None else last[row, column]

    if job.sample == "nearest":
        return at((v // STRIDE).astype(int), (u // STRIDE).astype(int))
    x = np.clip(u / STRIDE - 0.5, 0, columns - 1)
    y = np.clip(v / STRIDE - 0.5, 0, rows - 1)
    left, top = x.astype(int), y.astype(int)
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    across, down = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
    upper = at(top, left) * (1 - across) + at(top, right) * across
    lower = at(bottom, left) * (1 - across) + at(bottom, right) * across
    return upper * (1 - down) + lower * down


def compared(job: Job, given: Input) -> dict[str, float]:
    """Largest difference between the two, relative to 1; how many points only one of them saw."""
    ours, seen = lifted(job, given)
    loop, wanted = looped(job, given)
    different = max(
        float((a - b).abs().max()) for a, b in zip(ours.split(4096), loop.split(4096), strict=True)
    )
    return {
        "difference": different,
        "seen_by_one": int((seen != wanted).sum()),
        "seen": float(seen.float().mean()),
    }


def run(job: Job) -> dict[str, float]:
    """Seconds and MiB of one job, in this process."""
    given = prepared(job)
    run = lifted if job.by == "lift" else looped
    small = replace(job, points=1000)
    run(small, prepared(small))  # loads libraries
    before = reset_peak()
    start = time.perf_counter()
    values, _ = run(job, given)
    seconds = time.perf_counter() - start
    result = values.numel() * values.element_size() / 2**20
    return {"seconds": seconds, "mib": peak() - before - result}


def line(job: Job, threads: int, rounds: int) -> str:
    """A row of the table."""
    least: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for by in ("lift", "loop", "careful"):
            new = run_job(__file__, replace(job, by=by), threads=threads)
            old = least.get(by, new)
            least[by] = {key: min(new[key], old[key]) for key in new}
    ours, *loops = least.values()
    same = run_job(__file__, replace(job, by="careful"), "--compare", threads=threads)
    limit = LIMIT_MIB + BYTES_PER_POINT * job.points / 2**20
    return (
        f"| {job.fuse} | {job.sample} | {'yes' if job.depth else 'no'} | {100 * same['seen']:.0f} % "
        f"| {ours['seconds']:.2f} | "
        + " | ".join(f"{t['seconds']:.2f} = {t['seconds'] / ours['seconds']:.1f} x" for t in loops)
        + f" | {ours['mib']:.0f} (limit {limit:.0f}) | "
        + " | ".join(f"{loop['mib']:.0f}" for loop in loops)
        + f" | {same['difference']:.0e}, {same['seen_by_one']:.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="processes for each figure")
    parser.add_argument("--points", type=int, default=Job.points)
    parser.add_argument("--views", type=int, default=Job.views)
    parser.add_argument("--channels", type=int, default=Job.channels)
    parser.add_argument("--fuses", nargs="+", choices=FUSES, default=["last", "mean"])
    parser.add_argument("--tiny", action="store_true", help="a few points, in this process")
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        given = json.loads(args.job)
        job = Job(**given | {"size": tuple(given["size"])})
        with torch.no_grad():
            print(json.dumps(compared(job, prepared(job)) if args.compare else run(job)))
        return 0
    if args.tiny:
        for fuse in FUSES:
            for sample in ("nearest", "bilinear"):
                job = Job(2000, 3, 8, (96, 128), fuse, sample, depth=True, streamed=True)
                same = compared(job, prepared(job))
                print(fuse, sample, same)
                if same["difference"] > 1e-5 or same["seen_by_one"]:
                    return 1
        return 0
    print(f"{args.points} points, {args.views} views, {args.channels} channels")
    titles = "fuse, read, depth, seen, s, loop s, careful s, MiB, loop MiB, careful MiB, different"
    print("|", titles.replace(", ", " | "), "|")
    print("|" + " --- |" * len(titles.split(", ")))
    for depth in (False, True):
        for fuse in args.fuses:
            for sample in ("nearest", "bilinear"):
                job = Job(args.points, args.views, args.channels, (480, 640), fuse, sample, depth)
                print(line(job, args.threads, args.rounds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
