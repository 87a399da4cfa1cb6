"""examples/benchmarks/launches.py counts what it says, and what it counts stays low."""

from __future__ import annotations

import sys

import pytest
import torch

from pointseg.ops.hardware.pieces import decided_for
from tests import ROOT

sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))
import launches
from sparse_convolution import cloud_of

ROW = torch.arange(6.0)
COUNTS = torch.tensor([2, 0, 1])


@pytest.mark.parametrize(
    ("run", "waits"),
    [
        (lambda: ROW.max().item(), 1),
        (lambda: float(ROW[0]), 1),
        (lambda: bool((ROW > 2).any()), 1),
        (lambda: ROW.tolist(), 1),
        (lambda: ROW.cpu(), 1),
        (lambda: ROW[ROW > 2], 1),
        (lambda: ROW.clone().__setitem__(ROW > 2, ROW[:3]), 1),
        (lambda: ROW.nonzero(), 1),
        (lambda: ROW.unique(), 1),
        (lambda: torch.bincount(COUNTS), 1),
        (lambda: torch.repeat_interleave(COUNTS, COUNTS), 1),
        (lambda: torch.repeat_interleave(COUNTS, COUNTS, output_size=3), 0),
        (lambda: ROW.new_tensor([1.0]), 1),
        (lambda: torch.tensor([1.0], device=ROW.device), 1),
        (lambda: torch.tensor([1.0]).to(ROW.device, non_blocking=True), 0),
        (lambda: torch.tensor([1.0]).to(ROW.device), 1),
        (lambda: ROW.to(torch.float64), 0),
        (lambda: ROW[COUNTS] + ROW.sort().values[:3], 0),
    ],
)
def test_waits(run, waits):
    assert launches.counted(run).waits == waits


def test_launches_and_bytes():
    counts = launches.counted(lambda: ROW.view(2, 3).T[1:] + torch.empty(2, 2))
    assert (counts.launches, counts.bytes) == (1, 3 * 4 * 4)  # neither views nor the allocation
    counts = launches.counted(lambda: ROW.index_select(0, COUNTS))
    assert (counts.launches, counts.bytes) == (1, 2 * 3 * 4 + 3 * 8)


MOST = {
    "ptv3": (330, 3),
    "minkunet": (350, 3),
    "pointnext": (1250, 26),
    "litept": (240, 3),
    "sonata": (290, 3),
}
"""Launches, and waits of the host: PTv3 waits for its grid, the counts of the clouds, and those of each level."""


@pytest.mark.parametrize("name", launches.NETWORKS)
def test_networks_ask_for_no_more_than_they_need(name):
    counts = launches.count_network(launches.build(name, small=True), cloud_of(300))
    most, waits = MOST[name]
    assert counts.waits <= waits, counts.by_place
    assert counts.launches <= most, counts.launched.most_common(20)


@pytest.mark.parametrize("name", launches.NETWORKS)
def test_training_waits_for_no_more_than_prediction(name):
    network = launches.build(name, small=True).train()
    network.shuffle_orders = False  # which are drawn on the host, and would be counted
    cloud = cloud_of(300)
    counts = launches.counted(lambda: network(cloud).feat.square().mean().backward())
    assert counts.launches > MOST[name][0] and counts.waits <= MOST[name][1], counts.by_place


@pytest.mark.parametrize("name", launches.NETWORKS)
def test_networks_give_the_same_on_both_ways(name):
    """Features, and gradients of all weights; PointNeXt in training, whose statistics are of all pairs."""
    found = []
    for kind in ("cpu", "cuda"):
        network = launches.build(name, small=True).train(name == "pointnext")
        with decided_for(kind):
            feat = network(cloud_of(400)).feat
            feat.square().mean().backward()
        found.append([feat, *(p.grad for p in network.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
