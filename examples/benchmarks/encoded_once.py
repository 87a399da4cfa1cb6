"""Encoding the images of a test scene once, compared with encoding them for every fragment, as the reference does.

One scene and one network with random weights are tested twice with the published protocol: every point of
every voxel, several augmentations of the cloud. Ours encodes each image once; the reference runs the encoder
again for every fragment of every augmentation. The labels must be the same.

    python examples/benchmarks/encoded_once.py [--encoder vit_small_patch16_dinov3] [--tta nuscenes]

Neither time nor agreement depends on the weights. `--tiny` takes a tiny encoder.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from markdown import table
from numpy.typing import NDArray
from textured_rooms import TexturedRooms
from torch import Tensor

from pointseg.cloud import Cloud
from pointseg.config.presets import recipe_for
from pointseg.config.recipe import InferenceConfig
from pointseg.ditr import PointImages
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.evaluation.tile_predictor import TilePredictor
from pointseg.images.config import ImageConfig
from pointseg.loading.scene_images import ImageLoader, ImageSet, SceneImageLoader
from pointseg.models.image_encoder import open_for
from pointseg.models.network import build_segmenter
from pointseg.scene import Scene


class OneByOne(TilePredictor):
    """Ours, but with one fragment at a time, so that nothing else differs."""

    def predict(self, tile: Scene, maps: Tensor | None, **how: Any) -> NDArray[np.int32]:
        return super().predict(tile, maps, **how | {"max_points": 1})


class EachTime(OneByOne):
    """The reference: each fragment comes with images, which the network encodes."""

    images: Tensor

    def encode(self, images: ImageSet | None) -> Tensor | None:
        assert images is not None and images.images is not None
        self.images = torch.from_numpy(images.images)
        return None

    def _probabilities(self, cloud: Cloud, maps: Tensor | None) -> Tensor:
        with torch.inference_mode():
            found: Tensor = self.model(replace(cloud, images=self.images[None]))
        return found.float().softmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", default="vit_small_patch16_dinov3")
    parser.add_argument(
        "--tta", default="nuscenes", help="test-time augmentations of the cloud (10)"
    )
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--points", type=int, default=40_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    if given.tiny:
        given.points, given.views, given.tta = 2000, 2, "semantickitti"
    config = {"embed_dim": 24, "depth": 1, "num_heads": 2} if given.tiny else {}
    size = (60, 80) if given.tiny else (240, 320)
    encoder, images = open_for(
        ImageConfig(encoder=given.encoder, encoder_config=config, size=size, views=given.views),
        "none",
    )
    recipe = replace(
        recipe_for("folder", "pointnext", "small"),
        features=("color",), voxel_m=0.08, images=images, test=InferenceConfig(tta=given.tta),
    )  # fmt: skip
    rooms = TexturedRooms(views=given.views, points=given.points)
    name = rooms.scenes("test")[0]
    scene, views = SceneImageLoader(rooms, ImageLoader(images)).load(
        "test", name, rooms.load("test", name)
    )
    model = build_segmenter(recipe, len(rooms.classes), encoder).eval()

    encoded, encode = [0], PointImages.encode

    def counted(self: PointImages, some: Tensor) -> Tensor:
        encoded[0] += len(some)
        return encode(self, some)

    PointImages.encode = counted  # type: ignore[method-assign]
    some = scene.select(np.arange(min(500, len(scene))))
    ScenePredictor(
        model, recipe, len(rooms.classes), InferenceProtocol(config=recipe.test, single_pass=True)
    ).predict_labels(
        some,
        images=views,  # a first run, which is not measured
    )
    protocol = InferenceProtocol(config=recipe.test)
    rows, labels = [], []
    for title, kind in (("once (ours)", OneByOne), ("for each fragment and pass", EachTime)):
        predictor = ScenePredictor(model, recipe, len(rooms.classes), protocol)
        predictor.tile_predictor = kind(
            model, recipe, len(rooms.classes), protocol, device="cpu", precision="float32"
        )
        encoded[0], began = 0, time.perf_counter()
        labels.append(predictor.predict_labels(scene, images=views))
        rows.append((title, encoded[0], time.perf_counter() - began))
    same = float((labels[0] == labels[1]).mean())
    print(f"{len(scene)} points, {given.views} images of {size[0]} x {size[1]}, {given.encoder}")
    print(table("images are encoded|times|test of the scene, s",
                [(title, times, f"{seconds:.1f}") for title, times, seconds in rows]))  # fmt: skip
    print(f"images {rows[1][1] / rows[0][1]:.1f} times fewer, {rows[1][2] / rows[0][2]:.1f} times "
          f"faster; labels equal at {100 * same:.4f} % of the points")  # fmt: skip
    if not np.array_equal(*labels):
        raise SystemExit("labels differ")


if __name__ == "__main__":
    main()
