"""A person's own clouds: descriptions, splits, labels, units, and what goes wrong with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from pointseg.config.folder_recipe import fit_to_dataset, read_as_stated
from pointseg.config.presets import RECIPES
from pointseg.config.recipe import PointCloudFormat
from pointseg.datasets import DatasetError, open_dataset
from pointseg.datasets.folder.description import read_description
from pointseg.files import CloudFileError, ValueRanges, write_cloud
from pointseg.scene import Scene
from tests import ROOT

EXAMPLES = ROOT / "examples"
BASE = {
    "classes": ["ground", "tree"],
    "features": ["color"],
    "voxel_m": 0.05,
    "splits": {"train": ["train"], "val": ["val/*.ply"]},
}


def cloud(count=200, *, seed=0, labels=(0, 1, -1), span=1.0, **fields):
    rng = np.random.default_rng(seed)
    known = {
        "color": rng.integers(0, 256, (count, 3)).astype(np.float32),
        "segment": rng.choice(np.array(labels, np.int32), count),
    }
    coord = (rng.random((count, 3)) * span).astype(np.float32)
    return Scene(coord=coord, fields={**known, **fields})


def description(**changes):
    """BASE with changes, those to None left out."""
    found = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
    return yaml.safe_dump(found)


def make(root, scenes=("train/a.ply", "train/b.pcd", "val/c.ply"), **changes):
    for number, name in enumerate(scenes):
        write_cloud(root / name, cloud(seed=number))
    (root / "dataset.yaml").write_text(description(**changes))
    return root


def test_clouds_are_found_and_read(tmp_path):
    make(tmp_path, scenes=("train/a.ply", "train/b.pcd", "train/d", "train/e.laz", "val/c.ply"))
    (tmp_path / "train" / "notes.md").write_text("not a cloud")
    (tmp_path / "train" / ".hidden.ply").write_text("not a cloud")
    dataset = open_dataset("folder", tmp_path)
    assert dataset.name == tmp_path.name and dataset.classes.names == ("ground", "tree")
    assert dataset.fields == {"color"} and dataset.voxel_m == 0.05  # type: ignore[attr-defined]
    assert dataset.splits() == ("train", "val")
    assert dataset.scenes("train") == ("a", "b", "d", "e") and dataset.scenes("val") == ("c",)
    for name in dataset.scenes("train"):
        scene = dataset.load("train", name)
        assert scene.name == name and set(scene.fields) == {"color", "segment"}
        assert set(np.unique(scene["segment"])) == {-1, 0, 1}


@pytest.mark.parametrize("classes", [None, []])
def test_classes_are_needed_only_where_they_are_learned(tmp_path, classes):
    make(tmp_path, classes=classes)  # its files hold labels all the same
    loaded = open_dataset("folder", tmp_path, labelled=False)
    assert loaded.classes.names == ("unlabelled",)
    for split, name in (("train", "a"), ("val", "c")):
        assert set(loaded.load(split, name).fields) == {"color"}
    problem = "lacks classes" if classes is None else "'classes' must be distinct names"
    with pytest.raises(DatasetError, match=problem):
        open_dataset("folder", tmp_path)
    (tmp_path / "dataset.yaml").write_text(description(classes=None, voxel_m=None))
    with pytest.raises(DatasetError, match="lacks voxel_m"):
        open_dataset("folder", tmp_path, labelled=False)
    (tmp_path / "dataset.yaml").write_text(description(classes=None, colors={"tree": [1, 2, 3]}))
    with pytest.raises(DatasetError, match="'colors' names 'tree', which is not among the classes"):
        open_dataset("folder", tmp_path, labelled=False)


def test_folders_are_splits_where_none_are_named(tmp_path):
    make(tmp_path, splits=None, scenes=("train/a.ply", "test/b.ply"))
    dataset = open_dataset("folder", tmp_path)
    assert dataset.splits() == ("train", "test")


def test_names_that_repeat_get_their_folders(tmp_path):
    make(tmp_path, scenes=("train/1/a.ply", "train/2/a.ply", "val/a.ply", "val/a.pcd"),
         splits={"train": ["train/*/*"], "val": ["val"]})  # fmt: skip
    dataset = open_dataset("folder", tmp_path)
    assert dataset.scenes("train") == ("train__1__a", "train__2__a")
    assert dataset.scenes("val") == ("val__a.pcd", "val__a.ply")


def test_points_without_a_position_are_left_out(tmp_path):
    make(tmp_path)
    scene = cloud()
    scene.coord[:50] = np.nan
    write_cloud(tmp_path / "train/a.ply", scene)
    loaded = open_dataset("folder", tmp_path).load("train", "a")
    assert len(loaded) == 150
    np.testing.assert_array_equal(loaded["segment"], scene["segment"][50:])


def test_labels_are_mapped_by_file(tmp_path):
    make(
        tmp_path,
        label="object",
        labels=[
            {"files": ["a*.ply"], "map": {1: "ground", "20-29": "tree"}, "ignore": [0, "90-99"]},
            {"map": {1: "tree"}, "ignore": -5},
        ],
    )
    first, second = np.resize([1, 20, 29, 0, 95], 200), np.resize([1, -5], 200)
    write_cloud(tmp_path / "train/a.ply", cloud(object=first))
    write_cloud(tmp_path / "train/b.pcd", cloud(object=second))
    dataset = open_dataset("folder", tmp_path)
    assert dataset.load("train", "a")["segment"].tolist() == [0, 1, 1, -1, -1] * 40
    assert dataset.load("train", "b")["segment"].tolist() == [1, -1] * 100


def test_minus_one_is_ignored_unless_it_is_mapped(tmp_path):
    make(tmp_path, labels={"map": {0: "tree", 1: "ground"}})
    assert set(np.unique(open_dataset("folder", tmp_path).load("train", "a")["segment"])) == {
        -1,
        0,
        1,
    }
    make(tmp_path, labels={"map": {0: "tree", 1: "ground", -1: "tree"}})
    assert set(np.unique(open_dataset("folder", tmp_path).load("train", "a")["segment"])) == {0, 1}


def test_units_and_axes(tmp_path):
    make(tmp_path, unit="millimetre", up="y", features=["color", "normal"])
    normal = np.tile(np.array([[0, 1, 0]], np.float32), (200, 1))
    scene = cloud(span=3000, normal=normal)
    write_cloud(tmp_path / "train/a.ply", scene)
    loaded = open_dataset("folder", tmp_path).load("train", "a")
    x, y, z = scene.coord.T
    np.testing.assert_allclose(loaded.coord, np.stack([x, -z, y], 1) / 1000, rtol=1e-6)
    assert loaded["normal"].tolist() == [[0, 0, 1]] * 200


def test_columns_of_text(tmp_path):
    make(tmp_path, columns=["label", "x", "y", "z", "red", "green", "blue"], scenes=["val/c.ply"],
         splits={"train": ["*.txt"], "val": ["val"]})  # fmt: skip
    rows = "".join(f"1 {i / 100} 0 0 255 0 {i}\n" for i in range(150))
    (tmp_path / "a.txt").write_text(rows)
    dataset = open_dataset("folder", tmp_path)
    scene = dataset.load("train", "a")
    assert scene["segment"].tolist() == [1] * 150 and scene["color"][7].tolist() == [255, 0, 7]
    assert len(dataset.load("val", "c")) == 200


def test_a_stated_range_that_most_values_lie_outside_of(tmp_path):
    make(tmp_path, features=["strength"], intensity_max=100)
    rows = "".join(f"{i},0,0,{-50 * i},0\n" for i in range(9))
    (tmp_path / "train" / "a.csv").write_text("x,y,z,intensity,label\n" + rows)
    (tmp_path / "train" / "a.ply").unlink()
    with pytest.raises(DatasetError, match=r"a.csv: 89 % .*'intensity_min' in dataset.yaml"):
        open_dataset("folder", tmp_path).load("train", "a")


@pytest.mark.parametrize(("intensity_max", "found"), [(None, 0.784), (1000, 0.2)])
def test_the_scale_of_intensities(tmp_path, intensity_max, found):
    make(tmp_path, features=["strength"], intensity_max=intensity_max)
    rows = "".join(f"{k / 200},0,0,200,{k % 2}\n" for k in range(200))
    (tmp_path / "train" / "a.csv").write_text("x,y,z,intensity,label\n" + rows)
    (tmp_path / "train" / "a.ply").unlink()
    scene = open_dataset("folder", tmp_path).load("train", "a")
    np.testing.assert_allclose(scene["strength"], found, atol=1e-3)


def test_test_clouds_may_have_no_labels(tmp_path):
    write_cloud(tmp_path / "test/d.ply", cloud().without("segment"))
    make(tmp_path, splits={"train": ["train"], "val": ["val"], "test": ["test"]})
    assert set(open_dataset("folder", tmp_path).load("test", "d").fields) == {"color"}


@pytest.mark.parametrize(
    ("changes", "scene", "message"),
    [
        ({}, lambda: cloud(segment=np.resize(np.int32([0, 1, 2, 7]), 200)), r"2 \(50 points\), 7 \(50 points\)"),
        ({}, lambda: cloud(segment=np.arange(200, dtype=np.int32)), r"6 \(1 points\) and 193 more; with 2 classes"),
        ({"labels": [{"files": "x*", "map": {0: "ground"}}]}, cloud, "no entry of 'labels'"),
        ({"features": ["color", "normal"]}, cloud, "lacks normal.* it has: color, segment"),
        ({}, lambda: cloud().without("segment"), "has no labels 'segment'"),
        ({"label": "leaves"}, cloud, "has no labels 'leaves'.*it has: color, segment"),
        ({"label": "height"}, lambda: cloud(height=np.linspace(0, 1, 200)), "'height' must be whole numbers"),
        ({}, lambda: cloud().select(np.zeros(200, bool)), "no points with a position"),
        ({}, lambda: cloud(span=3000), "were millimetres.*'unit: millimetre'.*check_scale: false"),
        ({"unit": "millimetre"}, cloud, "too few for a network.*'unit: metre' or another 'voxel_m'"),
    ],
)  # fmt: skip
def test_clouds_that_do_not_fit_are_refused(tmp_path, changes, scene, message):
    make(tmp_path, **changes)
    write_cloud(tmp_path / "train/a.ply", scene())
    with pytest.raises(DatasetError, match=rf"a\.ply: .*{message}"):
        open_dataset("folder", tmp_path).load("train", "a")


def test_checks_can_be_turned_off(tmp_path):
    make(tmp_path, check_scale=False)
    write_cloud(tmp_path / "train/a.ply", cloud(span=3000).without("segment"))
    loaded = open_dataset("folder", tmp_path, labelled=False).load("train", "a")
    assert len(loaded) == 200 and "segment" not in loaded


@pytest.mark.parametrize(
    ("splits", "scenes", "message"),
    [
        ({"train": ["train"], "val": ["validation/*.ply"]}, None, r"'val': 'validation/\*\.ply' finds no clouds"),
        (None, ("somewhere/a.ply",), "has no folder train, val or test"),
        ({"train": ["train"], "val": ["*/a.ply"]}, None, r"train/a\.ply is in train and in val"),
    ],
)  # fmt: skip
def test_splits_that_do_not_fit_are_refused(tmp_path, splits, scenes, message):
    make(tmp_path, splits=splits, **({} if scenes is None else {"scenes": scenes}))
    with pytest.raises(DatasetError, match=message):
        open_dataset("folder", tmp_path)


def test_damaged_files_and_wrong_lengths_are_reported_by_the_reader(tmp_path):
    make(tmp_path, scenes=("train/a.ply", "train/d", "val/c.ply"))
    data = (tmp_path / "train/a.ply").read_bytes()
    (tmp_path / "train/a.ply").write_bytes(data[:-5])
    np.save(tmp_path / "train/d/segment.npy", np.zeros(7))
    dataset = open_dataset("folder", tmp_path)
    with pytest.raises(CloudFileError, match=r"a\.ply: is cut off"):
        dataset.load("train", "a")
    with pytest.raises(CloudFileError, match="d: 'segment' has 7 rows, 'coord' 200"):
        dataset.load("train", "d")


def test_unknown_splits_and_scenes_are_refused(tmp_path):
    dataset = open_dataset("folder", make(tmp_path, name="mine"))
    with pytest.raises(DatasetError, match="mine: has no split 'test'"):
        dataset.scenes("test")
    with pytest.raises(DatasetError, match="mine: split 'train' has no scene 'z' among its 2"):
        dataset.load("train", "z")


def test_clouds_may_lie_in_the_root(tmp_path):
    make(tmp_path, scenes=("a.ply", "val/c.ply"), splits={"train": ["."], "val": ["val"]})
    assert open_dataset("folder", tmp_path).scenes("train") == ("a",)


def test_clouds_in_subfolders_are_not_skipped_without_a_word(tmp_path):
    deep = ("train/north/b.ply", "train/north/2020/c.ply")
    make(tmp_path, scenes=("train/a.ply", "train/whole", "val/c.ply", *deep), splits=None)
    (tmp_path / "train/north/pose.txt").write_text("not a cloud: the folder itself has no .txt")
    write_cloud(tmp_path / "train/.trash/old.ply", cloud())
    dataset = open_dataset("folder", tmp_path)
    assert dataset.scenes("train") == ("a", "whole")
    (line,) = dataset.remarks()
    assert "2 clouds" in line and "train: [train, 'train/**/*.ply']" in line
    make(tmp_path, (), splits={"train": ["train", "train/**/*.ply"], "val": ["val"]})
    dataset = open_dataset("folder", tmp_path)
    assert len(dataset.scenes("train")) == 4 and dataset.remarks() == []
    make(tmp_path, (), splits={"train": ["train"], "val": ["train/north/**", "val"]})
    assert open_dataset("folder", tmp_path).remarks() == []  # another split has them


def test_folders_of_arrays_in_subfolders_are_named_by_their_folder(tmp_path):
    make(tmp_path, scenes=("train/a", "train/north/b", "val/c.ply"), splits=None)
    np.save(tmp_path / "train/north/depth.npy", np.zeros((4, 4)))
    (line,) = open_dataset("folder", tmp_path).remarks()
    assert "1 clouds" in line and "train: [train, 'train/north']" in line
    make(tmp_path, (), splits={"train": ["train", "train/north"], "val": ["val"]})
    (tmp_path / "train/north/depth.npy").unlink()
    dataset = open_dataset("folder", tmp_path)
    assert dataset.scenes("train") == ("a", "b") and dataset.remarks() == []


def test_a_folder_whose_subfolders_have_the_clouds_says_so(tmp_path):
    make(tmp_path, scenes=("train/north/b.ply", "val/c.ply"), splits=None)
    with pytest.raises(DatasetError, match=r"'train': .* no clouds .*train/\*\*/\*\.ply"):
        open_dataset("folder", tmp_path)


def test_hidden_files_match_no_pattern_that_does_not_name_them(tmp_path):
    make(tmp_path, splits={"train": ["train/*.ply"], "val": ["val/*"]})
    (tmp_path / "train/._a.ply").write_bytes(b"macOS")
    (tmp_path / "val/._b.ply").write_bytes(b"macOS")
    found = open_dataset("folder", tmp_path)
    assert all("._" not in name for split in ("train", "val") for name in found.scenes(split))
    make(tmp_path, splits={"train": ["train/._a.ply"], "val": ["val"]})
    assert open_dataset("folder", tmp_path).scenes("train") == ("._a",)


def test_a_pattern_that_cannot_be_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("Invalid pattern")

    make(tmp_path)
    monkeypatch.setattr(Path, "glob", refuse)
    with pytest.raises(DatasetError, match="split 'train': 'train': Invalid pattern"):
        open_dataset("folder", tmp_path)


def test_a_missing_description_is_refused(tmp_path):
    with pytest.raises(
        DatasetError, match=r"dataset\.yaml: is missing; describe your clouds"
    ) as caught:
        open_dataset("folder", tmp_path)
    example = str(caught.value).split("such as: ")[1]
    assert yaml.safe_load(example)["voxel_m"] == 0.05  # one line, and YAML


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("voxel_m: [", "is not YAML: "),
        ("- a", "the file must hold 'key: value' lines, got list"),
        ("", "the file must hold 'key: value' lines, got NoneType"),
        ({"voxle_m": 1}, "unknown key 'voxle_m'; did you mean 'voxel_m'?"),
        ({"zzz": 1}, "unknown key 'zzz'; known are name, classes"),
        ({"voxel_m": None, "features": None}, "lacks features, voxel_m; for example: {classes"),
        ({"voxel_m": 0}, "'voxel_m' must be a number of metres above 0, got 0"),
        ({"voxel_m": "two"}, "'voxel_m' must be a number of metres above 0, got 'two'"),
        ({"voxel_m": [1]}, r"'voxel_m' must be a number of metres above 0, got \[1\]"),
        ({"voxel_m": True}, "'voxel_m' must be a number of metres above 0, got True"),
        ({"classes": []}, "'classes' must be distinct names, at least one"),
        ({"classes": ["a", "a"]}, "'classes' must be distinct names"),
        ({"classes": ["yes", False]}, "'classes' must be text .*got False"),
        ({"classes": {"a": 0}}, "'classes' must be a list, got"),
        (
            {"features": ["colour"]},
            "'features' must be some of color, normal, strength, returns, height_above_ground, got 'colour'",
        ),
        ({"colors": {"x": [1, 2, 3]}}, "'colors' names 'x', which is not among the classes"),
        ({"colors": {"tree": [1, 2]}}, "the color of 'tree' must be"),
        ({"colors": {"tree": [1, 2, 300]}}, "the color of 'tree' must be"),
        ({"colors": {"tree": "green"}}, "the color of 'tree' must be"),
        ({"unit": "inch"}, "'unit' must be one of metre, centimetre, millimetre, foot, got 'inch'"),
        ({"unit": ["metre"]}, "'unit' must be one of metre"),
        ({"up": "x"}, "'up' must be one of z, y, -y, got 'x'"),
        ({"name": 5}, "'name' must be text"),
        ({"label": 5}, "'label' must be text"),
        ({"columns": 5}, "'columns' must be a list, got 5"),
        ({"check_scale": "no"}, "'check_scale' must be true or false, got 'no'"),
        ({"splits": ["train"]}, "'splits' must hold 'key: value' lines, got list"),
        ({"splits": {"train": 5}}, "'splits: train' must be a list, got 5"),
        ({"splits": {"train": ["/etc/*"]}}, r"splits: train: '/etc/\*' must lie below the root"),
        ({"splits": {"train": ["../a"]}}, r"splits: train: '../a' must lie below the root"),
        ({"labels": 5}, "'labels' must hold 'key: value' lines, got int"),
        ({"labels": {"maps": {}}}, "'labels' takes files, map and ignore, got 'maps'"),
        ({"labels": {"map": {1: "bush"}}}, "'labels: map' maps 1 to 'bush'"),
        (
            {"labels": {"map": {"a": "tree"}}},
            "'labels' must map whole numbers or ranges .* got 'a'",
        ),
        (
            {"labels": {"map": {"9-5": "tree"}}},
            "'labels' must map whole numbers or ranges .* got '9-5'",
        ),
        (
            {"labels": {"map": {1.5: "tree"}}},
            "'labels' must map whole numbers or ranges .* got 1.5",
        ),
        ({"labels": {"map": {1: "tree"}, "ignore": [1]}}, "'labels' maps 1 twice"),
        ({"labels": {"map": {1: "tree", "0-5": "ground"}}}, "'labels' maps 1 twice"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(tmp_path, change, message):
    path = tmp_path / "dataset.yaml"
    path.write_text(description(**change) if isinstance(change, dict) else change)
    with pytest.raises(DatasetError, match=message) as caught:
        read_description(path, default_name="x")
    assert str(caught.value).startswith(str(path))


HEAD = "classes: [ground, tree]\nfeatures: []\nvoxel_m: 0.1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels:\n  map:\n    2: ground\n    5: tree\n    2: tree\n", "'2' .* lines 6 and 8"),
        ("labels: {map: {2: ground, 2: tree}}\n", "'2' .* lines 4 and 4"),
        ("splits:\n  train: [a]\n  train: [b]\n", "'train' .* lines 5 and 6"),
        ("voxel_m: 0.2\n", "'voxel_m' .* lines 3 and 4"),
        ("labels: {map: {010: ground}}\n", "line 4: '010'.* 8"),
        ("labels: {map: {2: ground}, ignore: [1, -017]}\n", "line 4: '-017'.* -15"),
        ("labels: {map: {1:30: ground}}\n", "line 4: '1:30'.* 90"),
        ("color_max: 4:15\n", "line 4: '4:15'.* 255"),
    ],
)
def test_what_yaml_would_read_otherwise_than_it_looks_is_refused(tmp_path, text, message):
    (tmp_path / "dataset.yaml").write_text(HEAD + text)
    with pytest.raises(DatasetError, match=rf"dataset\.yaml: .*{message}"):
        read_description(tmp_path / "dataset.yaml", default_name="x")


def test_what_yaml_reads_as_it_looks_is_taken(tmp_path):
    text = """labels:
  - &town {files: ["a*"], map: {02: ground, 08: tree, 0: ground}}
  - &more {<<: *town, files: ["b*"], ignore: [1]}
  - {<<: *more, files: [c], map: {5: tree, '09': ground}}
