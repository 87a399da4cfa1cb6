"""Speed and memory of sparse convolution, alone and in whole networks, compared with spconv on the CPU.

Every figure comes from a separate process, alternating between ours and spconv's, on the same cloud: 2 cm
voxels of the walls, floor and furniture of a room. The network with spconv is ours with its sparse
convolutions replaced by spconv's and the index pairs kept per resolution, so that nothing else differs.
Times are the least of several repeats; index pairs are built in each, as for a new cloud. Values are
compared with one thread, because spconv's CPU kernels give some wrong rows with more.

    python -m venv bench && bench/bin/pip install spconv . && bench/bin/python \\
        examples/benchmarks/sparse_convolution.py

`--tiny` runs ours alone on a few points.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from own_process import peak, reset_peak, run_job
from torch import Tensor, nn

from pointseg.backbones import minkunet
from pointseg.backbones.interface.features import Backbone
from pointseg.cloud import Cloud
from pointseg.ops.convolution.grid import Grid
from pointseg.ops.convolution.layers import InverseConv3d, StridedConv3d, SubmanifoldConv3d

WIDTHS = (32, 64, 128)
SIZES = (20_000, 100_000)
GROWTH = (20_000, 50_000, 100_000, 200_000)
CHANNELS = 6
PARTS = ("convolution", "networks", "growth", "values")
NETWORKS = ("minkunet", "ptv3")
LIBRARY = "spconv.pytorch"
"""The module that is compared with; another one that has spconv's interface can take its place."""


