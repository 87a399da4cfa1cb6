"""Small posed images in files, and a dataset of them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from dinomed3d.lifting import Camera
from pointseg.datasets.named_scenes import require_scene, require_split
from pointseg.images.features.encoder import open_encoder
from pointseg.images.readers.frame import Frame
from pointseg.images.readers.image_files import ImageFile
from pointseg.scene import Scene
from tests.pointseg.evaluation.answers import CLASSES

TINY = dict(embed_dim=24, depth=2, num_heads=2, init_values=1.0)
ENCODER = "vit_small_patch16_dinov3"


def tiny_encoder(name=ENCODER):
    return open_encoder(name, "none", TINY)


def photo(path, *, seed=0, size=(40, 56)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def camera(size=(40, 56), focal=50.0, world_to_camera=None):
    height, width = size
    matrix = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    pose = torch.eye(4) if world_to_camera is None else torch.as_tensor(world_to_camera)
    return Camera(intrinsics=matrix, size=size, world_to_camera=pose)


def frame(path, **settings):
    return Frame(name=path.stem, camera=camera(**settings), image=ImageFile(path))


class Posed:
    """A dataset with images: split -> scene -> frames."""

    name = "posed"
    classes = CLASSES
    fields = frozenset({"color"})

    def __init__(self, held):
        self.held = held

    def splits(self):
        return tuple(self.held)

    def scenes(self, split):
        require_split(self.name, split, self.splits())
        return tuple(self.held[split])

    def frames(self, split, scene):
        require_scene(self.name, split, scene, self.scenes(split))
        return self.held[split][scene]

    def load(self, split, scene):
        coord = np.random.default_rng(0).random((50, 3), np.float32) + np.float32([-0.5, -0.5, 2])
        return Scene(coord=coord, fields={"color": np.full((50, 3), 9, np.float32)}, name=scene)


def photographed(root, *, scenes=2, images=5):
    """So many scenes in 'train', one with one image in 'test', and one there without any."""
    held = {
        "train": {
            f"s{s}": tuple(
                frame(photo(root / f"s{s}" / f"{i}.png", seed=9 * s + i)) for i in range(images)
            )
            for s in range(scenes)
        },
        "test": {"t": (frame(photo(root / "t" / "0.png", seed=99)),), "blind": ()},
    }
    return Posed(held)
