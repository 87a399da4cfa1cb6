"""What is shown of clouds: classes by their record, errors, colours and scales, true coordinates, what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from dinomed3d.runtime.errors import UserError
from pointseg.files import write_cloud
from pointseg.pictures.sheets import NOT_COUNTED, RIGHT, UNNAMED, WRONG
from pointseg.scene import Scene
from pointseg.viewing import thinning
from pointseg.viewing.clouds import open_clouds, scene_cloud
from pointseg.viewing.colouring import Colouring, Scale, heights
from pointseg.viewing.palette import ASPRS, ASPRS_COLORS, Palette, color_of_number
from pointseg.viewing.spec import ViewSpec

GUESS = np.array([0, 0, 1, 1, -1, 2], np.int32)
TRUTH = np.array([0, 1, 1, -1, 0, 2], np.int32)
NAMES, COLORS = ["road", "tree", "roof"], [[9, 8, 7], [1, 200, 3], [250, 0, 0]]
COORD = np.arange(18, dtype=np.float32).reshape(6, 3)
UTM = np.array([650_000.0, 6_860_000.0, 0.0])


def write(path, **fields):
    path.parent.mkdir(exist_ok=True)
    write_cloud(path, Scene(coord=COORD, fields=fields, origin=UTM))
    return path


def record(path, **more):
    found = {"class_names": NAMES, "class_codes": None, "class_colors": COLORS, **more}
    path.with_name(f"{path.name}.json").write_text(json.dumps(found), encoding="utf-8")


@pytest.fixture
def predicted(tmp_path):
    path = write(
        tmp_path / "out" / "a.ply",
        segment=GUESS,
        confidence=np.array([1, 0.5, 0.25, 1, 0, 1], np.float32),
    )
    record(path)
    write(tmp_path / "ref" / "a.ply", segment=TRUTH)
    return path


def opened(*inputs, palette=None, **more):
    said = []
    palette = palette or Palette()
    spec = ViewSpec(inputs=tuple(map(Path, inputs)), log=said.append, **more)
    return open_clouds(spec, palette), palette, said


def test_classes_have_names_and_colours_of_the_record(predicted):
    (cloud,), palette, _ = opened(predicted)
    assert palette.names == NAMES and palette.colors == [tuple(color) for color in COLORS]
    colouring = Colouring([cloud], palette)
    assert colouring.choices == ("class", "confidence", "height")
    painted = colouring.colors(cloud, "class").tolist()
    assert painted == [*[COLORS[0]] * 2, *[COLORS[1]] * 2, list(UNNAMED), COLORS[2]]
    sure = colouring.colors(cloud, "confidence").tolist()
    ends = colouring.scales["confidence"].colors.tolist()
    assert sure[0] == ends[255] and sure[1] == ends[128] and sure[4] == ends[0]


def test_errors_are_those_of_the_reference(predicted, tmp_path):
    (cloud,), palette, _ = opened(tmp_path / "out", reference=tmp_path / "ref")
    colouring = Colouring([cloud], palette)
    colors = list(map(tuple, colouring.colors(cloud, "errors").tolist()))
    assert colors == [RIGHT, WRONG, RIGHT, NOT_COUNTED, WRONG, RIGHT]
    assert max(NOT_COUNTED) + 60 < min(RIGHT), "two greys that are seen apart"
    assert colouring.colors(cloud, "reference").tolist()[3] == list(UNNAMED)
    assert colouring.colors(cloud, "reference").tolist()[1] == COLORS[1]


def test_reading_says_what_and_how_far(predicted, tmp_path, monkeypatch):
    monkeypatch.setattr(thinning, "PIECE", 3)
    seen = []
    opened(tmp_path / "out", reference=tmp_path / "ref", progress=lambda *at: seen.append(at))
    steps = [(0, "a.ply"), (0.25, ""), (0.5, ""), (0.75, ""), (1, "")]
    assert seen == [(done, 1, name) for done, name in steps]


def test_rows_of_both_files_stay_together_when_thinned(tmp_path):
    segment = np.random.default_rng(0).integers(0, 3, 5000).astype(np.int32)
    coord = np.random.default_rng(1).uniform(0, 9, (5000, 3)).astype(np.float32)
    scene = Scene(coord=coord, fields={"segment": segment})
    write_cloud(tmp_path / "a.ply", scene)
    write_cloud(tmp_path / "b.npz", scene)
    for way in ("random", "voxel"):
        (cloud,), *_ = opened(
            tmp_path / "a.ply", reference=tmp_path / "b.npz", most=300, thinning=way
        )
        assert len(cloud.scene) <= 300 and cloud.count == 5000
        assert (cloud.labels == cloud.reference).all()
    segment.astype("<u4").tofile(tmp_path / "c.label")  # labels alone
    (cloud,), *_ = opened(tmp_path / "a.ply", reference=tmp_path / "c.label", most=300)
    assert len(cloud.scene) == 300 and (cloud.labels == cloud.reference).all()
    write_cloud(tmp_path / "b.npz", scene.select(np.arange(4999)))
    with pytest.raises(UserError, match="has 5000 points, .*b.npz has 4999"):
        opened(tmp_path / "a.ply", reference=tmp_path / "b.npz", most=300)


def test_points_without_a_position_take_their_classes_with_them(tmp_path):
    coord = COORD.copy()
    coord[1] = np.nan
    for name, labels in (("out", GUESS), ("ref", TRUTH)):
        (tmp_path / name).mkdir()
        write_cloud(tmp_path / name / "a.ply", Scene(coord=coord, fields={"segment": labels}))
    (cloud,), palette, _ = opened(tmp_path / "out", reference=tmp_path / "ref")
    assert palette.names == ["0", "1", "2"] and cloud.nowhere == 1
    assert cloud.labels.tolist() == np.delete(GUESS, 1).tolist()
    assert cloud.reference.tolist() == np.delete(TRUTH, 1).tolist()


def test_codes_have_their_standard_names_and_usual_colours(tmp_path):
    codes = np.array([1, 2, 2, 6, 6, 40], np.uint8)
    (cloud,), palette, _ = opened(write(tmp_path / "a.laz", classification=codes))
    assert palette.names == ["1 unclassified", "2 ground", "6 building", "40"]
    assert palette.colors == [*(ASPRS_COLORS[code] for code in (1, 2, 6)), color_of_number(40)]
    assert ASPRS_COLORS.keys() == ASPRS.keys() and len(set(ASPRS_COLORS.values())) == len(ASPRS)
    usual = {2: "rgb", 3: "grb", 4: "grb", 5: "gbr", 6: "rgb", 9: "bgr"}  # strongest first
    for code, order in usual.items():
        red, green, blue = ASPRS_COLORS[code]
        assert "".join(sorted("rgb", key=dict(r=-red, g=-green, b=-blue).get)) == order
    assert cloud.labels.tolist() == [0, 1, 1, 2, 2, 3]


def test_time_does_not_grow_with_the_value_of_a_label_nor_much_with_their_number(tmp_path):
    """Of instances, too: each has a class of its own."""
    large = np.array([0, 7, 200_000, 100_000, -1, 7], np.int32)
    numbers = np.arange(20_000, dtype=np.int32)
    names = {n: str(n) for n in numbers.tolist()}
    start = time.process_time()
    (cloud,), palette, _ = opened(write(tmp_path / "a.ply", segment=large))
    found = Palette().indices(numbers, names, dict.fromkeys(names, (1, 2, 3)))
    assert time.process_time() - start < 1
    assert palette.names == ["0", "7", "100000", "200000"]
    assert palette.colors == [color_of_number(int(name)) for name in palette.names]
    assert cloud.labels.tolist() == [0, 1, 3, 2, -1, 1]
    assert (found == numbers).all()
    given = Palette(["b", "a"], [(0, 0, 0)] * 2)
    assert given.indices(numbers[:3], {0: "a", 1: "b", 2: "c"}, {}).tolist() == [1, 0, 2]


def test_clouds_share_classes_and_scales_and_keep_their_coordinates(predicted, tmp_path):
    other = write(tmp_path / "out" / "b.ply", segment=TRUTH)
    record(other, class_names=NAMES[::-1], class_colors=COLORS)
    clouds, palette, _ = opened(tmp_path / "out")
    assert palette.names == NAMES and palette.colors[0] == tuple(COLORS[0])
    assert clouds[1].labels.tolist() == [2, 1, 1, -1, 2, 0]
    shift = clouds[0].scene.origin
    assert (shift[:2] == UTM[:2]).all() and (clouds[1].placed(shift) == COORD).all()
    assert (clouds[0].placed(shift - [0.5, 0, 0])[:, 0] == COORD[:, 0] + 0.5).all()
    scale = Colouring(clouds, palette).scales["height"]
    assert (round(scale.low, 6), round(scale.high, 6)) == (2, 17)
    assert heights(clouds[0].scene, "-y").tolist() == (-6_860_000 - COORD[:, 1]).tolist()


def test_a_scale_clips_and_leaves_what_is_not_finite_grey():
    colors = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    painted = Scale(10.0, 20.0, colors).paint(np.array([5, 10, 15, 20, 99, np.nan]))
    assert painted[:, 0].tolist() == [0, 0, 128, 255, 255, UNNAMED[0]]
    assert (Scale(3.0, 3.0, colors).paint(np.array([3.0])) == 128).all(), "all values alike"


def test_one_bad_cloud_costs_only_itself(predicted, tmp_path):
    (tmp_path / "out" / "bad.ply").write_bytes(b"ply\nnothing")
    clouds, _, said = opened(tmp_path / "out")
    assert [cloud.name for cloud in clouds] == ["a.ply"]
    assert len(said) == 1 and "bad.ply" in said[0]


@pytest.mark.parametrize(
    ("inputs", "named"),
    [(["none.ply"], "none.ply"), (["ref", "out"], "--reference"), (["empty"], "empty")],
)
def test_refusals_name_what_is_wrong(predicted, tmp_path, inputs, named):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=named):
        opened(
            *(tmp_path / name for name in inputs),
            reference=tmp_path / "ref" if len(inputs) > 1 else None,
        )


def test_scenes_of_datasets_have_the_classes_of_the_dataset():
    coord = np.concatenate([COORD, np.full((1, 3), np.nan, np.float32)])
    scene = Scene(coord=coord, fields={"segment": np.append(TRUTH, 0).astype(np.int32)}, name="s")
    palette = Palette()
    spec = ViewSpec(inputs=(), most=4)
    cloud = scene_cloud(scene, NAMES, np.array(COLORS, np.uint8), spec, palette)
    assert palette.names == NAMES and palette.colors[1] == tuple(COLORS[1])
    assert (len(cloud.scene), cloud.count, cloud.nowhere) == (4, 7, 1)
