"""Whole splits: scores, files, and what is taken up again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.named_scenes import NamedScenes
from pointseg.evaluation import evaluate as module
from pointseg.evaluation.evaluate import evaluate
from pointseg.evaluation.robustness import Corruption
from pointseg.evaluation.saved_labels import labels_file
from pointseg.evaluation.spec import EvaluationSpec
from tests.pointseg.evaluation.answers import CLASSES, ByColor, Clouds, colored, trained


@pytest.fixture
def model(monkeypatch):
    made = ByColor()
    monkeypatch.setattr(module, "load_model", lambda path, device, **_: (made, trained()))
    return made


ONE = colored([0], truth=[0])


def two_scenes():
    first = colored([0, 0, 1], name="a", truth=[0, 0, 1])
    second = colored([0, 1, 1, 2], seed=1, name="b/1", truth=[0, 1, 0, -1])
    return Clouds({"test": {"a": first, "b/1": second}, "other": {"a": first}})


def spec_of(tmp_path, **changes):
    made = EvaluationSpec(
        model=tmp_path / "best.pt",
        dataset=two_scenes(),
        out=tmp_path / "out",
        pictures=0,
        log=lambda text: None,
    )
    return replace(made, **changes)


def test_the_score_is_that_of_all_points_together(tmp_path, model):
    found = evaluate(spec_of(tmp_path))
    # a: 267 floor, 133 wall, all right. b: floor as floor 100, wall as wall 100, floor as wall 100.
    np.testing.assert_array_equal(found.confusion.matrix, [[367, 100, 0], [0, 233, 0], [0, 0, 0]])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    iou = [367 / 467, 233 / 333]
    assert metrics["test_point_miou"] == pytest.approx(sum(iou) / 3)
    assert metrics["test_point_miou_present"] == pytest.approx(sum(iou) / 2)
    assert metrics["test_point_iou"] == {
        "floor": pytest.approx(iou[0]), "wall": pytest.approx(iou[1]), "thing": None,
    }  # fmt: skip
    assert metrics["test_point_miou_by_group"]["structure"]["present"] == pytest.approx(
        sum(iou) / 2
    )
    assert metrics["labelled_points"] == 700 and metrics["predicted_points"] == 800
    assert metrics["scenes"] == 2
    protocol = metrics["protocol"]
    assert protocol["checkpoint_sha256"] == "abc" and protocol["splits"] == ["test"]
    assert protocol["voxel_m"] == 0.5 and not protocol["single_pass"]
    assert len(protocol["tta"]) == 1
    assert metrics == json.loads(json.dumps(found.metrics))


def test_the_folder_holds_labels_pictures_and_the_matrix(tmp_path, model):
    found = evaluate(spec_of(tmp_path, pictures=4))
    out = tmp_path / "out"
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {
        "metrics.json", "confusion.png", "confusion.csv",
        "labels/test/a.npy", "labels/test/a.npy.json",
        "labels/test/b/1.npy", "labels/test/b/1.npy.json",
        "pictures/test/a.png", "pictures/test/b/1.png",
    }  # fmt: skip
    labels = np.load(labels_file(out, "test", "a"))
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, np.resize([0, 0, 1], 400))
    assert found.pictures == (out / "pictures/test/a.png", out / "pictures/test/b/1.png")
    with Image.open(found.pictures[0]) as picture:
        assert picture.width > 2000  # colours, truth, prediction, errors


def test_finished_scenes_are_not_predicted_again(tmp_path, model):
    first = evaluate(spec_of(tmp_path))
    asked, said = model.asked, []
    second = evaluate(spec_of(tmp_path, log=said.append))
    assert model.asked == asked
    assert said == ["2 of 2 scenes were predicted before by this model, and verified"]
    np.testing.assert_array_equal(second.confusion.matrix, first.confusion.matrix)
    evaluate(spec_of(tmp_path, overwrite=True))
    assert model.asked == 2 * asked


class Remarked(Clouds, NamedScenes):
    """Scenes in memory that are looked at like files."""

    def __init__(self, scenes):
        Clouds.__init__(self, scenes)
        NamedScenes.__init__(self, "folder", scenes)

    def look_at(self, split, scene):
        """Nothing is wrong with any."""

    def remarks(self):
        return ["2 clouds in subfolders are in no split"]


def test_what_is_odd_about_the_files_is_said(tmp_path, model):
    said = []
    dataset = Remarked(two_scenes().held)
    evaluate(spec_of(tmp_path, dataset=dataset, log=said.append))
    assert "2 clouds in subfolders are in no split" in said


@pytest.mark.parametrize("what", ["labels", "record", "cut", "gone", "rubbish"])
def test_results_that_are_not_whole_are_made_again(tmp_path, model, what):
    expected = evaluate(spec_of(tmp_path)).confusion.matrix
    place = labels_file(tmp_path / "out", "test", "a")
    record = place.with_name("a.npy.json")
    if what == "labels":
        np.save(place, np.zeros(400, np.uint16))
    elif what == "record":
        record.write_text(record.read_text().replace("abc", "xyz"))
    elif what == "cut":
        place.write_bytes(place.read_bytes()[:100])
    elif what == "gone":
        record.unlink()
    else:
        record.write_text("[1, ")
    model.asked = 0
    np.testing.assert_array_equal(evaluate(spec_of(tmp_path)).confusion.matrix, expected)
    assert model.asked == 1 or what != "labels"
    model.asked = 0
    evaluate(spec_of(tmp_path))
    assert model.asked == 0


def test_another_model_or_another_way_predicts_again(tmp_path, model, monkeypatch):
    evaluate(spec_of(tmp_path))
    model.asked = 0
    evaluate(spec_of(tmp_path, single_pass=True))
    assert model.asked == 2
    evaluate(spec_of(tmp_path, single_pass=True, test_changes={"margin_m": 1.0}))
    assert model.asked == 4
    monkeypatch.setattr(module, "load_model", lambda path, device, **_: (model, trained("other")))
    evaluate(spec_of(tmp_path, single_pass=True, test_changes={"margin_m": 1.0}))
    assert model.asked == 6


def test_an_interrupted_test_goes_on_with_the_next_scene(tmp_path, model, monkeypatch):
    dataset = two_scenes()
    whole = dataset.load

    def load(split, name):
        if name == "b/1":
            raise KeyboardInterrupt
        return whole(split, name)

    monkeypatch.setattr(dataset, "load", load)
    with pytest.raises(KeyboardInterrupt):
        evaluate(spec_of(tmp_path, dataset=dataset))
    assert not (tmp_path / "out" / "metrics.json").exists()
    asked = model.asked
    evaluate(spec_of(tmp_path))
    assert model.asked > asked
    first_scene = asked
    model.asked = 0
    evaluate(spec_of(tmp_path, out=tmp_path / "new"))
    assert model.asked > first_scene  # both scenes


def test_scenes_without_labels_are_predicted_and_not_scored(tmp_path, model):
    dataset = Clouds({"test": {"a": colored([0, 1, 2])}})
    found = evaluate(spec_of(tmp_path, dataset=dataset))
    assert found.metrics["test_point_miou"] is None and found.metrics["labelled_points"] == 0
    assert not (tmp_path / "out" / "confusion.png").exists()
    np.testing.assert_array_equal(
        np.load(labels_file(tmp_path / "out", "test", "a")), np.resize([0, 1, 2], 400)
    )


def test_progress_and_the_number_of_pictures(tmp_path, model):
    reported = []
    found = evaluate(
        spec_of(
            tmp_path, pictures=1, progress=lambda *state: reported.append(state), splits=("other",)
        )
    )
    assert len(found.pictures) == 1
    assert reported[0] == (0, 1, "other/a") and reported[-1] == (1, 1, "")
    assert [done for done, _, _ in reported] == sorted(done for done, _, _ in reported)


class Benchmark(Clouds):
    """One whose results can be submitted."""

    def write_submission(self, out, results, *, split, use_camera=False):
        assert split == "test"
        out.mkdir()
        for name, scene, predicted in results:
            assert len(scene) == len(predicted)
            np.savetxt(out / f"{name.replace('/', '-')}.txt", predicted, fmt="%d")
        return sorted(out.iterdir())


def test_results_are_handed_in(tmp_path, model):
    dataset = Benchmark(two_scenes().held)
    evaluate(spec_of(tmp_path, dataset=dataset, submit=tmp_path / "submit"))
    assert sorted(p.name for p in (tmp_path / "submit").iterdir()) == ["a.txt", "b-1.txt"]
    found = np.loadtxt(tmp_path / "submit" / "a.txt", dtype=int)
    np.testing.assert_array_equal(found, np.resize([0, 0, 1], 400))


def test_a_scene_that_changed_is_predicted_again(tmp_path, model):
    evaluate(spec_of(tmp_path, dataset=Clouds({"test": {"a": colored([0], truth=[0])}})))
    asked = model.asked
    found = evaluate(spec_of(tmp_path, dataset=Clouds({"test": {"a": colored([1], truth=[1])}})))
    assert model.asked > asked and found.metrics["test_point_accuracy"] == 1


def nan_scene():
    scene = colored([0], name="a")
    scene.coord[3] = np.nan
    return Clouds({"test": {"a": scene}})


def renamed_classes():
    dataset = two_scenes()
    dataset.classes = replace(CLASSES, names=("floor", "wall", "lamp"))
    return dataset


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dataset": Benchmark({"val": {"a": ONE}, "test": {"b": ONE}}), "splits": ("val", "test"), "submit": "x"},
         "--submit: .*val, test"),
        ({"submit": "x"}, "--submit: clouds"),
        ({"dataset": Benchmark({"test": {"a": ONE}}), "submit": "x", "corruption": Corruption(drop_color=True)},
         "--submit: .*corrupted"),
        ({"dataset": renamed_classes()}, "classes .* dataset clouds"),
        ({"dataset": Clouds({"test": {}})}, "clouds: the splits test"),
        ({"splits": ("val",)}, "no split 'val'"),
        ({"dataset": nan_scene()}, "scene a: 1 points"),
    ],
)  # fmt: skip
def test_refused(tmp_path, model, changes, named):
    with pytest.raises(UserError, match=named):
        evaluate(spec_of(tmp_path, **changes))
    assert model.asked == 0
