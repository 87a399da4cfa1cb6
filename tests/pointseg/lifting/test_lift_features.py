"""pointseg.lift_features: the right feature in the right row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pointseg
from dinomed3d.lifting import Cameras, FeatureMap, Last, Max, Mean, Nearest, lift
from dinomed3d.runtime.errors import UserError
from pointseg.images.visibility import VisibilityConfig
from pointseg.lifting.encoding import encoded_size
from tests.pointseg.lifting.floor import GREEN, POINTS, RED, SEEN, Colours, K, frame, halves, pose

BARE = VisibilityConfig(occlusion="none")


def test_rows_are_those_of_the_points_also_where_nothing_was_measured():
    found, seen = pointseg.lift_features(POINTS, [frame()], Colours(), sample="nearest")
    assert seen.tolist() == SEEN.tolist()
    np.testing.assert_allclose(found[SEEN], [RED, GREEN, GREEN, RED], atol=1e-6)
    assert not found[~SEEN].any()


def test_positions_far_from_zero_keep_their_place():
    far = np.array(
        [10_000_000.0, 6_000_000.0, 0]
    )  # float32 has whole metres of x: 1.75 becomes 2, outside
    moved = pose()
    moved[:3, 3] -= far
    view = pointseg.array_frame(halves(), K, world_to_camera=moved)
    found, seen = pointseg.lift_features(POINTS + far, [view], Colours(), sample="nearest")
    assert seen.tolist() == SEEN.tolist()
    np.testing.assert_allclose(found[SEEN], [RED, GREEN, GREEN, RED], atol=1e-6)


@pytest.mark.parametrize(
    ("fuse", "made"), [("mean", Mean), ("last", Last), ("nearest", Nearest), ("max", Max)]
)
def test_it_fuses_as_the_core_does(fuse, made, monkeypatch):
    monkeypatch.setattr("pointseg.lifting.lift_features.BLOCK", 7)
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 2, (50, 3)) * [1, 1, 0.2]
    images = rng.integers(0, 256, (3, 64, 64, 3), np.uint8)
    views = [frame(image, x=0.5 * k, name=str(k)) for k, image in enumerate(images)]
    found, seen = pointseg.lift_features(points, views, Colours(), fuse=fuse, visibility=BARE)
    encoder = Colours()
    mean, std = (torch.tensor(v)[:, None, None] for v in pixel_scale())
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    maps = encoder((pixels - mean) / std)[0]
    assert isinstance(maps, FeatureMap)
    wanted, shown = lift(
        maps, Cameras([v.camera for v in views]), torch.from_numpy(points), fuse=made()
    )
    assert seen.tolist() == shown.tolist() and 0 < seen.sum()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def pixel_scale():
    from dinomed3d.lifting.dino import LVD_MEAN, LVD_STD

    return LVD_MEAN, LVD_STD


def test_a_depth_map_hides_what_lies_behind_it():
    points = np.array([[0.5, 0.5, 0], [0.5, 0.5, 1.0]])
    image = pointseg.array_frame(halves(), K, world_to_camera=pose(), depth=np.full((64, 64), 2.0))
    assert pointseg.lift_features(points, [image], Colours())[1].tolist() == [True, False]


@pytest.mark.parametrize(
    ("changes", "kind", "named"),
    [
        ({"points": np.zeros((3, 2))}, ValueError, "points"),
        ({"points": np.zeros((3, 3), int)}, ValueError, "points"),
        ({"frames": frame()}, ValueError, "frames.*array_frame.*got Frame"),
        ({"frames": [(halves(), K)]}, ValueError, "frames.*got tuple"),
        ({"frames": []}, ValueError, "frames"),
        ({"image_size": 64}, ValueError, "image_size"),
        ({"device": "gpu"}, UserError, "auto, cpu, cuda, mps"),
        ({"fuse": "median"}, ValueError, "fuse"),
        ({"sample": "cubic"}, ValueError, "sample"),
        ({"encoder": "vit_small_patch14_dinov2"}, UserError, "weights"),
        ({"image_size": (64, 60)}, UserError, "image_size"),
        ({"points": POINTS[3:5]}, UserError, "none of its 1 points is visible"),
    ],
)
def test_what_it_refuses(changes, kind, named):
    given = {"points": POINTS, "frames": [frame()], "encoder": Colours(), **changes}
    with pytest.raises(kind, match=named):
        pointseg.lift_features(**given)


def test_tensors_are_taken_as_arrays_are():
    view = pointseg.array_frame(
        torch.from_numpy(halves()),
        torch.tensor(K, dtype=torch.float64),
        world_to_camera=torch.from_numpy(pose()),
        distortion=torch.zeros(5),
    )
    points = torch.from_numpy(POINTS).requires_grad_()
    found, seen = pointseg.lift_features(points, [view], Colours(), sample="nearest")
    wanted, _ = pointseg.lift_features(POINTS, [frame()], Colours(), sample="nearest")
    assert seen.tolist() == SEEN.tolist()
    np.testing.assert_array_equal(found, wanted)


def test_real_weights_by_the_name_of_their_file(shared, tmp_path, monkeypatch):
    (tmp_path / "dinov2.safetensors").symlink_to(shared / "weights/dinov2_vits14.safetensors")
    monkeypatch.chdir(tmp_path)
    points, frames = POINTS, [frame()]
    feats, seen = pointseg.lift_features(
        points, frames, encoder="vit_small_patch14_dinov2", weights="dinov2.safetensors"
    )
    assert feats.shape == (len(POINTS), 384) and seen.tolist() == SEEN.tolist()
    left, right = feats[SEEN][[0, 1]]  # of the red and the green half
    assert np.linalg.norm(left - right) > 0.1 * np.linalg.norm(left)


def test_features_that_do_not_fit_are_refused_before_images_are_read(monkeypatch):
    monkeypatch.setattr("pointseg.lifting.lift_features.free_bytes", lambda: 100)
    with pytest.raises(UserError, match="pointseg-lift"):
        pointseg.lift_features(POINTS, [frame()], Colours())


@pytest.mark.parametrize(
    ("size", "patch", "wanted"),
    [
        ((480, 640), 14, (476, 644)),  # as large as it is
        ((375, 1242), 14, (378, 1246)),
        ((900, 1600), 14, (518, 924)),  # reduced to 480,000 pixels
        ((64, 64), 8, (64, 64)),
        ((3, 3), 14, (14, 14)),
    ],
)
def test_images_are_resized_to_whole_patches_of_about_their_own_size(size, patch, wanted):
    assert encoded_size(size, patch) == wanted
