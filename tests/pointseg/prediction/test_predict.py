"""Files in, the same files with classes out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import PointCloudFormat
from pointseg.files import read_cloud, write_cloud
from pointseg.prediction import predict as module
from pointseg.prediction.inputs.input_files import find_sources
from pointseg.prediction.inputs.prepare_cloud import prepare_cloud
from pointseg.prediction.predict import predict
from pointseg.prediction.results.pictures import picture_file
from pointseg.prediction.results.record import record_file
from pointseg.prediction.results.summary_table import summary_table
from pointseg.prediction.spec import PredictSpec
from pointseg.scene import Scene
from tests.pointseg.evaluation.answers import CLASSES, RECIPE, ByColor, colored, trained
from tests.pointseg.files.las.test_las import copc


@pytest.fixture
def model(monkeypatch):
    made = ByColor()
    monkeypatch.setattr(module, "load_model", lambda path, device, **_: (made, trained()))
    return made


def spec_of(tmp_path, *inputs, **changes):
    made = PredictSpec(
        inputs=inputs, out=tmp_path / "out", model=tmp_path / "best.pt", log=lambda text: None
    )
    return replace(made, **changes)


def write(path, scene):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_cloud(path, scene)
    return path


@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".las", ".laz", ".npz", ".npy", ".txt", ""])
def test_each_type_comes_out_as_it_went_in_with_a_class(tmp_path, model, suffix):
    source = write(tmp_path / f"cloud{suffix}", colored([0, 1, 2, 2]))
    spec = spec_of(tmp_path, source, tta=True)
    (result,) = predict(spec)
    assert result.status == "done", result.reason
    assert predict(spec)[0].status == "kept"
    assert result.classes == {"floor": 100, "wall": 100, "thing": 200}
    target = tmp_path / "out" / source.name
    before, after = read_cloud(source), read_cloud(target)
    np.testing.assert_array_equal(after.coord, before.coord)
    np.testing.assert_array_equal(after["color"], before["color"])
    np.testing.assert_array_equal(after["segment"], np.resize([0, 1, 2, 2], 400))
    record = json.loads(record_file(target).read_text())
    assert record["checkpoint_sha256"] == "abc"
    assert record["class_names"] == list(CLASSES.names)
    assert record["class_colors"] == CLASSES.colors.tolist()
    for view in ("top", "oblique"):
        with Image.open(picture_file(target, view)) as picture:
            assert picture.width == 960 and np.asarray(picture).std() > 5


@pytest.mark.parametrize("suffix", [".bin", ".pcd.bin"])
def test_scans_get_a_file_of_labels_next_to_their_copy(tmp_path, monkeypatch, suffix):
    recipe = replace(RECIPE, features=("coord", "strength"), scene_type="outdoor")
    monkeypatch.setattr(
        module, "load_model", lambda path, device, **_: (ByColor(), trained(recipe=recipe))
    )
    coord = np.array([[9, 1, 1], [1, 9, 1], [1, 1, 9]], np.float32)
    scan = Scene(coord=coord, fields={"strength": np.full((3, 1), 0.5, np.float32)})
    source = write(tmp_path / f"000000{suffix}", scan)
    (result,) = predict(spec_of(tmp_path, source))
    assert result.status == "done", result.reason
    target = tmp_path / "out" / source.name
    assert target.read_bytes() == source.read_bytes()
    np.testing.assert_array_equal(read_cloud(target)["segment"], [0, 1, 2])
    assert predict(spec_of(tmp_path, source))[0].status == "kept"
    (tmp_path / "out" / "000000.label").unlink(missing_ok=True)
    assert predict(spec_of(tmp_path, source))[0].status == "done"


def test_without_being_asked_for_more_it_is_one_pass(tmp_path, model):
    source = write(tmp_path / "cloud.ply", colored([0, 1, 2, 2]))
    predict(spec_of(tmp_path, source, pictures=False))
    assert model.asked == 1
    found = read_cloud(tmp_path / "out" / "cloud.ply")["class"]
    assert (found != np.resize([0, 1, 2, 2], 400)).mean() > 0.2  # one point names its voxel


def test_colors_of_the_classes(tmp_path, model):
    source = write(tmp_path / "cloud.ply", colored([1]))
    predict(spec_of(tmp_path, source, colors=True))
    found = read_cloud(tmp_path / "out" / "cloud.ply")["color"]
    np.testing.assert_array_equal(np.unique(found, axis=0), [CLASSES.colors[1]])


def test_one_bad_file_costs_only_itself(tmp_path, model):
    folder = tmp_path / "in"
    write(folder / "a.ply", colored([0]))
    write(folder / "deep" / "b.ply", colored([1]))
    whole = (folder / "a.ply").read_bytes()
    (folder / "cut.ply").write_bytes(whole[: len(whole) // 2])
    write(folder / "bare.ply", Scene(coord=colored([0]).coord))
    write(folder / "none.ply", colored([], count=0))
    results = predict(spec_of(tmp_path, folder))
    by_name = {result.source.rsplit("/", 1)[-1]: result for result in results}
    states = {name: result.status for name, result in by_name.items()}
    assert states == {
        "a.ply": "done", "b.ply": "done", "cut.ply": "failed", "bare.ply": "failed",
        "none.ply": "failed",
    }  # fmt: skip
    assert "lacks color" in by_name["bare.ply"].reason
    assert "no points" in by_name["none.ply"].reason
    assert str(folder / "cut.ply") in by_name["cut.ply"].reason
    assert (tmp_path / "out" / "deep" / "b.ply").is_file()
    assert not list((tmp_path / "out").rglob("*cut*"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [f["status"] for f in summary["files"]] == [result.status for result in results]
    lines = summary_table(results).splitlines()
    assert len(lines) == 6 and "floor 100 %" in summary_table(results)
    assert sum("failed" in line for line in lines) == 3


def test_a_fault_of_ours_costs_one_file_too(tmp_path, model, monkeypatch):
    first = write(tmp_path / "a.ply", colored([0]))
    second = write(tmp_path / "b.ply", colored([1]))
    forward = model.forward

    def once(cloud):
        monkeypatch.setattr(model, "forward", forward)
        raise IndexError("out of range")

    monkeypatch.setattr(model, "forward", once)
    results = predict(spec_of(tmp_path, first, second))
    assert [r.status for r in results] == ["failed", "done"]
    assert results[0].reason == "IndexError: out of range"


def test_what_is_there_is_kept_and_what_is_not_whole_is_made_again(tmp_path, model):
    source = write(tmp_path / "cloud.ply", colored([0, 1]))
    spec = spec_of(tmp_path, source)
    (first,) = predict(spec)
    model.asked = 0
    (again,) = predict(spec)
    assert again == replace(first, status="kept") and model.asked == 0
    target = tmp_path / "out" / "cloud.ply"
    whole = target.read_bytes()
    for spoil in (
        lambda: target.write_bytes(whole[:-10]),
        lambda: record_file(target).write_text("{}"),
        lambda: record_file(target).write_text("[]"),
        lambda: record_file(target).unlink(),
        lambda: picture_file(target, "top").unlink(),
        lambda: write(source, colored([1, 1])),
    ):
        spoil()
        model.asked = 0
        assert predict(spec)[0].status == "done" and model.asked == 1
        assert predict(spec)[0].status == "kept"
    model.asked = 0
    predict(replace(spec, overwrite=True))
    predict(replace(spec, tta=True))
    assert model.asked == 2


def test_points_without_a_position_stay_with_class_minus_one(tmp_path, model):
    scene = colored([0])
    scene.coord[3], scene.coord[7, 1] = np.nan, np.inf
    source, said = write(tmp_path / "cloud.ply", scene), []
    (result,) = predict(spec_of(tmp_path, source, log=said.append))
    assert result.points == 400 and result.unlabelled == 2
    found = read_cloud(tmp_path / "out" / "cloud.ply")["class"]
    np.testing.assert_array_equal(np.flatnonzero(found == -1), [3, 7])
    assert said == ["cloud.ply: 2 points have no position; their class is -1"]
    scene.coord[:] = np.nan
    (result,) = predict(spec_of(tmp_path, write(tmp_path / "nan.ply", scene)))
    assert result.reason == "has no point with a position"


def test_a_georeference_is_kept(tmp_path, model):
    scene = replace(colored([0, 1]), origin=np.array([4.5e6, 5.3e6, 400.0]))
    source = write(tmp_path / "cloud.laz", scene)
    predict(spec_of(tmp_path, source))
    before, after = read_cloud(source), read_cloud(tmp_path / "out" / "cloud.laz")
    np.testing.assert_array_equal(after.origin, before.origin)
    np.testing.assert_array_equal(after.coord, before.coord)


def test_millimetres_under_a_model_in_metres_are_refused(tmp_path, model):
    scene = colored([0, 1], count=3000)
    source = write(tmp_path / "cloud.ply", scene.moved(scene.coord * 1000))
    (result,) = predict(spec_of(tmp_path, source))
    assert result.status == "failed" and "--unit millimetre" in result.reason
    assert predict(spec_of(tmp_path, source, unit_m=0.001))[0].status == "done"
    after = read_cloud(tmp_path / "out" / "cloud.ply")
    np.testing.assert_array_equal(after.coord, read_cloud(source).coord)
    (result,) = predict(spec_of(tmp_path, source, check_scale=False))
    assert result.status == "done" and "voxels" in result.notes[0]


def test_clouds_are_taken_as_those_of_training_were(tmp_path, model, monkeypatch):
    scene = colored([0, 1], count=3000)
    source = write(tmp_path / "cloud.ply", scene.moved(scene.coord * 1000))
    recipe = replace(RECIPE, cloud_format=PointCloudFormat(unit_m=0.001, up="y"))
    monkeypatch.setattr(
        module, "load_model", lambda path, device, **_: (model, trained(recipe=recipe))
    )
    assert predict(spec_of(tmp_path, source))[0].status == "done"
    record = json.loads((tmp_path / "out" / "cloud.ply.json").read_text())
    assert (record["cloud_format"]["unit_m"], record["cloud_format"]["up"]) == (0.001, "y")
    (result,) = predict(spec_of(tmp_path, source, unit_m=1.0))
    assert result.status == "failed" and "--unit millimetre" in result.reason


class ByNormal(nn.Module):
    """floor where the normal points up, wall where down, thing elsewhere."""

    def forward(self, cloud):
        up = cloud.feat[:, 2]
        return torch.stack([up > 0.9, up < -0.9, up.abs() <= 0.9], 1).float()


def sheets():
    """A floor at z = 1 and a ceiling at z = 3."""
    rng = np.random.default_rng(0)
    coord = (rng.random((600, 3)) * [4, 3, 0]).astype(np.float32)
    coord[:, 2] = np.repeat([1, 3], 300)
    return Scene(coord=coord)


@pytest.mark.parametrize(
    ("setting", "orient_normals", "floor", "ceiling"),
    [
        ("indoor", None, 0, 1),  # both face the middle of the room
        ("outdoor", None, 1, 1),  # both are above the origin
        ("indoor", "up", 0, 0),
    ],
)
def test_missing_normals_are_estimated_and_face_where_the_option_says(
    tmp_path, monkeypatch, setting, orient_normals, floor, ceiling
):
    recipe = replace(RECIPE, features=("normal",), scene_type=setting, voxel_m=0.05)
    monkeypatch.setattr(
        module, "load_model", lambda path, device, **_: (ByNormal(), trained(recipe=recipe))
    )
    said = []
    source = write(tmp_path / "cloud.ply", sheets())
    (result,) = predict(
        spec_of(tmp_path, source, log=said.append, orient_normals=orient_normals, pictures=False)
    )
    assert result.status == "done", result.reason
    assert said[0].startswith("cloud.ply: has no normals; they were estimated")
    found = read_cloud(tmp_path / "out" / "cloud.ply")["class"]
    assert (found[:300] == floor).all() and (found[300:] == ceiling).all()


def test_one_file_to_one_file(tmp_path, model):
    source = write(tmp_path / "cloud.ply", colored([0, 1]))
    (result,) = predict(spec_of(tmp_path, source, out=tmp_path / "named.ply", pictures=False))
    assert result.status == "done"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cloud.ply", "named.ply", "named.ply.json",
    ]  # fmt: skip
    (result,) = predict(spec_of(tmp_path, source, out=tmp_path / "other.pcd"))
    assert "must end in .ply" in result.reason


def test_a_folder_of_arrays_is_one_cloud(tmp_path, model):
    write(tmp_path / "in" / "room", colored([0, 1]))
    (result,) = predict(spec_of(tmp_path, tmp_path / "in"))
    assert result.status == "done", result.reason
    assert len(read_cloud(tmp_path / "out" / "room")) == 400
    assert predict(spec_of(tmp_path, tmp_path / "in"))[0].status == "kept"


def test_progress_is_reported(tmp_path, model):
    files = [write(tmp_path / f"{k}.ply", colored([k])) for k in range(2)]
    reported = []
    predict(spec_of(tmp_path, *files, progress=lambda *state: reported.append(state)))
    assert reported[0] == (0, 2, "0.ply") and reported[-1] == (2, 2, "")
    assert [state[0] for state in reported] == sorted(state[0] for state in reported)


@pytest.mark.parametrize(
    ("inputs", "out", "named"),
    [
        (["lost.ply"], "out", "lost.ply"),
        (["empty"], "out", "empty: "),
        (["in/a.ply", "other/a.ply"], "out", "in/a.ply .*out/a.ply"),
        (["in/a.ply", "other/a.ply"], "one.ply", "-o .*one.ply: .*2 clouds"),
        (["in/a.ply"], "in", "in/a.ply: .*-o"),
        (["in/a.ply"], "file", "-o .*file: "),
        (["in/a.ply", "other/A.ply"], "out", "in/a.ply .*other/A.ply .*-o"),
        (["in/\u00e9.ply", "other/e\u0301.ply"], "out", "in/\u00e9.ply .*other/e\u0301.ply .*-o"),
        (["in/s.bin", "other/s.pcd.bin"], "out", "in/s.bin .*other/s.pcd.bin .*s.label"),
        (["third", "in/sub/b.ply"], "in", "third/sub/b.ply: .*in/sub/b.ply"),
    ],
)
def test_refused(tmp_path, model, inputs, out, named):
    for name in (
        "in/sub/b.ply",
        "third/sub/b.ply",
        "in/s.bin",
        "other/s.pcd.bin",
        "other/A.ply",
        "in/\u00e9.ply",
        "other/e\u0301.ply",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    write(tmp_path / "in" / "a.ply", colored([0]))
    write(tmp_path / "other" / "a.ply", colored([0]))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=named):
        predict(spec_of(tmp_path, *(tmp_path / name for name in inputs), out=tmp_path / out))
    assert model.asked == 0


def test_a_pattern_that_no_shell_filled_in_is_called_one(tmp_path):
    with pytest.raises(UserError, match=r"\*\.laz: .*pattern"):
        find_sources([tmp_path / "*.laz"], tmp_path / "out")


def test_the_texts_of_a_colmap_model_are_no_clouds(tmp_path):
    (tmp_path / "sparse").mkdir()
    for name in ("cameras.txt", "images.txt", "points3D.txt"):
        (tmp_path / "sparse" / name).write_text("# of COLMAP")
    (tmp_path / "images.txt").write_text("0 0 0")
    found = find_sources([tmp_path], tmp_path / "out")
    assert [source.path for source in found] == [tmp_path / "images.txt"]  # alone it is a cloud


def test_results_and_hidden_files_are_no_sources(tmp_path, model):
    folder = tmp_path / "in"
    write(folder / "a.ply", colored([0]))
    (folder / ".hidden.ply").write_text("")
    spec = spec_of(tmp_path, folder, out=folder / "out")
    assert [r.status for r in predict(spec)] == ["done"]
    assert [r.status for r in predict(spec)] == ["kept"]


STRENGTH = replace(RECIPE, features=("coord", "strength"), scene_type="outdoor")


class ByStrength(nn.Module):
    """Class 1 where the intensity is above 0.5."""

    def forward(self, cloud):
        strong = cloud.feat[:, 3:] - 0.5
        return torch.cat([-strong, strong, torch.full_like(strong, -9)], 1)


def intensities(tmp_path, *values):
    """A LAS file of 100 points for each of these intensities, and those as read when 500 is the most."""
    scene = colored([0], count=100 * len(values)).without("color")
    raw = np.repeat(np.array(values, np.uint16), 100)
    return write(tmp_path / "scan.las", scene.with_fields(intensity=raw))


@pytest.mark.parametrize(
    ("trained_with", "given", "counts", "note"),
    [
        (None, None, {"floor": 100, "wall": 100}, "assumed to reach 255"),
        (500.0, None, {"floor": 200}, None),
        (None, 250.0, {"floor": 100, "wall": 100}, None),
        (500.0, 150.0, {"wall": 200}, "exceed 150"),
    ],
)
def test_the_scale_of_intensities(tmp_path, monkeypatch, trained_with, given, counts, note):
    recipe = replace(STRENGTH, cloud_format=PointCloudFormat(intensity_max=trained_with))
    model = ByStrength(), trained(recipe=recipe)
    monkeypatch.setattr(module, "load_model", lambda path, device, **_: model)
    said = []
    scan = intensities(tmp_path, 100, 200)
    spec = spec_of(tmp_path, scan, log=said.append, tta=True, unit_m=1.0)
    (result,) = predict(replace(spec, intensity_max=given))
    assert result.status == "done", result.reason
    assert result.classes == counts
    assert [note in line for line in said] == ([] if note is None else [True])
    assert predict(replace(spec, intensity_max=given))[0].status == "kept"
    assert predict(replace(spec, intensity_max=180.0))[0].status == "done"


@pytest.mark.parametrize("stream", [False, True])
def test_a_range_that_most_values_lie_outside_of(tmp_path, monkeypatch, stream):
    monkeypatch.setattr(
        module, "load_model", lambda *_, **__: (ByStrength(), trained(recipe=STRENGTH))
    )
    scan = intensities(tmp_path, 100, 200, 300)
    (result,) = predict(spec_of(tmp_path, scan, stream=stream, intensity_max=150.0, unit_m=1.0))
    assert result.status == "failed" and "67 % of its intensities" in result.reason
    assert "--intensity-max" in result.reason


@pytest.mark.parametrize("stream", [False, True])
def test_colours_that_nobody_filled_are_missing(tmp_path, model, stream):
    scene = colored([0, 1])
    source = write(tmp_path / "a.las", scene.with_fields(color=scene["color"] * 0))
    (result,) = predict(spec_of(tmp_path, source, stream=stream))
    assert "lacks color (its red, green and blue are 0 at every point)" in result.reason


def test_normals_that_nobody_filled_are_estimated(tmp_path, monkeypatch):
    recipe = replace(RECIPE, features=("normal",))
    monkeypatch.setattr(
        module, "load_model", lambda path, device, **_: (ByNormal(), trained(recipe=recipe))
    )
    scene = colored([0]).with_fields(normal=np.zeros((400, 3), np.float32))
    source = write(tmp_path / "a.ply", scene)
    (result,) = predict(spec_of(tmp_path, source, orient_normals="up"))
    assert "its normals are 0 at every point; they were estimated, oriented upwards" in result.notes
    (result,) = predict(spec_of(tmp_path, source, stream=True, overwrite=True))
    assert result.status == "failed" and "its normals are 0 at every point" in result.reason


def test_a_scale_that_cannot_be(tmp_path, model):
    source = write(tmp_path / "a.ply", colored([0]))
    with pytest.raises(UserError, match="'intensity_max' must be > 0, or null, got 0"):
        predict(spec_of(tmp_path, source, intensity_max=0.0))


COLUMNS = ("x", "y", "z", "red", "spare", "green", "blue", "label")


@pytest.mark.parametrize("columns", [8, 7, 6])
def test_text_without_names_is_read_as_in_training(tmp_path, monkeypatch, columns):
    model = (
        ByColor(),
        trained(recipe=replace(RECIPE, cloud_format=PointCloudFormat(columns=COLUMNS))),
    )
    monkeypatch.setattr(module, "load_model", lambda path, device, **_: model)
    scene = colored([0, 1, 2])
    rows = np.c_[scene.coord, scene["color"], np.zeros((400, 2))][:, [0, 1, 2, 3, 6, 4, 5, 7]]
    np.savetxt(tmp_path / "a.xyz", rows[:, :columns], fmt="%g")
    spec = spec_of(tmp_path, tmp_path / "a.xyz", tta=True)
    (result,) = predict(spec)
    if columns == 6:
        assert "has 6 columns without names, the names given" in result.reason
        return
    assert result.classes == {"floor": 134, "wall": 133, "thing": 133}, result.reason
    target = tmp_path / "out" / "a.xyz"
    assert target.read_text().splitlines()[0].split()[1:] == [*COLUMNS[:columns], "class"]
    assert predict(spec)[0].status == "kept"
    # names of the file are replaced, as in training
    names = "x y z b1 b2 b3 b4 b5".split()[:columns]
    np.savetxt(tmp_path / "a.xyz", rows[:, :columns], fmt="%g", header=" ".join(names))
    (result,) = predict(spec)
    assert result.classes == {"floor": 134, "wall": 133, "thing": 133}, result.reason
    assert any("its names b1, b2" in note for note in result.notes)
    asked = replace(spec, columns=("x", "y", "z", *names[3:]))
    assert "lacks color" in predict(asked)[0].reason


@pytest.mark.parametrize("stream", [False, True])
def test_scans_of_other_columns(tmp_path, monkeypatch, stream):
    named = ("x", "y", "z", "time", "intensity")
    scene = colored([0, 1])
    values = np.c_[scene.coord, np.arange(400) * 9, np.arange(400) % 2].astype("<f4")
    values.tofile(tmp_path / "a.bin")
    said = {}
    for columns, given in (((), None), ((), named), (named, None), (("x", "y", "z", "red"), None)):
        recipe = replace(STRENGTH, cloud_format=PointCloudFormat(bin_columns=columns or None))
        model = ByStrength(), trained(recipe=recipe)
        monkeypatch.setattr(module, "load_model", lambda path, device, model=model, **_: model)
        spec = spec_of(tmp_path, tmp_path / "a.bin", stream=stream, columns=given, tta=True)
        (result,) = predict(spec)
        said[columns, given] = result
        if result.status == "done":
            labels = np.fromfile(tmp_path / "out" / "a.label", "<u4")
            np.testing.assert_array_equal(labels, np.arange(400) % 2)
            assert predict(spec)[0].status == "kept"
    assert [result.status for result in said.values()] == ["failed", "done", "done", "failed"]
    assert "400 points of 5 columns of float32" in said[(), None].reason


def test_cloud_optimised_files_come_out_plain(tmp_path, model):
    copc(tmp_path / "a.copc.laz")
    (result,) = predict(spec_of(tmp_path, tmp_path / "a.copc.laz", unit_m=1.0))
    assert result.status == "done", result.reason
    assert result.notes == ("is cloud-optimised (COPC); the result is plain LAZ",)
    assert result.target == str(tmp_path / "out" / "a.laz")
    assert read_cloud(tmp_path / "out" / "a.laz")["color"].any()


def test_what_could_not_be_written_is_not_predicted(tmp_path, model):
    pcd, bin_ = (write(tmp_path / f"a{s}", colored([0]).without("color")) for s in (".pcd", ".bin"))
    (result,) = predict(spec_of(tmp_path, pcd, out=tmp_path / "b.ply"))
    assert result.reason.startswith(f"{tmp_path / 'b.ply'}: ") and ".pcd" in result.reason
    (result,) = predict(spec_of(tmp_path, bin_, colors=True))
    assert result.reason.startswith(f"{bin_}: ") and "colours" in result.reason
    assert model.asked == 0


def test_heights_above_the_ground_are_computed_in_metres_as_in_training(tmp_path):
    scene = colored([0, 1])
    recipe = replace(RECIPE, features=("height_above_ground",))
    feet = PointCloudFormat(unit_m=0.3048)
    cloud = prepare_cloud(scene, recipe, feet, refuse_scale=False).cloud
    wanted = 0.3048 * (scene.coord[:, 2] - scene.coord[:, 2].min())
    assert cloud["height_above_ground"].max() == pytest.approx(wanted.max(), abs=0.05)
