"""Networks of point clouds at 100,000 points: forward and training step, and the same with other libraries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from gpu_backbones import backbone
from gpu_ceilings import tf32
from gpu_convolutions import plain_path
from gpu_equal import difference
from gpu_parts import Bench, attempted
from gpu_peers import LIBRARIES, is_there, peer_network
from gpu_scenes import CLASSES, single
from torch import Tensor, nn

from pointseg.backbones.interface.features import Backbone
from pointseg.cloud import Cloud
from pointseg.segmenter import Segmenter
from pointseg.training.step.losses import segmentation_loss

POINTS = 100_000
NETWORKS = ("ptv3", "minkunet", "pointnext", "litept")
WITH_PEERS = ("ptv3", "minkunet")
"""Networks that other libraries' convolutions are put into."""
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def cloud_for(bench: Bench) -> Cloud:
    """The cloud on the device."""
    return single(120 if bench.tiny else POINTS).to(bench.device)


def quick(bench: Bench, repeats: int) -> dict[str, int]:
    """How often something is run before it is timed, and while it is."""
    return {"warm": 0, "repeats": 1} if bench.tiny else {"warm": 3, "repeats": repeats}


def forwards(bench: Bench) -> None:
    """Prediction of one cloud: milliseconds, memory, launches, and where the host waits."""
    cloud = cloud_for(bench)
    for name in NETWORKS:
        bench.attempt(name, lambda name=name: _forward(bench, name, cloud))


def _forward(bench: Bench, name: str, cloud: Cloud) -> dict[str, Any]:
    network, gauge = backbone(name, bench.size).to(bench.device).eval(), bench.gauge
    found: dict[str, Any] = {}
    for title, dtype in HALVES.items():
        run = predicting(network, cloud, dtype)
        found[f"{title}, ms"] = attempted(partial(gauge.milliseconds, run, **quick(bench, 9)))
    run = predicting(network, cloud, torch.float16)
    with plain_path(), tf32(False):
        exact = attempted(predicting(network, cloud, None))
    found["difference from float32"] = attempted(
        lambda: float(f"{difference([run()], [exact]):.2g}")
    )
    found |= bench.details(run) | {"finite": attempted(lambda: bool(run().isfinite().all()))}
    with tf32(True):
        rounded = predicting(network, cloud, None)
        found["TF32, ms"] = attempted(partial(gauge.milliseconds, rounded, **quick(bench, 5)))
    return found


def predicting(network: nn.Module, cloud: Cloud, dtype: torch.dtype | None) -> Callable[[], Tensor]:
    """A function that computes the features of the points without gradients, under autocast if a type is given."""

    def run() -> Tensor:
        mixed = torch.autocast(cloud.coord.device.type, dtype) if dtype else nullcontext()
        with torch.inference_mode(), mixed:
            return network(cloud).feat  # type: ignore[no-any-return]

    return run


def steps(bench: Bench) -> None:
    """Training step on one cloud, losses and optimizer included."""
    cloud = cloud_for(bench)
    for name in NETWORKS:
        bench.attempt(name, lambda name=name: _step(bench, name, cloud))


def _step(bench: Bench, name: str, cloud: Cloud) -> dict[str, Any]:
    network = backbone(name, bench.size)
    assert isinstance(network, Backbone)
    step = PointStep(Segmenter(network, CLASSES).to(bench.device), cloud, torch.float16)
    found: dict[str, Any] = {"float16, ms": bench.gauge.milliseconds(step, **quick(bench, 5))}
    return found | bench.details(step) | {"finite": bool(step().isfinite())}


class PointStep:
    """Forward and backward pass with cross-entropy and Lovasz-softmax, AdamW, and a gradient scaler."""

    def __init__(self, network: nn.Module, cloud: Cloud, dtype: torch.dtype) -> None:
        self.network, self.cloud, self.dtype = network.train(), cloud, dtype
        self.device = cloud.coord.device.type
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
        self.scaler = torch.amp.GradScaler(self.device)

    def __call__(self) -> Tensor:
        assert self.cloud.segment is not None
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, self.dtype):
            logits = self.network(self.cloud)
        loss = segmentation_loss(logits, self.cloud.segment)["loss"]
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()


def peers(bench: Bench) -> None:
    """Prediction in float16 weights: ours, and with the sparse convolutions of other libraries.

    They do not compute in half precision under autocast in prediction, so that all weights are halved, ours too.
    """
    cloud, gauge = cloud_for(bench), bench.gauge
    halved = Cloud(**{**vars(cloud), "feat": cloud.feat.half()})
    for name in WITH_PEERS:
        network = backbone(name, bench.size).to(bench.device).eval().half()
        run = predicting(network, halved, None)
        bench.attempt(
            f"{name}, ours, ms", lambda run=run: gauge.milliseconds(run, **quick(bench, 9))
        )
    for library in LIBRARIES:  # theirs last: they change the modules of this process
        for name in WITH_PEERS:
            title = f"{name}, {library}"
            if is_there(library):
                bench.attempt(title, lambda n=name, lib=library: _peer(bench, n, lib, halved))
            else:
                bench.note(title, "not installed")


def _peer(bench: Bench, name: str, library: str, cloud: Cloud) -> dict[str, Any]:
    network = backbone(name, bench.size)
    network = peer_network(library, network).to(bench.device).eval().half()
    run = predicting(network, cloud, None)
    found: dict[str, Any] = {"ms": bench.gauge.milliseconds(run, **quick(bench, 9))}
    return found | bench.details(run)
