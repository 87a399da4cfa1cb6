"""A whole run on files: what each kind of result holds, in the rows and coordinates of the cloud."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import laspy
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from dinomed3d.runtime.errors import UserError
from pointseg.files import read_cloud
from pointseg.lifting.lift_cloud import lift_cloud
from pointseg.lifting.source import cameras_of
from pointseg.lifting.spec import LiftSpec
from tests.pointseg.lifting.floor import GREEN, POINTS, RED, SEEN, Colours, written

FAR = (700_000, 6_000_000, 0)


def spec(cloud: Path, out: Path, **changes) -> LiftSpec:
    made = LiftSpec(
        cloud=cloud,
        out=out,
        cameras=cameras_of(cloud, str(cloud.parent / "cameras.json"), None),
        encoder="colours",
        open_encoder=Colours,
        sample="nearest",
        picture=False,
        say=lambda text: None,
    )
    return replace(made, **changes)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("half", [False, True])
def test_files_of_features_have_the_rows_of_the_cloud(tmp_path, suffix, half, monkeypatch):
    monkeypatch.setattr("pointseg.lifting.lift_cloud.BLOCK_BYTES", 48)  # three points
    cloud, out = written(tmp_path, origin=FAR), tmp_path / f"out{suffix}"
    result = lift_cloud(spec(cloud, out, half=half))
    found = load_file(out) if suffix == ".safetensors" else dict(np.load(out))
    assert found["feat"].dtype == (np.float16 if half else np.float32)
    np.testing.assert_allclose(found["feat"][SEEN], [RED, GREEN, GREEN, RED], atol=1e-3)
    assert not found["feat"][~SEEN].any()
    assert found["seen"].tolist() == SEEN.tolist() == (found["views"] == 1).tolist()
    np.testing.assert_allclose(found["coord"], POINTS + FAR)
    assert (result.points, result.seen, result.shown, result.channels) == (7, 4, 4, 4)
    record = json.loads(Path(f"{out}.json").read_text())
    assert record["seen"] == 4 and record["views"][0]["points"] == 4


def test_features_of_each_view_are_those_of_the_points_it_shows(tmp_path):
    out = tmp_path / "out.npz"
    lift_cloud(spec(written(tmp_path), out, per_view=True))
    found = np.load(out)
    assert found["rows_0000"].tolist() == np.flatnonzero(SEEN).tolist()
    np.testing.assert_allclose(found["feat_0000"], [RED, GREEN, GREEN, RED], atol=1e-6)


@pytest.mark.parametrize("per_view", [False, True])
@pytest.mark.parametrize(("value", "fits"), [(-65504.0, True), (65505.0, False), (-65505.0, False)])
def test_features_that_half_precision_cannot_hold_are_refused(tmp_path, per_view, value, fits):
    class Constant(Colours):
        def maps(self, images):
            return (torch.full_like(super().maps(images)[0], value),)

    out = tmp_path / "out.npz"
    job = spec(written(tmp_path), out, half=True, per_view=per_view, open_encoder=Constant)
    if fits:
        lift_cloud(job)
        found = np.load(out)["feat_0000" if per_view else "feat"]
        assert found.min() == value and np.isfinite(found).all()
        return
    with pytest.raises(UserError, match="--dtype float16: cannot hold"):
        lift_cloud(job)
    assert not out.exists()


@pytest.mark.parametrize(
    ("pick", "origin"),
    [((1,), (0, 0, 0)), ((0.6, 0.6, 0.3), (0, 0, 0)), ((700_000.6, 6_000_000.6, 0.3), FAR)],
)
def test_similarity_is_that_to_the_point_of_the_files_row(tmp_path, pick, origin):
    out = tmp_path / "out.ply"
    result = lift_cloud(spec(written(tmp_path, origin=origin), out, pick=pick))
    found = read_cloud(out)
    wanted = [np.nan, 1, 0.5, np.nan, np.nan, 0.5, 1]
    np.testing.assert_allclose(found["similarity"], wanted, atol=1e-6)
    assert found["views"].tolist() == SEEN.astype(int).tolist()
    assert "point 1 " in result.picked
    np.testing.assert_array_equal(found.coord + found.origin, POINTS.astype(np.float32) + origin)


def test_intrinsics_of_another_size_are_named_once(tmp_path):
    cloud = written(tmp_path)
    cameras, said = tmp_path / "cameras.json", []
    manifest = json.loads(cameras.read_text())
    manifest["views"][0]["K"] = [[128, 0, 64], [0, 128, 64], [0, 0, 1]]
    cameras.write_text(json.dumps(manifest))
    lift_cloud(spec(cloud, tmp_path / "out.ply", say=said.append))
    assert len([text for text in said if "K is for another size" in text]) == 1


def test_colours_are_of_the_seen_points_alone(tmp_path):
    """The seen points differ along one direction, which no number of unseen ones changes."""
    out = tmp_path / "out.ply"
    many = np.concatenate([POINTS, np.full((40, 3), 9.0)])
    lift_cloud(spec(written(tmp_path, points=many), out))
    color = read_cloud(out)["color"]
    grey = color[[0, 3, 4, *range(7, 47)]]
    assert (grey == grey[0, 0]).all()
    red, green = color[[1, 6]], color[[2, 5]]
    assert (red[0] == red[1]).all() and (green[0] == green[1]).all()
    assert np.abs(red[0] - green[0]).tolist() == [255, 0, 0]


def test_las_keeps_offset_scale_and_every_coordinate(tmp_path):
    measured = POINTS[np.isfinite(POINTS).all(1)]
    cloud = written(tmp_path, "floor.laz", origin=FAR, points=measured)
    before = laspy.read(cloud)
    before.change_scaling([0.001, 0.002, 0.01], [699_000.5, 5_999_000.25, -3])
    before.add_extra_dim(laspy.ExtraBytesParams("kept", "f8"))
    before["kept"] = np.arange(5) / 3
    before.write(cloud)
    out = tmp_path / "out.laz"
    lift_cloud(spec(cloud, out, pick=(0,)))
    after = laspy.read(out)
    assert after.header.scales.tolist() == [0.001, 0.002, 0.01]
    assert after.header.offsets.tolist() == [699_000.5, 5_999_000.25, -3]
    for axis in "XYZ":
        np.testing.assert_array_equal(after[axis], before[axis])
    np.testing.assert_array_equal(after["kept"], before["kept"])
    np.testing.assert_allclose(after["similarity"], [1, 0.5, np.nan, 0.5, 1], atol=1e-6)
    assert after["views"].tolist() == [1, 1, 0, 1, 1]


def test_the_picture_shows_images_in_their_colours(tmp_path):
    out = tmp_path / "out.npz"
    lift_cloud(spec(written(tmp_path), out, picture=True))
    with Image.open(f"{out}.png") as picture:
        pixels = np.asarray(picture)
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    for least, part in ((10_000, pixels[:height, :width]), (10, pixels[height:, :width])):
        for color in ((255, 0, 0), (0, 255, 0)):  # the image, and its colours on the points
            assert (part == color).all(2).sum() > least


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pick": (0,)}, "point 0 has no position"),
        ({"pick": (3,)}, "no image shows point 3.*point 5"),
        ({"pick": (7,)}, "0 to 6"),
        ({"pick": (1.5,)}, "0 to 6"),
        ({"pick": (1, 2)}, "one row, or x, y and z"),
        ({"per_view": True}, "--per-view"),
        ({"out": "floor.ply"}, "would replace the cloud"),
        ({"out": "cameras.json"}, "--overwrite"),
        ({"out": "out.bin"}, "colours"),
        ({"out": "out.las"}, "without a position"),
        ({"out": "out.doc"}, "must end in"),
    ],
)
def test_what_it_refuses_before_it_encodes(tmp_path, changes, named):
    def never():
        encoder = Colours()
        encoder.maps = None  # type: ignore[method-assign,assignment]
        return encoder

    cloud = written(tmp_path)
    out = tmp_path / changes.get("out", "out.ply")
    with pytest.raises(UserError, match=named):
        lift_cloud(spec(cloud, open_encoder=never, **{**changes, "out": out}))


def test_features_that_do_not_fit_on_the_disk_are_refused(tmp_path, monkeypatch):
    from pointseg.lifting import lift_cloud as module

    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("", (), {"free": 100})())
    with pytest.raises(UserError, match="--dtype"):
        lift_cloud(spec(written(tmp_path), tmp_path / "out.npz"))
