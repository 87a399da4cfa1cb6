"""Predicting a volume with and without sharing the tokens of slices between overlapping windows.

The encoder's first blocks say the same of a slice in every window that holds it, where every slice is encoded; ours
computes that once. The peer is the same predictor that encodes each window anew. Both take the same windows in turns;
the logits must be the same. Nothing depends on the weights, which are random.

    python examples/benchmarks/shared_slices.py [--data prostate] [--gib 6] [--patches 3]

`--tiny` takes a tiny network.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from fingerprints import FINGERPRINTS, size
from markdown import table
from torch import Tensor

from dinomed3d.inference.nnunet.predictor import Predictor
from dinomed3d.inference.nnunet.slice_feature_cache import halo_of
from dinomed3d.inference.nnunet.sliding_window import WindowGrid, predict_windows
from dinomed3d.inference.nnunet.window_networks import HaloNetwork
from dinomed3d.networks import build_network

MIRRORING = {"none": None, "in plane": (1, 2), "all axes": (0, 1, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="prostate", choices=sorted(FINGERPRINTS))
    parser.add_argument(
        "--gib", type=float, default=6, help="memory that the network is planned for (6)"
    )
    parser.add_argument(
        "--patches", type=int, default=3, help="depth of the volume, in patches (3)"
    )
    parser.add_argument("--mirroring", nargs="+", default=["none"], choices=MIRRORING)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    sizing = size(given.data, given.gib)
    patch, spec = sizing.trial.patch, sizing.spec
    if given.tiny:
        patch, given.repeats = (6, 64, 64), 1
        small = {"embed_dim": 24, "depth": 4, "num_heads": 2}
        spec = replace(
            spec, encoder="vit_small_patch16_dinov3", encoder_overrides=small, taps=(1, 3)
        )
    network = build_network(1, 3, **spec.to_arch_kwargs()).eval()
    volume = torch.randn(1, given.patches * patch[0], *patch[1:])
    rows = [row(name, network, volume, patch, given.repeats) for name in given.mirroring]
    print(
        f"{given.data}, {given.gib:g} GiB, patch {' x '.join(map(str, patch))}, {spec.encoder}, volume "
        f"{' x '.join(map(str, volume.shape[1:]))}, {given.threads} threads, float32\n"
    )
    header = "mirroring|slices encoded|s, each window anew|slices encoded, shared|s, shared|ratio"
    print(table(header, rows))


def row(
    name: str, network: torch.nn.Module, volume: Tensor, patch: tuple[int, ...], repeats: int
) -> list[str]:
    """Processor seconds of both, in turns, the least of the repeats."""
    shared, anew = (
        Predictor([network], mirroring=MIRRORING[name], device=torch.device("cpu"), precision=None)
        for _ in range(2)
    )
    (cache,) = shared.caches
    anew.networks, anew.caches = [HaloNetwork(cache.network, halo_of(network))], []
    seconds: dict[Predictor, list[float]] = {shared: [], anew: []}
    found = {}
    for _ in range(repeats):
        for predictor, times in seconds.items():
            begin = time.process_time()
            found[predictor] = predict(predictor, volume, patch)
            times.append(time.process_time() - begin)
    torch.testing.assert_close(found[shared], found[anew], atol=1e-3, rtol=1e-3)
    windows = WindowGrid.over(volume.shape[1:], patch, 0.5).count * len(shared.flips)
    least = min(seconds[anew]), min(seconds[shared])
    encoded = cache.encoded // repeats
    return [
        name,
        str(windows * patch[0]),
        f"{least[0]:.1f}",
        str(encoded),
        f"{least[1]:.1f}",
        f"{least[1] / least[0]:.2f}",
    ]


def predict(predictor: Predictor, volume: Tensor, patch: tuple[int, ...]) -> Tensor:
    """(3, D, H, W) logits."""
    grid = WindowGrid.over(volume.shape[1:], patch, 0.5)
    predictor.clear_cache()
    rows = (0, volume.shape[2])
    with torch.inference_mode():
        slabs = predict_windows(
            volume, grid, rows, predictor.predict, heads=3, batch=1, halo=predictor.halo
        )
        return torch.cat([slab.logits for slab in slabs], 1)


if __name__ == "__main__":
    main()
