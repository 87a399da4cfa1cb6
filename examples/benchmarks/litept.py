"""LitePT (size S) compared with Point Transformer V3 on the CPU: time, memory and parameters.

The same cloud for both, 2 cm voxels of the surfaces of a room as in `sparse_convolution.py`, with six channels;
random weights. Each figure comes from processes of their own, alternating between the two, with one thread, after
a pass on a small cloud that is not counted. Seconds are those that the process computed (user and system time),
which other programs on the machine disturb less than the clock; least and median of the rounds. Memory is the peak
beyond the weights; a training step needs some for gradients and moments, too (AdamW).

    taskset -c 0 python examples/benchmarks/litept.py

`--tiny` runs both on a few points.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from own_process import peak, reset_peak, run_job
from sparse_convolution import CHANNELS, SIZES, cloud_of

from pointseg.backbones import build_backbone
from pointseg.cloud import Cloud

NETWORKS = ("litept", "ptv3")
MODES = ("forward", "step")


@dataclass(frozen=True)
class Job:
    """One measurement."""

    network: str
    """Of `NETWORKS`."""
    mode: str
    """Of `MODES`."""
    count: int
    """Points."""


def run(job: Job) -> dict[str, Any]:
    """Seconds, MiB and parameters of one job, in this process."""
    torch.manual_seed(0)
    network = build_backbone(job.network, in_channels=CHANNELS)
    network.train(job.mode == "step")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    small, cloud = cloud_of(min(2000, job.count)), cloud_of(job.count)

    def compute(points: Cloud) -> None:
        with torch.set_grad_enabled(job.mode == "step"):
            feat = network(points).feat
            if job.mode == "step":
                feat.square().mean().backward()

    compute(small)
    optimizer.zero_grad()
    before, start = reset_peak(), time.process_time()
    compute(cloud)
    if job.mode == "step":
        optimizer.step()
    seconds = time.process_time() - start
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"seconds": seconds, "mib": peak() - before, "parameters": parameters}


def compared(mode: str, count: int, rounds: int) -> str:
    """A row of the table."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in NETWORKS}
    for _ in range(rounds):
        for name in NETWORKS:
            found[name].append(run_job(__file__, Job(name, mode, count), threads=1))
    seconds = {name: [result["seconds"] for result in found[name]] for name in NETWORKS}
    mib = {name: min(result["mib"] for result in found[name]) for name in NETWORKS}
    cells = [f"{min(s):.2f} ({statistics.median(s):.2f})" for s in seconds.values()]
    cells.append(f"{min(seconds['litept']) / min(seconds['ptv3']):.2f}")
    cells += [f"{value:.0f}" for value in mib.values()]
    cells.append(f"{mib['litept'] / mib['ptv3']:.2f}")
    cells.append(" and ".join(f"{found[name][0]['parameters'] / 1e6:.1f} M" for name in NETWORKS))
    return f"| {mode} | {count} | {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="POINTS")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--rounds", type=int, default=3, help="processes for each figure")
    parser.add_argument("--tiny", action="store_true", help="both on a few points")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(run(Job(**json.loads(args.job)))))
        return 0
    if args.tiny:
        for name in NETWORKS:
            print(name, run(Job(name, "forward", 300)))
        return 0
    print(
        "| | points | LitePT, s: least (median) | PTv3, s | ratio | LitePT, MiB | PTv3, MiB | ratio | parameters |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for count in args.sizes:
        for mode in args.modes:
            print(compared(mode, count, args.rounds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
