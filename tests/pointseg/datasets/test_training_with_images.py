"""Every dataset with images takes a training step with them, at the image size of its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pointseg.config.folder_recipe import fit_to_dataset
from pointseg.config.presets import images_of, recipe_for
from pointseg.datasets import open_dataset
from pointseg.datasets.nuscenes.cameras import CHANNELS
from pointseg.datasets.nuscenes.prepare import prepare as prepare_nuscenes
from pointseg.datasets.s3dis.prepare import prepare as prepare_s3dis
from pointseg.datasets.semantickitti.prepare import prepare as prepare_kitti
from pointseg.datasets.structured3d.prepare import prepare as prepare_structured3d
from pointseg.datasets.waymo.prepare import prepare as prepare_waymo
from pointseg.loading.samples import Samples, join, or_raise
from pointseg.models.image_encoder import open_image_features
from pointseg.models.network import build_segmenter
from tests.pointseg.datasets.folder import test_cameras as folders
from tests.pointseg.datasets.nuscenes import test_cameras as drives
from tests.pointseg.datasets.official import write_kitti, write_room
from tests.pointseg.datasets.official_images import write_picture
from tests.pointseg.datasets.s3dis import test_images as rooms
from tests.pointseg.datasets.scannet import test_images as scans
from tests.pointseg.datasets.structured3d.box_room import write_room as write_rendered_room
from tests.pointseg.datasets.waymo.drive import write_drive
from tests.pointseg.tiny import RECIPE

ENCODER = "vit_small_patch14_dinov2"
TINY = {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 28}


def ahead(columns: int) -> Any:
    """60 points on the road before a car; further columns are 0."""
    rng = np.random.default_rng(0)
    found = np.zeros((60, columns), "<f4")
    found[:, :3] = rng.uniform((6, -2, -1.5), (15, 2, 0), (60, 3))
    return found


def of_scannet(root: Path) -> Path:
    return scans.prepared(root)


def of_s3dis(root: Path) -> Path:
    write_room(root / "raw", "Area_1", "office_1", {"floor_1": rooms.FLOOR})
    for number in range(3):
        rooms.write_image(root / "images", "area_1", "office_1", number)
    prepare_s3dis(root / "raw", root / "out", normals="none", images=root / "images")
    return root / "out"


def of_semantickitti(root: Path) -> Path:
    scan = write_kitti(root) / "00"
    for number in ("000000", "000001"):
        write_picture(scan / "image_2" / f"{number}.png", 370, 1226)
        ahead(4).tofile(scan / "velodyne" / f"{number}.bin")
        np.full(60, 40, "<u4").tofile(scan / "labels" / f"{number}.label")
    prepare_kitti(root, root)
    return root


def of_nuscenes(root: Path) -> Path:
    drives.write(root)
    write_picture(root / "none.jpg", 900, 1600)
    for path in (root / "samples" / "LIDAR_TOP").glob("*.bin"):
        ahead(5).tofile(path)
    for path in (root / "lidarseg" / drives.VERSION).glob("*.bin"):
        np.full(60, 17, np.uint8).tofile(path)
    prepare_nuscenes(root, root, images=root)
    return root


def of_structured3d(root: Path) -> Path:
    write_rendered_room(root / "raw")
    prepare_structured3d(root / "raw", root / "out", images=root / "raw")
    return root / "out"


def of_waymo(root: Path) -> Path:
    write_drive(root / "raw")
    prepare_waymo(root / "raw", root / "out", images=root / "raw")
    return root / "out"


def of_folder(root: Path) -> Path:
    write_picture(root / "v.png", 40, 60)
    folders.dataset(root, folders.WALL, "cameras.json", classes=["wall", "floor"])
    folders.manifest(root / "cameras.json", np.eye(4))
    return root


@pytest.mark.parametrize(
    ("write", "size", "views"),
    [
        (of_scannet, (420, 560), 3),
        (of_s3dis, (518, 518), 3),
        (of_semantickitti, (378, 1246), 1),
        (of_nuscenes, (378, 672), len(CHANNELS)),
        (of_structured3d, (350, 630), 3),
        (of_waymo, (308, 672), 5),
        (of_folder, (476, 644), 1),
    ],
    ids=["scannet", "s3dis", "semantickitti", "nuscenes", "structured3d", "waymo", "folder"],
)  # fmt: skip
def test_a_step(
    tmp_path: Path, write: Callable[[Path], Path], size: tuple[int, int], views: int
) -> None:
    name = write.__name__.removeprefix("of_")
    dataset = open_dataset(name, write(tmp_path))
    recipe = fit_to_dataset(recipe_for(name, RECIPE.backbone, "small"), dataset)
    if "normal" in recipe.features:
        recipe = replace(recipe, features=("color",))
    images = replace(images_of(recipe, ENCODER), encoder_config=TINY)
    features = open_image_features(images, weights="none", cache=None, log=lambda text: None)
    assert features.config.size == size
    recipe = replace(
        recipe,
        images=features.config,
        backbone_config=RECIPE.backbone_config,
        augmentation=replace(recipe.augmentation, elastic_probability=0.0),
    )
    with_images = replace(recipe, train_splits=(recipe.train_splits[0],))
    samples = Samples(dataset, with_images, training=True, seed=0)
    cloud = or_raise(join([samples[step, 0] for step in range(2)]))
    assert cloud.images is not None and cloud.images.shape == (2, views, 3, *size)
    network = build_segmenter(recipe, len(dataset.classes.names), features.encoder).train()
    _, seen = network.images(cloud)  # type: ignore[misc]
    assert seen.any()
    F.cross_entropy(network(cloud), cloud.segment, ignore_index=-1).backward()  # type: ignore[arg-type]
    trained = [p for key, p in network.named_parameters() if "image" in key and p.requires_grad]
    assert trained and any(p.grad is not None and bool(p.grad.any()) for p in trained)
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in network.parameters())
