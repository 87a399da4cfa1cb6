"""Which cameras belong to a cloud: the same in prediction, lifting and training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from pointseg.datasets.axes import FileAxes
from pointseg.datasets.folder.dataset import Folder
from pointseg.images.config import ImageConfig
from pointseg.lifting.source import read_source
from pointseg.prediction.inputs.cloud_images import CloudImages, camera_rule

COORD = np.random.default_rng(0).random((200, 3)).astype(np.float32)


def write_cameras(folder, name):
    """One view, whose image is called like the cloud."""
    Image.new("RGB", (64, 48)).save(folder / f"{name}.png")
    view = {
        "image": f"{name}.png",
        "width": 64,
        "height": 48,
        "K": [[50, 0, 32], [0, 50, 24], [0, 0, 1]],
        "pose": np.eye(4).tolist(),
    }
    content = {
        "format": "pointseg-cameras-1",
        "pose_direction": "world_to_camera",
        "views": [view],
    }
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "name"), [("room", "room"), ("room.v2", "room.v2"), ("sweep.pcd.bin", "sweep")]
)
def test_a_scene_has_one_name_everywhere(tmp_path, file, name):
    clouds = tmp_path / "train"
    for one in ("room", "room.v2"):
        (clouds / one).mkdir(parents=True)
        np.save(clouds / one / "coord.npy", COORD)
        write_cameras(clouds, one)
    np.column_stack([COORD, COORD[:, :2]]).astype("<f4").tofile(clouds / "sweep.pcd.bin")
    write_cameras(clouds, "sweep")
    (tmp_path / "dataset.yaml").write_text(
        "classes: [a]\nfeatures: []\nvoxel_m: 0.02\nsplits: {x: [train]}\ncameras: '{folder}/{scene}.json'\n"
    )
    dataset = Folder(tmp_path, labelled=False)
    assert sorted(dataset.scenes("x")) == ["room", "room.v2", "sweep"]
    assert [frame.name for frame in dataset.frames("x", name)] == [name]
    path, rule = clouds / file, camera_rule("{scene}.json", None)
    found = CloudImages.find(path, ImageConfig(), rule, FileAxes())
    assert [frame.name for frame in found.frames] == [name]
    assert rule is not None
    lifted = read_source(path, rule, unit_m=None, up="z", say=print)
    assert [frame.name for frame in lifted.frames] == [name]
