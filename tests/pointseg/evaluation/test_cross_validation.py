"""Tests of several folds reported as one."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from dinomed3d.runtime.errors import UserError
from pointseg.evaluation import evaluate as module
from pointseg.evaluation.cross_validation import merge_results
from pointseg.evaluation.evaluate import evaluate
from pointseg.evaluation.point_metrics import BY_VISIBILITY
from pointseg.evaluation.robustness import Corruption
from pointseg.evaluation.spec import EvaluationSpec
from pointseg.evaluation.visibility_breakdown import GROUPS, visibility_scores
from pointseg.metrics import Confusion
from tests.pointseg.evaluation.answers import CLASSES, ByColor, Clouds, colored, trained

ONE = colored([0, 0, 1], truth=[0, 0, 1])
TWO = colored([0, 1, 1, 2], seed=1, count=800, truth=[0, 1, 0, 2])


@pytest.fixture
def tested(tmp_path, monkeypatch):
    """Folders of two finished tests, by different models, of one area each."""

    def made(name, split, scene, **changes):
        monkeypatch.setattr(module, "load_model", lambda *_, **__: (ByColor(), trained(name)))
        spec = EvaluationSpec(
            model=tmp_path / f"{name}.pt", dataset=Clouds({split: {"a": scene}}), splits=(split,),
            out=tmp_path / name, pictures=0, log=lambda text: None,
        )  # fmt: skip
        evaluate(replace(spec, **changes))
        return tmp_path / name

    made.folders = [made("one", "Area_1", ONE), made("two", "Area_2", TWO)]
    return made


def test_the_sum_is_the_test_of_all_scenes(tmp_path, tested):
    said = []
    found = merge_results(tested.folders, tmp_path / "sum", log=said.append)
    both = Clouds({"all": {"a": ONE, "b": TWO}})
    whole = tested("both", "all", ONE, dataset=both)
    expected = json.loads((whole / "metrics.json").read_text())
    metrics = json.loads((tmp_path / "sum" / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(found.metrics)) and said == []
    for name in expected.keys() - {"protocol", "checkpoint", "seconds"}:
        assert metrics[name] == expected[name], name
    # By hand: floor 267 + 200 of 667 labelled, none wrong; wall 133 + 200, and 200 of floor.
    assert metrics["test_point_iou"]["floor"] == pytest.approx(467 / 667)
    assert metrics["test_point_iou"]["wall"] == pytest.approx(333 / 533)
    mean = np.mean([fold["test_point_miou"] for fold in metrics["folds"]])
    assert metrics["test_point_miou"] != pytest.approx(mean)
    assert metrics["protocol"]["splits"] == ["Area_1", "Area_2"]
    assert metrics["test_point_miou_by_group"].keys() == {"structure"}
    for name in ("confusion.csv", "confusion.png"):
        assert (tmp_path / "sum" / name).read_bytes() == (whole / name).read_bytes()


def test_other_ways_of_testing_are_reported(tmp_path, tested):
    third = tested("three", "Area_3", ONE, single_pass=True)
    said = []
    found = merge_results([*tested.folders, third], tmp_path / "sum", log=said.append)
    assert len(said) == 1 and said[0].startswith("the tests differ in ")
    assert "single_pass" in said[0] and "single_pass" not in found.metrics["protocol"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_test_on_scenes_made_worse_is_distinguished_from_a_clean_one(tmp_path, tested, order):
    worse = tested("worse", "Area_3", ONE, corruption=Corruption(drop_color=True))
    said = []
    folders = [*tested.folders, worse][::order]
    found = merge_results(folders, tmp_path / "sum", log=said.append).metrics
    damage = {"drop_views", "pixel_noise", "angle_noise_deg", "drop_color"}
    assert len(said) == 1 and all(name in said[0] for name in damage)
    assert not damage & found["protocol"].keys()
    assert damage <= set(found["protocol"]["differing"])
    assert [fold["differing"]["drop_color"] for fold in found["folds"]][::order] == [
        None,
        None,
        True,
    ]


def by_visibility(folder, *counted):
    """Add counts of seen and unseen points to a test's results."""
    path = folder / "metrics.json"
    groups = zip(GROUPS, map(Confusion.of, map(np.array, counted)), strict=True)
    found = json.loads(path.read_text()) | {
        BY_VISIBILITY: visibility_scores(dict(groups), CLASSES.names)
    }
    path.write_text(json.dumps(found))
    return found[BY_VISIBILITY]


