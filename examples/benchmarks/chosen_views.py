"""What a step of DITR carries, and how long it takes, where the loader chooses the view of each point.

Crops of ScanNet's training size, each with 10 views, whose maps are known: with positions in all views, of which
the network takes the last one; and with the view that the loader chose. The features must be equal to the bit.
Launches and waits are those that a GPU would have, counted on the CPU as by `launches.py`.

    python examples/benchmarks/chosen_views.py [--scenes 12] [--points 102400] [--threads 1]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import torch
from launches import counted
from markdown import table
from torch import Tensor

from dinomed3d.lifting import Last, on_devices
from pointseg.cloud import Cloud, collate
from pointseg.config.presets import recipe_for
from pointseg.ditr import PointImages
from pointseg.images.projected import ChosenView, EveryView, Projected
from pointseg.loading.to_cloud import to_cloud
from pointseg.scene import Scene

SIZE, PATCH, CHANNELS = (420, 560), 14, 384
RECIPE = replace(recipe_for("scannet", "minkunet", "small"), features=("coord",))
FIELDS = ("image_coord", "image_mask", "image_view")
SEEN = 0.3
"""Share of the points that a view sees."""


def sample(seed: int, given: argparse.Namespace, keep: Projected) -> Cloud:
    """A crop in which the points are seen by random views; what is kept of the projection is the question."""
    rng = np.random.default_rng(seed)
    coord = rng.uniform(0, 4, (given.points, 3)).astype(np.float32)
    for view in range(given.views):
        uv = torch.from_numpy(rng.uniform((0, 0), SIZE[::-1], (given.points, 2)).astype(np.float32))
        seen = torch.from_numpy(rng.random(given.points) < SEEN)
        keep.add(view, 0, uv, seen, torch.ones(given.points))
    scene = keep.add_to(Scene(coord=coord, fields={"grid_coord": (coord * 50).astype(np.int32)}))
    # as through the crop of training: all fields are selected together
    scene = scene.select(rng.permutation(given.points))
    return to_cloud(scene, RECIPE)


def seconds(run: Callable[[], object], rounds: int = 3) -> float:
    """Processor time, the least of some rounds: other work disturbs it less than time on the clock."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--points", type=int, default=102_400)
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    kinds: tuple[tuple[str, Callable[[], Projected]], ...] = (
        ("in all views", lambda: EveryView(given.points, given.views)),
        ("in the chosen view", lambda: ChosenView(given.points, given.views, Last())),
    )
    cells = SIZE[0] // PATCH, SIZE[1] // PATCH
    random = torch.Generator().manual_seed(0)
    maps = torch.randn(given.scenes, given.views, CHANNELS, *cells, generator=random)
    network = PointImages(None, channels=CHANNELS, stride=PATCH, image_size=SIZE)
    rows, features = [], []
    for title, keep in kinds:
        loading = seconds(lambda keep=keep: sample(0, given, keep()))  # type: ignore[misc]
        cloud = collate([sample(seed, given, keep()) for seed in range(given.scenes)])
        carried = [getattr(cloud, name) for name in FIELDS]
        size = sum(values.nbytes for values in carried if values is not None)
        cloud = replace(cloud, image_maps=maps)

        def lift(cloud: Cloud = cloud) -> Tensor:
            return network(cloud)[0]

        lifting = seconds(lift)
        with patch.object(on_devices, "is_cpu", lambda device: False):
            counts = counted(lift)
        times = f"{1000 * loading:.0f}", f"{1000 * lifting:.0f}"
        rows.append((title, f"{size / 1e6:.1f}", *times, str(counts.launches), str(counts.waits)))
        features.append(lift())
    print(
        f"{given.scenes} crops of {given.points} points, {given.views} views, {given.threads} thread"
    )
    print(table("positions|MB a step|sample, ms|features on points, ms|launches|waits", rows))
    print("features are equal to the bit:", torch.equal(*features))
    if not torch.equal(*features):
        raise SystemExit("features differ")


if __name__ == "__main__":
    main()
