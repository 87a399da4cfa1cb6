"""Organised clouds: the camera fitted to the points, image and depths from the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pointseg.files.table.errors import CloudFileError
from pointseg.images.projection import compute_visibility
from pointseg.images.readers.frame import ImagesError
from pointseg.images.readers.organised import fit_pinhole, grid_size, organised_frame, read_grid
from pointseg.images.visibility import VisibilityConfig
from tests.pointseg.images.given import scene

HEIGHT, WIDTH = 24, 32


def surface(scale: float = 1.0) -> NDArray[np.float32]:
    """(H, W, 3): a slanted plane seen by f = 20, 22 and c = 15, 12.5; a corner is unknown."""
    v, u = np.meshgrid(np.arange(HEIGHT) + 0.5, np.arange(WIDTH) + 0.5, indexing="ij")
    z = 2 + 0.01 * u + 0.02 * v
    xyz = np.stack([(u - 15) / 20 * z, (v - 12.5) / 22 * z, z], 2) * scale
    xyz[:4, :5] = np.nan
    return xyz.astype(np.float32)


def write(path: Path, xyz: NDArray[np.float32], *, color: bool = True) -> NDArray[np.uint32]:
    height, width = xyz.shape[:2]
    rgb = np.random.default_rng(0).integers(0, 1 << 24, (height, width), np.uint32)
    rows = np.zeros(height * width, [("xyz", "<f4", 3), ("rgb", "<u4")])
    rows["xyz"], rows["rgb"] = xyz.reshape(-1, 3), rgb.ravel()
    names = "x y z rgb" if color else "x y z other"
    header = (
        f"VERSION 0.7\nFIELDS {names}\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH {width}\n"
        f"HEIGHT {height}\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {height * width}\nDATA binary\n"
    )
    path.write_bytes(header.encode() + rows.tobytes())
    return rgb


@pytest.mark.parametrize("unit_m", [1.0, 0.001])
def test_the_camera_is_found_and_every_point_falls_into_its_pixel(
    tmp_path: Path, unit_m: float
) -> None:
    path = tmp_path / "a.pcd"
    rgb = write(path, surface(1 / unit_m))
    found = organised_frame(path, unit_m=unit_m)
    assert found.name == "a" and found.camera.size == (HEIGHT, WIDTH)
    expected = np.array([[20, 0, 15], [0, 22, 12.5], [0, 0, 1]])
    assert found.camera.intrinsics.numpy() == pytest.approx(expected, abs=1e-4)
    image, depth = found.read_image(), found.read_depth()
    assert (image == np.stack([rgb >> 16, rgb >> 8 & 255, rgb & 255], 2)).all()
    xyz = surface()
    assert depth is not None and (depth[:4, :5] == 0).all()
    assert depth[4:] == pytest.approx(xyz[4:, :, 2])
    points = scene(xyz[np.isfinite(xyz[:, :, 0])])
    seen = compute_visibility(
        points, [found], VisibilityConfig(depth_tolerance_m=1e-3), (HEIGHT, WIDTH)
    )
    row, column = np.nonzero(np.isfinite(xyz[:, :, 0]))
    assert (seen["image_coord"][:, 0].astype(int) == np.stack([column, row], 1)).all()
    assert seen["image_mask"].all()


def test_a_changed_file_is_read_again_and_has_another_key(tmp_path: Path) -> None:
    path = tmp_path / "a.pcd"
    write(path, surface())
    one = organised_frame(path)
    key, width = one.image.key(), one.camera.size[1]
    write(path, surface()[:, :-2])
    two = organised_frame(path)
    assert two.camera.size[1] == width - 2 and two.image.key() != key
    assert read_grid(path).color.shape == (HEIGHT, WIDTH - 2, 3)


def test_clouds_that_are_no_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pcd"
    with pytest.raises(ImagesError, match="a.pcd: this image is missing"):
        organised_frame(path)
    with pytest.raises(CloudFileError, match=r"a\.pcd"):
        read_grid(path)
    write(path, surface().reshape(1, -1, 3))
    assert grid_size(path) == (HEIGHT * WIDTH, 1)
    with pytest.raises(ImagesError, match=r"is not organised \(WIDTH 768, HEIGHT 1\)"):
        organised_frame(path)
    write(path, surface(), color=False)
    with pytest.raises(ImagesError, match="has no colours"):
        organised_frame(path)
    turn = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    write(path, (surface() @ turn.T).astype(np.float32))
    with pytest.raises(ImagesError, match="does not fit a pinhole camera"):
        organised_frame(path)
    write(path, surface() * np.float32([1, 1, -1]))
    with pytest.raises(ImagesError, match="only 0 points with a z above 0"):
        organised_frame(path)
    write(path, surface() * np.float32([1, -1, 1]))
    with pytest.raises(ImagesError, match="focal lengths are 20 and -22"):
        organised_frame(path)


def test_a_fit_needs_points_in_two_directions() -> None:
    column = np.full((200, 3, 3), np.nan, np.float32)
    column[:, 1] = [0, 0, 2]
    with pytest.raises(ValueError, match="one row or column"):
        fit_pinhole(column)


def test_real_scenes(shared: Path) -> None:
    root = shared / "data" / "points" / "tabletop_rgbd"
    for path in (root / "train" / "learn0.pcd", root / "test" / "test31.pcd"):
        intrinsics, error = fit_pinhole(read_grid(path).xyz)
        expected = np.array([[525, 0, 320], [0, 525, 240], [0, 0, 1]])
        assert intrinsics == pytest.approx(expected, abs=1e-4) and error < 1e-3