def test_counts_of_seen_and_unseen_points_are_summed(tmp_path, tested):
    none, two, mixed = np.zeros((3, 3), int), np.diag([2, 0, 0]), [[1, 1, 0], [0, 4, 0], [0, 0, 0]]
    first = by_visibility(tested.folders[0], two, none)
    assert first["visible"]["confusion"] == {"floor": {"floor": 2}}
    assert first["not_visible"] == {
        "points": 0, "miou_present": None, "accuracy": None, "confusion": {}
    }  # fmt: skip
    by_visibility(tested.folders[1], mixed, two)
    said = []
    found = merge_results(tested.folders, tmp_path / "sum", log=said.append).metrics
    seen, unseen = (found[BY_VISIBILITY][name] for name in GROUPS)
    # By hand: floor 3 of 4, wall 4 of 5.
    assert seen["points"] == 8 and seen["accuracy"] == pytest.approx(7 / 8) and said == []
    assert seen["miou_present"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert unseen["points"] == 2 and unseen["miou_present"] == 1
    assert (
        json.loads((tmp_path / "sum" / "metrics.json").read_text())[BY_VISIBILITY]
        == found[BY_VISIBILITY]
    )


def without_counts(folder):
    path = folder / "metrics.json"
    found = json.loads(path.read_text())
    del found[BY_VISIBILITY]["visible"]["confusion"]
    path.write_text(json.dumps(found))


def without_scores(folder):
    path = folder / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), BY_VISIBILITY: None}))


@pytest.mark.parametrize("change", [without_counts, without_scores])
def test_visibility_scores_need_the_counts_of_all(tmp_path, tested, change):
    for folder in tested.folders:
        by_visibility(folder, np.eye(3, dtype=int), np.eye(3, dtype=int))
    change(tested.folders[1])
    said = []
    found = merge_results(tested.folders, tmp_path / "sum", log=said.append).metrics
    assert BY_VISIBILITY not in found and len(said) == 1
    assert "no scores by visibility" in said[0] and str(tested.folders[1]) in said[0]


def other_classes(folder):
    path = folder / "confusion.csv"
    with path.open(newline="") as stream:
        rows = [[cell.replace("wall", "door") for cell in row] for row in csv.reader(stream)]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def same_split(folder):
    path = folder / "metrics.json"
    path.write_text(path.read_text().replace("Area_2", "Area_1"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_classes, "two has the classes"),
        (same_split, "Area_1 of clouds"),
        (lambda folder: (folder / "metrics.json").unlink(), "metrics.json"),
        (lambda folder: (folder / "confusion.csv").unlink(), "confusion.csv"),
        (lambda folder: (folder / "metrics.json").write_text("{}"), "metrics.json"),
        (lambda folder: (folder / "confusion.csv").write_text("a,b"), "confusion.csv"),
        (lambda folder: (folder / "confusion.csv").write_text("a,b,c\nc,1,x"), "confusion.csv"),
    ],
)
def test_what_cannot_be_merged(tmp_path, tested, change, named):
    change(tested.folders[1])
    with pytest.raises(UserError, match=f"--merge: .*{named}"):
        merge_results(tested.folders, tmp_path / "sum")
    assert not (tmp_path / "sum").exists()


def test_folders_that_cannot_be_merged(tmp_path, tested):
    with pytest.raises(UserError, match="--merge"):
        merge_results(tested.folders[:1], tmp_path / "sum")
    with pytest.raises(UserError, match="--out"):
        merge_results(tested.folders, tested.folders[0])
