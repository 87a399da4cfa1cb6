"""Rooms of Structured3D: points, labels and normals from rendered views, and what costs a single room."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointseg.datasets import DatasetError, open_dataset
from pointseg.datasets.structured3d.dataset import CLASSES, LABEL_MAP, split_of
from pointseg.datasets.structured3d.prepare import prepare
from pointseg.scene import Scene
from tests.pointseg.datasets.structured3d.box_room import (
    COLORS,
    COUNTER,
    OBJECTS,
    TABLE,
    distance_to_surfaces,
    write_room,
)

NAME = "scene_00000_room_485142"
COLOR_OF = {raw: color for raw, color in COLORS.items()}


def prepared(source: Path, out: Path) -> Scene:
    assert prepare(source, out).failed == {}
    return open_dataset("structured3d", out).load("train", NAME)


def kinds(scene: Scene) -> np.ndarray:
    """(N,) NYU40 ids, by the colours that the renderer gave them."""
    found = np.zeros(len(scene), int)
    for raw, color in COLOR_OF.items():
        found[(scene["color"] == color).all(1)] = raw
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("official")
    write_room(root)
    return root


@pytest.mark.parametrize("kept", ["panorama", "perspective", "both"])
def test_points_are_where_the_room_is(source: Path, tmp_path: Path, kept: str) -> None:
    """Each kind of image alone puts every surface at its place: so they agree with each other, too."""
    shutil.copytree(source, tmp_path / "in")
    for other in {"panorama": ["perspective"], "perspective": ["panorama"], "both": []}[kept]:
        shutil.rmtree(next((tmp_path / "in").rglob(other)))
    scene = prepared(tmp_path / "in", tmp_path / "out")
    surfaces, kind = distance_to_surfaces(scene.coord), kinds(scene)
    for raw in COLORS:
        assert (kind == raw).sum() > 20
        assert surfaces[raw][kind == raw].max() < 0.002
    table = scene.coord[kind == TABLE].mean(0)
    assert np.abs(table - OBJECTS[TABLE].mean(0))[:2].max() < 0.4


def test_labels_are_those_of_nyu40(source: Path, tmp_path: Path) -> None:
    scene = prepared(source, tmp_path)
    kind = kinds(scene)
    assert (scene["segment"] == LABEL_MAP(kind, "")).all()
    assert set(scene["segment"][kind == TABLE]) == {CLASSES.names.index("table")}
    assert set(scene["segment"][kind == COUNTER]) == {-1}  # not among the 25
    assert "instance" not in scene
    named = {1: "wall", 11: "picture", 22: "ceiling", 40: "otherprop"}
    assert {raw: CLASSES.names[LABEL_MAP(np.array([raw]), "")[0]] for raw in named} == named
    assert LABEL_MAP(np.array([0, 10, 12, 36]), "").tolist() == [-1] * 4


def test_normals_face_the_room(source: Path, tmp_path: Path) -> None:
    scene = prepared(source, tmp_path)
    kind = kinds(scene)
    for raw, up in ((2, 1.0), (22, -1.0)):  # floor, ceiling
        assert (scene["normal"][kind == raw, 2] * up > 0.97).mean() > 0.9
    east = (kind == 1) & (scene.coord[:, 0] > 3.99)
    assert (scene["normal"][east, 0] < -0.97).mean() > 0.9


def test_one_point_in_each_voxel(source: Path, tmp_path: Path) -> None:
    cells = np.floor(prepared(source, tmp_path).coord.astype(np.float64) / 0.01)
    assert len(np.unique(cells, axis=0)) > 0.999 * len(cells)  # float32 may move one over an edge


def test_flat_angles_and_unlabelled_pixels_do_not_count(tmp_path: Path) -> None:
    room = write_room(tmp_path / "in")
    shutil.rmtree(room / "panorama")
    for view in (room / "perspective" / "full").iterdir():
        with Image.open(view / "semantic.png") as image:
            ids = np.array(image)
        ids[ids == TABLE] = 0
        Image.fromarray(ids).save(view / "semantic.png")
    assert not (kinds(prepared(tmp_path / "in", tmp_path / "out")) == TABLE).any()


def test_a_panorama_that_looks_the_other_way_is_found(tmp_path: Path) -> None:
    """The middle column shows -y, as the dataset's README has it."""
    room = write_room(tmp_path / "in")
    write_room(tmp_path / "in", room="7")
    for path in (room / "panorama" / "full").iterdir():
        with Image.open(path) as image:
            turned = np.roll(np.array(image), image.width // 2, 1)
        Image.fromarray(turned).save(path)
    result = prepare(tmp_path / "in", tmp_path / "out")
    assert list(result.failed) == [f"train/{NAME}"]
    assert "180" in result.failed[f"train/{NAME}"]
    assert result.splits["train"] == ("scene_00000_room_7",)


def _spoil_depth(room: Path) -> None:
    path = room / "perspective" / "full" / "1" / "depth.png"
    path.write_bytes(path.read_bytes()[:200])


def _spoil_size(room: Path) -> None:
    path = room / "panorama" / "full" / "semantic.png"
    Image.fromarray(np.ones((5, 5), np.uint8)).save(path)


def _spoil_id(room: Path) -> None:
    path = room / "panorama" / "full" / "semantic.png"
    Image.fromarray(np.full((64, 128), 41, np.uint8)).save(path)


def _spoil_kind(room: Path) -> None:
    path = room / "perspective" / "full" / "0" / "semantic.png"
    Image.fromarray(np.ones((60, 100, 3), np.uint8)).save(path)


def _huge(room: Path) -> None:
    Image.new("1", (9000, 1)).save(room / "perspective" / "full" / "0" / "rgb_rawlight.png")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_spoil_depth, "depth.png"),
        (_spoil_size, "semantic.png"),
        (_spoil_id, "41"),
        (_spoil_kind, "semantic.png"),
        (_huge, "rgb_rawlight.png"),
        (lambda room: (room / "panorama" / "camera_xyz.txt").unlink(), "camera_xyz.txt"),
        (lambda room: shutil.rmtree(room) or room.mkdir(), "485142"),
    ],
)
def test_a_damaged_view_costs_its_room(
    source: Path, tmp_path: Path, spoil: Callable[[Path], None], named: str
) -> None:
    shutil.copytree(source, tmp_path / "in")
    room = next((tmp_path / "in").rglob("485142"))
    shutil.copytree(room, room.with_name("7"))
    spoil(room)
    result = prepare(tmp_path / "in", tmp_path / "out")
    assert list(result.failed) == [f"train/{NAME}"]
    assert named in result.failed[f"train/{NAME}"]
    assert result.splits["train"] == ("scene_00000_room_7",)


def test_scenes_go_by_their_numbers_and_the_errata(source: Path, tmp_path: Path) -> None:
    release = tmp_path / "in" / "Structured3D"
    names = ("scene_00000", "scene_01155", "scene_03249", "scene_03250", "scene_03500")
    for name in names:
        shutil.copytree(source / "Structured3D" / "scene_00000", release / name)
        if name != "scene_00000":
            shutil.rmtree(next((release / name).rglob("perspective")))
    result = prepare(tmp_path / "in", tmp_path / "out")
    assert {split: [each[:11] for each in found] for split, found in result.splits.items()} == {
        "train": ["scene_00000"], "val": ["scene_03249"], "test": ["scene_03250"],
    }  # fmt: skip
    assert any("scene_01155" in note and "errata" in note for note in result.notes)
    assert any("scene_03500" in note for note in result.notes)
    assert any("perspective" in note and note.startswith("2 rooms") for note in result.notes)
    assert [split_of(n) for n in (2999, 3000, 3249, 3250, 3499)] == [
        "train", "val", "val", "test", "test",
    ]  # fmt: skip


def test_refuses_what_is_not_the_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Structured3D"):
        prepare(tmp_path, tmp_path / "out")
