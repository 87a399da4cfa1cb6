"""The examples of docs/data.md are accepted, and make the cameras that the datasets' own readers make."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from pointseg.images.readers.manifest import read_manifest
from tests import ROOT
from tests.docs.pages import block


def defined(code: str) -> dict:
    """The names that a block defines."""
    names: dict = {}
    exec(code, names)
    return names


def test_every_key_is_explained():
    from pointseg.datasets.folder import description
    from pointseg.images.readers import manifest

    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))))
    assert {*description.KEYS, *manifest.SHARED, *manifest.OWN} - rows == set()


def test_kitti_manifest_projects_as_the_calibration_says(tmp_path):
    kitti_manifest = defined(block("docs/data.md", "def kitti_manifest"))["kitti_manifest"]
    P2 = np.array([[718.0, 0, 607.0, 45.0], [0, 718.0, 185.0, -0.3], [0, 0, 1, 0.005]])
    Tr = np.array([[0, -1, 0, 0.01], [0, 0, -1, -0.08], [1, 0, 0, -0.27]], float)
    manifest = kitti_manifest(P2, Tr, "000000.png", 1241, 376)
    (tmp_path / "cameras.json").write_text(json.dumps(manifest))
    (frame,) = read_manifest(tmp_path / "cameras.json")
    points = np.array([[10.0, 1.0, -0.5], [25.0, -3.0, 1.0]])
    u, v, w = P2 @ np.vstack([Tr, [0, 0, 0, 1]]) @ np.column_stack([points, np.ones(2)]).T
    import torch

    uv, _ = frame.camera.project(torch.from_numpy(points))
    np.testing.assert_allclose(uv.numpy(), np.column_stack([u / w, v / w]) + 0.5, atol=1e-9)


def test_nuscenes_view_follows_the_car(tmp_path):
    turned = {"rotation": [np.sqrt(0.5), 0, 0, np.sqrt(0.5)], "translation": [2.0, 0, 0]}
    still = {"rotation": [1, 0, 0, 0], "translation": [0.0, 0, 0]}
    forward = {"rotation": [0.5, -0.5, 0.5, -0.5], "translation": [1.0, 0, 1.5]}
    K = [[1000, 0, 800], [0, 1000, 450], [0, 0, 1]]
    nuscenes_view = defined(block("docs/data.md", "def nuscenes_view"))["nuscenes_view"]
    # the car has turned left by a quarter and moved 2 m when the image is taken
    view = nuscenes_view("a.jpg", {**forward, "camera_intrinsic": K}, turned, still, still)
    manifest = {"format": "pointseg-cameras-1", "views": [view]}
    (tmp_path / "cameras.json").write_text(json.dumps(manifest))
    (frame,) = read_manifest(tmp_path / "cameras.json")
    # in the world the camera stands at (2, 1, 1.5) and looks along y
    assert frame.camera.centre.tolist() == pytest.approx([2, 1, 1.5])
    import torch

    uv, depth = frame.camera.project(torch.tensor([[2.0, 11.0, 1.5], [3.0, 11.0, 0.5]]))
    assert depth.tolist() == pytest.approx([10, 10])
    np.testing.assert_allclose(uv.numpy(), [[800, 450], [900, 550]], atol=1e-6)


def test_descriptions_of_folders_are_accepted(tmp_path):
    from pointseg.datasets.folder.description import read_description

    for content in (
        block("docs/data.md", "splits: {train"),
        block("docs/tutorials/clouds.md", "classes:"),
        (ROOT / "examples/folder.yaml").read_text(encoding="utf-8"),
    ):
        (tmp_path / "dataset.yaml").write_text(content)
        assert read_description(tmp_path / "dataset.yaml", default_name="x").classes.names