"""
    (tmp_path / "dataset.yaml").write_text(HEAD + text)
    one, two, three = read_description(tmp_path / "dataset.yaml", default_name="x").labels
    assert one.ranges == ((0, 0, 0), (2, 2, 0), (8, 8, 1)) and one.files == ("a*",)
    assert two.ranges == ((0, 0, 0), (1, 1, -1), (2, 2, 0), (8, 8, 1)) and two.files == ("b*",)
    assert three.ranges == ((1, 1, -1), (5, 5, 1), (9, 9, 0)) and three.files == ("c",)


def test_small_things_that_yaml_takes_otherwise(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "{classes: [tree], features: [], voxel_m: 1e-2, colors: {tree: [1, 2, 3]}, splits: {train: a}}"
    )
    found = read_description(tmp_path / "a.yaml", default_name="x")
    assert found.voxel_m == 0.01 and found.name == "x" and found.features == frozenset()
    assert found.splits == {"train": ("a",)} and found.classes.colors.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("optional", [False, True])
def test_the_example_is_a_description(tmp_path, optional):
    text = (EXAMPLES / "folder.yaml").read_text()
    if optional:  # with all that is commented out
        head, tail = text.split("\n\n# name:")
        text = head + "\n" + "\n".join(line[2:] for line in ("# name:" + tail).splitlines())
    (tmp_path / "dataset.yaml").write_text(text)
    found = read_description(tmp_path / "dataset.yaml", default_name="x")
    assert found.name == ("my-clouds" if optional else "x") and len(found.classes) == 3
    assert found.unit_m == (0.001 if optional else None) and found.check_scale != optional


def test_real_scenes_by_their_description(shared):
    root = shared / "data/points/tabletop_rgbd"
    dataset = open_dataset("folder", root, config=EXAMPLES / "tabletop.yaml")
    assert dataset.name == "tabletop" and dataset.classes.names == ("table", "box", "cylinder")
    assert len(dataset.scenes("train")) == 16 and len(dataset.scenes("val")) == 8
    for split, name, present in (
        ("train", "learn9", {0, 1}), ("train", "learn33", {0, 2}), ("train", "learn22", {0, 1}),
        ("val", "test17", {0, 1}), ("val", "test40", {0, 2}),
    ):  # fmt: skip
        scene = dataset.load(split, name)
        assert set(np.unique(scene["segment"])) == present
        assert np.isfinite(scene.coord).all() and 150_000 < len(scene) < 220_000
        assert set(scene.fields) == {"color", "segment"}


ASPRS = {"map": {2: "ground", "3-5": "tree"}, "ignore": [0, 1]}


@pytest.mark.parametrize(
    ("suffix", "changes", "codes"),
    [
        ("laz", {"labels": {"map": {5: "tree", 2: "ground"}}}, (2, 5)),
        ("laz", {"labels": ASPRS, "label": "classification"}, (2, None)),
        ("las", {"labels": ASPRS, "codes": {"tree": 5}}, (2, 5)),
        ("las", {"labels": ASPRS, "label": "user_data"}, ()),  # no ASPRS codes
        ("ply", {"labels": ASPRS}, ()),
        ("ply", {"codes": {"tree": 5}}, (None, 5)),
        ("laz", {}, ()),  # labels are indices
        ("laz", {"labels": [{"files": ["a.laz"], "map": {2: "ground"}},
                            {"map": {9: "ground", 5: "tree"}}]}, (None, 5)),
    ],
)  # fmt: skip
def test_codes_of_classes_are_their_values_in_las_files(tmp_path, suffix, changes, codes):
    splits = {"train": ["train"], "val": ["val"]}
    make(tmp_path, (f"train/a.{suffix}", f"val/c.{suffix}"), splits=splits, **changes)
    assert open_dataset("folder", tmp_path).classes.codes == codes


def test_the_meaning_of_labels_changes_with_their_field_and_rules(tmp_path):
    def meaning(number, **changes):
        return open_dataset("folder", make(tmp_path / str(number), **changes)).meaning_of_labels

    found = [
        meaning(number, **changes)
        for number, changes in enumerate(({}, {"labels": ASPRS}, {"label": "user_data"}))
    ]
    assert len(set(found)) == 3 and meaning(3) == found[0]


@pytest.mark.parametrize("codes", [{"bush": 3}, {"tree": 256}, {"tree": "5"}, [5]])
def test_wrong_codes_are_refused(tmp_path, codes):
    with pytest.raises(DatasetError, match="codes"):
        open_dataset("folder", make(tmp_path, codes=codes))


def test_features_of_airborne_scans(tmp_path):
    files, features = ("train/a.laz", "val/c.laz"), ["returns", "height_above_ground"]
    make(
        tmp_path, files, features=features, splits={"train": ["train"], "val": ["val"]}, unit="foot"
    )
    scene = open_dataset("folder", tmp_path).load("train", "a")
    assert set(scene.fields) == {*features, "segment"} and scene["returns"].shape == (200, 2)
    lowest = scene.coord[:, 2] - scene.coord[:, 2].min()  # a cloud of one cell, in metres
    np.testing.assert_allclose(scene["height_above_ground"][:, 0], lowest, atol=1e-6)


def test_what_is_assumed_of_the_values_of_files(tmp_path):
    make(tmp_path, ("train/a.ply", "val/c.ply"), features=["color", "strength"])
    rng = np.random.default_rng(0)
    for name, largest in (("a", 250), ("b", 250), ("c", 250), ("d", 250), ("e", 60_000)):
        columns = [
            rng.random((60, 3)),
            rng.integers(0, largest, (60, 3)),
            rng.integers(-9, 3, (60, 1)),
        ]
        if name == "e":
            columns[2] = np.where(np.arange(60) % 2, np.nan, np.arange(60))[:, None]
        table = np.concatenate([*columns, np.zeros((60, 1))], axis=1)
        header = "x,y,z,red,green,blue,intensity,label"
        np.savetxt(tmp_path / f"train/{name}.csv", table, "%g", ",", header=header, comments="")
    (tmp_path / "train/a.ply").unlink()
    dataset = open_dataset("folder", tmp_path)
    for name in dataset.scenes("train"):
        dataset.look_at("train", name)
    colors, strengths, odd = dataset.remarks()
    assert "reach 255 in 4 files, to reach 65535 in train/e.csv; state 'color_max'" in colors
    assert "between -128 and 127 in 4 files, to reach 255 in train/e.csv" in strengths
    assert odd == "train/e.csv: 50 % of its intensities are not numbers (NaN) and became 0"
    stated = PointCloudFormat(color_max=65535, intensity_max=500, intensity_min=-9)
    recipe = replace(RECIPES["folder"], cloud_format=stated)
    bright = dataset.load("train", "a")["color"].max()
    read_as_stated(dataset, recipe, overrides=True)
    np.testing.assert_allclose(dataset.load("train", "a")["color"].max(), bright / 257, rtol=1e-5)
    assert dataset.description.ranges == stated.ranges
    dataset.state_ranges(ValueRanges(intensity_max=3))
    read_as_stated(dataset, recipe, overrides=False)
    assert dataset.description.ranges == ValueRanges(color_max=65535, intensity_max=3)


@pytest.mark.parametrize("suffix", [".bin", ".xyz"])
def test_a_model_remembers_columns_for_the_files_that_had_them(tmp_path, suffix):
    columns = ["x", "y", "z", "intensity", "label"]
    make(tmp_path, [], features=["strength"], columns=columns, splits={"train": ["train"]})
    (tmp_path / "train").mkdir()
    rows = np.c_[
        np.random.default_rng(0).random((500, 3)) * [9, 5, 1], np.arange(500) % 9, np.zeros(500)
    ]
    if suffix == ".bin":
        rows.astype("<f4").tofile(tmp_path / "train/a.bin")
    else:
        np.savetxt(tmp_path / "train/a.xyz", rows)
    dataset = open_dataset("folder", tmp_path)
    assert len(dataset.load("train", "a")) == 500
    stored = fit_to_dataset(RECIPES["folder"], dataset).cloud_format
    assert stored.bin_columns == (tuple(columns) if suffix == ".bin" else None)
    assert stored.columns == tuple(columns)