def room(count: int, seed: int = 0) -> Tensor:
    """(count, 3) voxels of the surfaces of a furnished room, in random order."""
    random = torch.Generator().manual_seed(seed)
    side = (count / 5) ** 0.5

    def box(low: Tensor, size: Tensor, points: int) -> Tensor:
        areas = torch.stack([size[1] * size[2], size[0] * size[2], size[0] * size[1]]).repeat(2)
        faces = torch.multinomial(areas, points, replacement=True, generator=random)
        place = torch.rand(points, 3, generator=random)
        place[torch.arange(points), faces % 3] = (faces // 3).float()
        return place * size + low

    parts = [box(torch.zeros(3), torch.tensor([1.6, 1.2, 0.8]) * side, 8 * count)]
    for _ in range(12):
        low = torch.rand(3, generator=random) * torch.tensor([1.3, 0.9, 0.0]) * side
        parts.append(box(low, torch.rand(3, generator=random) * side * 0.3 + 5, count // 2))
    points = torch.cat(parts)
    points = points + 0.1 * torch.randn(points.shape, generator=random)
    voxels = torch.unique((points - points.amin(0)).floor().long(), dim=0)[:count]
    if len(voxels) < count:
        raise RuntimeError(f"room: {len(voxels)} voxels where {count} were wanted")
    return voxels[torch.randperm(count, generator=random)]


def cloud_of(count: int) -> Cloud:
    voxels = room(count)
    feat = torch.randn(count, CHANNELS, generator=torch.Generator().manual_seed(1))
    return Cloud(coord=voxels * 0.02, grid_coord=voxels, feat=feat, offset=torch.tensor([count]))


def peer_library() -> Any:
    """The module that `LIBRARY` names."""
    return importlib.import_module(LIBRARY)


class PeerGrid:
    """Takes the place of a Grid for spconv's layers: voxels, and index pairs once they are built."""

    def __init__(self, coord: Tensor, batch: Tensor, shape: list[int] | None = None) -> None:
        self.coord, self.batch = coord, batch
        self.indices = torch.cat([batch[:, None], coord], 1).int()
        self.shape = shape or (coord.amax(0) + 96).tolist()
        self.clouds = int(batch.max()) + 1
        self.extent = (self.clouds, *(coord.amax(0) + 1).tolist())
        self.pairs: dict[str, Any] = {}
        self.below: PeerGrid | None = None

    @classmethod
    def known(cls, coord: Tensor, batch: Tensor, *_: object, **__: object) -> PeerGrid:
        return cls(coord, batch)

    def __len__(self) -> int:
        return len(self.coord)

    def apart(self) -> PeerGrid:
        return PeerGrid(self.coord, self.batch)

    def sorted(self) -> tuple[PeerGrid, Tensor]:
        grid, order = Grid(self.coord, self.batch).sorted()
        return PeerGrid(grid.coord, grid.batch), order

    def coarser(self, stride: int = 2) -> tuple[PeerGrid, None]:
        assert self.below is not None and stride == 2
        return self.below, None

    def tensor(self, feat: Tensor, pairs: dict[str, Any]) -> Any:
        tensor = peer_library().SparseConvTensor(feat, self.indices, self.shape, self.clouds)
        tensor.indice_dict = pairs
        return tensor


class PeerConvolution(nn.Module):
    """One of our layers, computed by spconv."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        spconv = peer_library()
        kinds = {
            SubmanifoldConv3d: spconv.SubMConv3d,
            StridedConv3d: spconv.SparseConv3d,
            InverseConv3d: spconv.SparseInverseConv3d,
        }
        more: dict[str, Any] = {"stride": 2} if isinstance(ours, StridedConv3d) else {}
        shape = (ours.in_channels, ours.out_channels, ours.kernel_size)
        key = str(ours.kernel_size)
        self.layer = kinds[type(ours)](*shape, bias=False, indice_key=key, **more)
        self.layer.weight = ours.weight
        self.bias = ours.bias
        self.out_channels = ours.out_channels

    def forward(self, feat: Tensor, grid: PeerGrid) -> Tensor:
        upward = grid.below if self.layer.inverse else None
        out = self.layer((upward or grid).tensor(feat, grid.pairs))
        if not self.layer.subm and upward is None:
            cells = out.indices.long()
            grid.below = PeerGrid(cells[:, 1:], cells[:, 0], out.spatial_shape)
        grid.pairs = out.indice_dict
        return out.features if self.bias is None else out.features + self.bias


def by_peer(network: nn.Module) -> nn.Module:
    """A network with the peer's sparse convolutions and index pairs; from then on no other runs in this process."""
    network = with_spconv(network)
    for name, module in sys.modules.items():
        if name.startswith("pointseg.backbones") and hasattr(module, "Grid"):
            module.Grid = PeerGrid  # type: ignore[attr-defined]
    minkunet._cells, minkunet._levels = (lambda *_: []), (lambda *_: ())
    return network


def with_spconv(network: nn.Module) -> nn.Module:
    """Replace our sparse convolutions; kernels of one voxel are matrix products in both."""
    layers = (SubmanifoldConv3d, StridedConv3d, InverseConv3d)
    if isinstance(network, layers):
        return PeerConvolution(network) if network.kernel_size > 1 else network
    for name, child in network.named_children():
        setattr(network, name, with_spconv(child))
    return network


@dataclass(frozen=True)
class Job:
    """One measurement."""

    what: str
    """"conv 64", "minkunet" or "ptv3"."""
    mode: str
    """"forward", "step" or "values"."""
    count: int
    peer: bool
    small: bool = False
    repeats: int = 3


def build(job: Job) -> nn.Module:
    torch.manual_seed(0)
    name, *width = job.what.split()
    if name == "conv":
        return SubmanifoldConv3d(int(width[0]), int(width[0]), 3, bias=False)
    if name == "minkunet":
        small = {"channels": (8,) * 8, "layers": (1,) * 8, "base_channels": 8} if job.small else {}
        return minkunet.MinkUNet(in_channels=CHANNELS, **small)
    from pointseg.backbones.ptv3.point_transformer_v3 import PointTransformerV3

    return PointTransformerV3(in_channels=CHANNELS)


def prepare(job: Job) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The network, and a function that runs it on a new cloud."""
    network = build(job)
    if job.peer:
        import spconv.pytorch.ops

        if not torch.cuda.is_available():  # its backward asks for a stream even on a CPU
            spconv.pytorch.ops.get_current_stream = lambda: 0
        network = by_peer(network)
    cloud = cloud_of(job.count)
    if isinstance(network, Backbone):
        return network, lambda: network(cloud).feat
    width = network.out_channels if job.peer else network.in_channels
    feat = torch.randn(job.count, int(width), generator=torch.Generator().manual_seed(1))
    grids = (PeerGrid if job.peer else Grid)(cloud.grid_coord, cloud.batch)
    feat.requires_grad_(job.mode == "step")
    network(feat, grids)  # for single layers the index pairs are not part of the measurement
    return network, lambda: network(feat, grids)


def run(job: Job) -> dict[str, Any]:
    """Seconds and MiB of one job, in this process."""
    network, forward = prepare(job)
    if job.mode == "values":
        with torch.no_grad():
            return {"out": forward()[:: max(1, job.count // 500)].tolist()}
    network.train(job.mode == "step")
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)
    before = reset_peak()
    seconds = []
    for _ in range(job.repeats):
        start = time.perf_counter()
        if job.mode == "step":
            forward().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        else:
            with torch.no_grad():
                forward()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "mib": peak() - before}


def compared(job: Job, threads: int, rounds: int) -> str:
    """A row of the table: ours, spconv's and their ratios; the least of several alternating rounds."""
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for _ in range(rounds):
        for peer in found:
            found[peer].append(run_job(__file__, replace(job, peer=peer), threads=threads))
    least = {
        peer: [min(r[key] for r in results) for key in ("seconds", "mib")]
        for peer, results in found.items()
    }
    (ours_s, ours_mib), (peer_s, peer_mib) = least[False], least[True]
    return (
        f"| {job.what} {job.mode} | {job.count} | {1e3 * ours_s:.0f} | {1e3 * peer_s:.0f} "
        f"| {ours_s / peer_s:.2f} | {ours_mib:.0f} | {peer_mib:.0f} | {ours_mib / peer_mib:.2f} |"
    )


def growth(job: Job, counts: tuple[int, ...], threads: int) -> list[str]:
    """Rows of ours alone: time and memory per point as clouds grow."""
    lines = []
    for count in counts:
        result = run_job(__file__, replace(job, count=count), threads=threads)
        lines.append(
            f"| {job.what} {job.mode} | {count} | {1e3 * result['seconds']:.0f} "
            f"| {1e6 * result['seconds'] / count:.2f} | {2**10 * result['mib'] / count:.2f} |"
        )
    return lines


def difference(job: Job) -> str:
    """Greatest difference between our values and spconv's, with one thread."""
    ours, peer = (
        torch.tensor(run_job(__file__, replace(job, peer=peer, mode="values"), threads=1)["out"])
        for peer in (False, True)
    )
    return (
        f"| {job.what} | {job.count} | {(ours - peer).abs().max():.1e} | {peer.abs().max():.1e} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=2, help="processes for each figure")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="POINTS")
    parser.add_argument("--tiny", action="store_true", help="ours alone, on a few points")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(run(Job(**json.loads(args.job)))))
        return 0
    if args.tiny:
        for what in ("conv 8", "minkunet"):
            for mode in ("forward", "step"):
                result = run(Job(what, mode, 500, peer=False, small=True, repeats=1))
                print(f"{what} {mode}: {1e3 * result['seconds']:.1f} ms, {result['mib']:.0f} MiB")
        return 0
    if importlib.util.find_spec("spconv") is None:
        print("spconv is not installed: pip install spconv, or use --tiny", file=sys.stderr)
        return 2
    jobs = [Job(f"conv {width}", "forward", 0, peer=False, repeats=10) for width in WIDTHS]
    jobs += [Job(f"conv {width}", "step", 0, peer=False, repeats=5) for width in WIDTHS]
    jobs = jobs if "convolution" in args.parts else []
    if "networks" in args.parts:
        jobs += [Job(what, m, 0, peer=False) for what in args.networks for m in ("forward", "step")]
    if jobs:
        print("| | points | ours, ms | spconv, ms | ratio | ours, MiB | spconv, MiB | ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for job in jobs:
        for count in args.sizes:
            print(compared(replace(job, count=count), args.threads, args.rounds), flush=True)
    if "growth" in args.parts:
        print("\n| | points | ms | us per point | KiB per point |\n| --- | --- | --- | --- | --- |")
        for what in args.networks:
            for mode in ("forward", "step"):
                lines = growth(Job(what, mode, 0, peer=False), GROWTH, args.threads)
                print("\n".join(lines), flush=True)
    if "values" in args.parts:
        print("\n| | points | greatest difference | greatest value |\n| --- | --- | --- | --- |")
        for what in ("conv 64", *args.networks):
            print(difference(Job(what, "values", args.sizes[0], peer=False)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
