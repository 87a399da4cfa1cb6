"""Waymo's frames against the geometry that they were made from, and what costs a frame or a segment."""

from __future__ import annotations

import io
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pointseg.datasets import open_dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.waymo.classes import CLASSES
from pointseg.datasets.waymo.dataset import Waymo
from pointseg.datasets.waymo.images import ShippedProjection
from pointseg.datasets.waymo.prepare import prepare
from pointseg.evaluation.robustness import Corruption
from pointseg.images.projection import compute_visibility
from pointseg.images.visibility import VisibilityConfig
from pointseg.scene import Scene
from tests.pointseg.datasets.waymo.drive import (
    BEHIND_M,
    COLORS,
    LABELLED,
    SEGMENT,
    SHIFT,
    TIMES,
    WALL_M,
    vehicle,
    write_drive,
)

FREE = VisibilityConfig(occlusion="none")
CROPPED = (886, 48)
FIRST = f"{SEGMENT}/{LABELLED[0]}"
LAST = f"{SEGMENT}/{LABELLED[1]}"
IMAGE = "[CameraImageComponent]"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("official")
    write_drive(root)
    return root


@pytest.fixture(scope="module")
def dataset(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Waymo:
    out = tmp_path_factory.mktemp("prepared")
    assert prepare(source, out, images=source).failed == {}
    found = open_dataset("waymo", out)
    assert isinstance(found, Waymo)
    return found


def at_walls(scene: Scene) -> np.ndarray:
    """(N, 3) points in the coordinates of the walls."""
    pose = vehicle(int(scene.name.partition("/")[2]))
    return scene.coord @ pose[:3, :3].T + pose[:3, 3]


def cells(dataset: Waymo, scene: str) -> np.ndarray:
    return np.load(dataset.root / "train" / scene / "cell.npy")


def test_only_labelled_frames(dataset: Waymo) -> None:
    assert dataset.scenes("train") == (FIRST, LAST) and dataset.scenes("val") == ()


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_every_surface_is_at_its_place_with_its_label(dataset: Waymo, name: str) -> None:
    """The car drove 1 m during the sweep, and stands 2 m further in the last frame."""
    scene = dataset.load("train", name)
    points, segment, cell = at_walls(scene), scene["segment"], cells(dataset, name)
    top = cell[:, 0] == 1
    for label, axis, place in (
        ("road", 2, 0),
        ("building", 0, WALL_M),
        ("vegetation", 0, BEHIND_M),
    ):
        mine = segment == CLASSES.names.index(label)
        assert mine.sum() > 20 and np.abs(points[mine, axis] - place).max() < 5e-3
        assert (cell[mine, 1] == (2 if label == "vegetation" else 1)).all()
    assert (segment[~top] == -1).all() and (segment[top] >= 0).all()
    assert (scene["instance"] == np.where(segment == CLASSES.names.index("building"), 7, -1)).all()
    others = points[~top & (cell[:, 1] == 1)]
    assert np.minimum(np.abs(others[:, 2]), np.abs(others[:, 0] - WALL_M)).max() < 5e-3
    assert np.allclose(scene["strength"], np.tanh(0.5))


def test_first_returns_of_all_scanners_come_before_second_ones(dataset: Waymo) -> None:
    cell = cells(dataset, FIRST)
    order = cell[:, 1].astype(int) * 10 + cell[:, 0]
    assert (np.diff(order) >= 0).all() and set(order) == {11, 12, 13, 14, 15, 21, 22, 23, 24}


def seen(dataset: Waymo, name: str) -> tuple[Scene, Any]:
    frames = dataset.frames("train", name)
    return compute_visibility(dataset.load("train", name), frames, FREE, CROPPED), frames


def test_points_have_the_colours_of_their_surfaces(dataset: Waymo) -> None:
    scene, frames = seen(dataset, LAST)
    assert [frame.name for frame in frames] == [
        "FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT",
    ]  # fmt: skip
    assert all(frame.camera.size == CROPPED for frame in frames)
    assert (scene["image_mask"].sum(1) <= 1).all()  # the first projection alone
    kind = np.where(np.abs(at_walls(scene)[:, 2]) < 0.01, 18, 14)
    for view in (0, 1, 2):
        shown = scene["image_mask"][:, view]
        column, row = scene["image_coord"][shown, view].astype(int).T
        color = frames[view].read_image()[row, column].astype(int)
        right = np.abs(color - [COLORS[k] for k in kind[shown]]).max(1) < 60
        assert shown.sum() > 10 and right.mean() > 0.9


def test_the_shipped_projection_is_preferred(dataset: Waymo, source: Path, tmp_path: Path) -> None:
    """It is 3 pixels to the right of that of the calibration, which is used where it is not there."""
    shutil.copytree(source, tmp_path / "in")
    shutil.rmtree(tmp_path / "in" / "training" / "lidar_camera_projection")
    result = prepare(tmp_path / "in", tmp_path / "out", images=tmp_path / "in")
    assert any("lidar_camera_projection" in note for note in result.notes)
    plain = open_dataset("waymo", tmp_path / "out")
    assert isinstance(plain, Waymo)
    (shipped, _), (own, frames) = seen(dataset, FIRST), seen(plain, FIRST)
    assert frames[0].projection is None
    both = shipped["image_mask"] & own["image_mask"]
    away = (shipped["image_coord"] - own["image_coord"])[both]
    assert both.sum() > 40 and np.allclose(away, [SHIFT, 0], atol=0.02)


def test_upper_rows_are_cut_off(tmp_path: Path) -> None:
    np.save(tmp_path / "camera.npy", np.array([1, 1, 2], np.int8))
    np.save(tmp_path / "pixel.npy", np.array([[5, 393.5], [5, 394.5], [5, 800]], np.float32))
    pixel, mask = ShippedProjection(tmp_path, camera=1, top=394).read(3)
    assert pixel.tolist() == [[5, -0.5], [5, 0.5], [5, 406]] and mask.tolist() == [
        True,
        True,
        False,
    ]
    with pytest.raises(DatasetError, match="camera.npy"):
        ShippedProjection(tmp_path, camera=1, top=394).read(4)


def test_a_shifted_principal_point_comes_with_the_cut(dataset: Waymo) -> None:
    front, *_, side = dataset.frames("train", FIRST)
    assert front.camera.intrinsics[1, 2] == 900 - 394 and side.camera.intrinsics[1, 2] == 500
    (changed,) = Corruption(pixel_noise=2.0).corrupt_frames("a", [front])
    assert changed.projection is None
    (same,) = Corruption().corrupt_frames("a", [front])
    assert same.projection == front.projection


def rewrite(root: Path, tag: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = root / "training" / tag / f"{SEGMENT}.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path, row_group_size=2)


def _row(rows: list[dict[str, Any]], laser: int | None = 1) -> dict[str, Any]:
    """The row of the last labelled frame."""
    return next(
        row
        for row in rows
        if row["key.frame_timestamp_micros"] == TIMES[2] and row.get("key.laser_name", 1) == laser
    )


def _no_scanner(rows: list[dict[str, Any]]) -> None:
    rows.remove(_row(rows, 3))


def _wrong_shape(rows: list[dict[str, Any]]) -> None:
    _row(rows)["[LiDARComponent].range_image_return1.shape"] = [8, 40, 5]


def _huge_shape(rows: list[dict[str, Any]]) -> None:
    _row(rows)["[LiDARComponent].range_image_return1.shape"] = [2**20, 2**20, 4]


def _short_values(rows: list[dict[str, Any]]) -> None:
    _row(rows)["[LiDARComponent].range_image_return2.values"] = [1.0] * 7


def _unknown_class(rows: list[dict[str, Any]]) -> None:
    found = _row(rows)["[LiDARSegmentationLabelComponent].range_image_return1.values"]
    found[:] = [23] * len(found)


def _other_labels(rows: list[dict[str, Any]]) -> None:
    row, stem = _row(rows), "[LiDARSegmentationLabelComponent].range_image_return1"
    row[f"{stem}.values"], row[f"{stem}.shape"] = [0] * 16, [2, 4, 2]


def _no_pose(rows: list[dict[str, Any]]) -> None:
    rows.remove(_row(rows))


def _bent_pose(rows: list[dict[str, Any]]) -> None:
    _row(rows)["[VehiclePoseComponent].world_from_vehicle.transform"][0] = 5.0


@pytest.mark.parametrize(
    ("tag", "change", "named"),
    [
        ("lidar", _no_scanner, "SIDE_LEFT"),
        ("lidar", _wrong_shape, "range_image_return1"),
        ("lidar", _huge_shape, "range_image_return1"),
        ("lidar", _short_values, "range_image_return2"),
        ("lidar_segmentation", _unknown_class, "23"),
        ("lidar_segmentation", _other_labels, "lidar_segmentation"),
        ("lidar_pose", _no_pose, "lidar_pose"),
        ("vehicle_pose", _no_pose, "vehicle_pose"),
        ("vehicle_pose", _bent_pose, "world_from_vehicle"),
    ],
)
def test_a_bad_frame_costs_only_itself_and_is_tried_again(
    source: Path, tmp_path: Path, tag: str, change: Callable[[Any], None], named: str
) -> None:
    shutil.copytree(source, tmp_path / "in")
    rewrite(tmp_path / "in", tag, change)
    result = prepare(tmp_path / "in", tmp_path / "out")
    assert list(result.failed) == [f"train/{LAST}"] and named in result.failed[f"train/{LAST}"]
    assert open_dataset("waymo", tmp_path / "out").scenes("train") == (FIRST,)
    before = (tmp_path / "out" / "train" / FIRST / "coord.npy").stat().st_mtime_ns
    assert prepare(source, tmp_path / "out").failed == {}
    assert open_dataset("waymo", tmp_path / "out").scenes("train") == (FIRST, LAST)
    assert (tmp_path / "out" / "train" / FIRST / "coord.npy").stat().st_mtime_ns == before


def _no_jpeg(row: dict[str, Any]) -> None:
    row[f"{IMAGE}.image"] = b"\xff\xd8 nothing"


def _small(row: dict[str, Any]) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    row[f"{IMAGE}.image"] = stream.getvalue()


def _no_image(row: dict[str, Any]) -> None:
    row[f"{IMAGE}.image"] = b""


def _bent(row: dict[str, Any]) -> None:
    row[f"{IMAGE}.pose.transform"][0] = 5.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_no_jpeg, "this image of FRONT cannot be read"),
        (_small, "images of FRONT must be"),
        (_no_image, "an image of FRONT is missing"),
        (_bent, "pose.transform"),
    ],
)
def test_a_bad_image_costs_only_itself(
    source: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    def spoil(rows: list[dict[str, Any]]) -> None:
        change(
            next(
                row
                for row in rows
                if row["key.frame_timestamp_micros"] == TIMES[2] and row["key.camera_name"] == 1
            )
        )

    shutil.copytree(source, tmp_path / "in")
    rewrite(tmp_path / "in", "camera_image", spoil)
    result = prepare(tmp_path / "in", tmp_path / "out", images=tmp_path / "in")
    assert result.failed == {}
    (note,) = (note for note in result.notes if "left out 1 images" in note)
    assert f"{TIMES[2]}: " in note and named in note
    found = open_dataset("waymo", tmp_path / "out")
    assert len(found.frames("train", LAST)) == len(found.frames("train", FIRST)) - 1


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _other_columns(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.rename_columns([f"{name}2" for name in table.column_names]), path)


def _other_segment(path: Path) -> None:
    table = pq.read_table(path)
    names = pa.array(["another"] * len(table))
    pq.write_table(table.set_column(0, "key.segment_context_name", names), path)


@pytest.mark.parametrize("tag", ["lidar", "lidar_calibration", "camera_calibration"])
@pytest.mark.parametrize("spoil", [_cut, _other_columns, _other_segment, Path.unlink])
def test_a_damaged_table_costs_its_segment(
    source: Path, tmp_path: Path, tag: str, spoil: Callable[[Path], None]
) -> None:
    if tag == "lidar" and spoil is Path.unlink:
        return  # then there is no segment
    split = tmp_path / "in" / "training"
    shutil.copytree(source / "training", split)
    spoil(split / tag / f"{SEGMENT}.parquet")
    result = prepare(tmp_path / "in", tmp_path / "out", images=tmp_path / "in")
    assert f"{tag}/{SEGMENT}.parquet" in result.failed[f"train/{SEGMENT}"]
    assert result.splits["train"] == ()


def test_test_frames_are_those_of_the_list_and_have_no_labels(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "training", tmp_path / "in" / "testing_location")
    shutil.rmtree(tmp_path / "in" / "testing_location" / "lidar_segmentation")
    (tmp_path / "list.txt").write_text(f"{SEGMENT},{TIMES[1]}\nanother,5\n")
    with pytest.raises(DatasetError, match="--frames"):
        prepare(tmp_path / "in", tmp_path / "out")
    prepare(tmp_path / "in", tmp_path / "out", frames=tmp_path / "list.txt")
    dataset = open_dataset("waymo", tmp_path / "out")
    assert isinstance(dataset, Waymo) and dataset.scenes("test") == (f"{SEGMENT}/{TIMES[1]}",)
    scene = dataset.load("test", dataset.scenes("test")[0])
    assert "segment" not in scene and len(scene) > 400
    with pytest.raises(DatasetError, match="without images"):
        dataset.frames("test", dataset.scenes("test")[0])
    (tmp_path / "list.txt").write_text("no comma\n")
    with pytest.raises(DatasetError, match="list.txt"):
        prepare(tmp_path / "in", tmp_path / "out", frames=tmp_path / "list.txt")


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message of protocol buffers: numbers, or bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        length = varint()
        if key & 7 == 0:
            yield key >> 3, length
        else:
            assert key & 7 == 2
            yield key >> 3, data[at : at + length]
            at += length


def test_a_submission_has_the_classes_at_the_pixels_of_the_roof_scanner(
    dataset: Waymo, tmp_path: Path
) -> None:
    scene, cell = dataset.load("train", FIRST), cells(dataset, FIRST)
    predicted = np.arange(len(scene)) % 22
    (path,) = dataset.write_submission(tmp_path, [(FIRST, scene, predicted)], split="train")
    message = dict(fields(path.read_bytes()))
    assert (message[7], message[8], message[9]) == (1, 0, 0)
    frame = dict(fields(dict(fields(message[10]))[1]))
    assert (frame[2].decode(), frame[3]) == (SEGMENT, LABELLED[0])
    laser = dict(fields(frame[1]))
    assert laser[1] == 1
    for number in (1, 2):
        matrix = dict(fields(zlib.decompress(dict(fields(laser[1 + number]))[6])))
        assert [side for _, side in fields(matrix[2])] == [64, 2650, 2]
        image = np.frombuffer(matrix[1], np.uint8).reshape(64, 2650, 2)
        mine = (cell[:, 0] == 1) & (cell[:, 1] == number)
        expected = np.zeros((64, 2650), int)
        expected[cell[mine, 2], cell[mine, 3]] = predicted[mine] + 1
        assert (image[..., 1] == expected).all() and not image[..., 0].any()
    with pytest.raises(DatasetError, match="class for each"):
        dataset.write_submission(tmp_path, [(FIRST, scene, predicted[1:])], split="train")


def test_pyarrow_is_asked_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = prepare(source, tmp_path)
    assert "[waymo]" in result.failed[f"train/{SEGMENT}"]
