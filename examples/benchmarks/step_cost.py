"""Time, arithmetic and memory of one stage II training step, by component of the network.

Each component runs alone, forward and backward, on inputs of its true size, then the whole step. The shares
matter; the components do not add up to the last per cent. Memory of a component is what it saves for the
backward pass; for the whole step the memory of the process or the GPU is given too.

    python examples/benchmarks/step_cost.py --encoder vit_small_patch16_dinov3 --device cpu
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence

import psutil
import torch
from fingerprints import stock_rule
from markdown import table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from traced_steps import build

from dinomed3d.networks import NetworkSpec
from dinomed3d.training.step.precision import autocast, fast_precision
from planners.sizing import DatasetStats


def flat(output: Tensor | dict | Sequence | None) -> list[Tensor]:
    """All tensors of an output."""
    if isinstance(output, Tensor):
        return [output]
    if output is None:
        return []
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in flat(value)]


def measure(part: Callable[[], object], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of forward and backward, TFLOP of both, MiB saved for backward."""
    saved: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    seconds: list[float] = []
    for repeat in range(repeats + 1):  # the first one warms up and is counted, the others are timed
        counter = FlopCounterMode(display=False)
        hooks = torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor)
        start = time.perf_counter()
        if repeat == 0:
            with counter, hooks, autocast(device):
                outputs = [t for t in flat(part()) if t.requires_grad]
                if outputs:
                    torch.autograd.backward(outputs, [torch.ones_like(t) for t in outputs])
            flop = counter.get_total_flops()
        else:
            with autocast(device):
                outputs = [t for t in flat(part()) if t.requires_grad]
            if outputs:
                torch.autograd.backward(outputs, [torch.ones_like(t) for t in outputs])
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return {
        "seconds": sorted(seconds)[len(seconds) // 2],
        "tflop": flop / 1e12,
        "saved_mib": sum(saved.values()) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="vit_small_patch16_dinov3")
    parser.add_argument(
        "--patch", type=int, nargs=3, default=(32, 128, 128), metavar=("D", "H", "W")
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--token", type=int, default=8, help="side of a token, voxels")
    parser.add_argument("--step", type=int, default=1, help="every how many slices one is encoded")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    cnn = stock_rule(DatasetStats(spacing=(1, 1, 1), shape=args.patch, channels=1, classes=3))(
        80
    ).cnn
    spec = NetworkSpec(
        cnn=cnn, encoder=args.encoder, voxels_per_token=args.token, slices_per_token=args.step
    )
    network = build(spec, channels=1, classes=3, stage=2).to(device)
    volume = torch.randn(args.batch, 1, *args.patch, device=device)
    levels = [str(level) for level in spec.token_levels]
    with torch.no_grad(), autocast(device):
        images = network.images(volume)
        depth = images.shape[0] // args.batch
        taps = network.encoder(images, depth=depth)
        detail = network.detail(volume)
        semantic = {n: network.neck[n](taps, detail[int(n)].shape[2:]) for n in levels}

    def learning(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [t.detach().requires_grad_() for t in tensors]

    def neck() -> list[Tensor]:
        inputs = learning(taps)
        return [network.neck[n](inputs, detail[int(n)].shape[2:]) for n in levels]

    def fusion() -> list[Tensor]:
        return [network.fusion[n](*learning([semantic[n], detail[int(n)]])) for n in levels]

    components: dict[str, Callable[[], object]] = {
        "embedding": lambda: network.images(volume),
        "encoder (frozen) + LoRA + adapters": lambda: network.encoder(images, depth=depth),
        "neck": neck,
        "gated fusion": fusion,
        "detail stream": lambda: network.detail(volume),
        "decoder": lambda: network.decoder(learning(detail)),
    }
    modules = [network.embedding, network.encoder, network.neck, network.fusion, network.detail]
    costs = {name: measure(part, device, args.repeats) for name, part in components.items()}
    for name, module in zip(costs, [*modules, network.decoder], strict=True):
        costs[name]["parameters"] = sum(p.numel() for p in module.parameters()) / 1e6
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    whole = measure(lambda: network(volume), device, args.repeats)
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if device.type == "cuda"
        else psutil.Process().memory_info().rss / 2**20
    )
    total = {key: sum(cost[key] for cost in costs.values()) for key in ("seconds", "tflop")}
    print(f"{args.encoder}, patch {' x '.join(map(str, args.patch))}, batch {args.batch}, on")
    print(f"{device} ({platform.machine()}, {os.cpu_count()} cores), {fast_precision(device)}\n")
    rows = [
        [
            name,
            f"{cost['parameters']:.2f}",
            f"{cost['seconds']:.2f}",
            f"{cost['seconds'] / total['seconds']:.0%}",
            f"{cost['tflop']:.3f}",
            f"{cost['tflop'] / total['tflop']:.0%}",
            f"{cost['saved_mib']:.0f}",
        ]
        for name, cost in costs.items()
    ]
    count = sum(p.numel() for p in network.parameters()) / 1e6
    saved = f"{whole['saved_mib']:.0f}"
    numbers = (f"{count:.2f}", f"{whole['seconds']:.2f}", "", f"{whole['tflop']:.3f}", "", saved)
    rows.append(["**whole step**", *numbers])
    print(table("component|M parameters|s|share|TFLOP|share|saved MiB", rows))
    print(f"\nmemory after the step: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
