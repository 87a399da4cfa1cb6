"""pointseg-eval: which points are compared, what their labels mean, and what is refused."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

import numpy as np
import pytest

from dinomed3d.runtime.errors import UserError
from pointseg.cli.eval import main
from pointseg.files import write_cloud, write_labelled
from pointseg.scene import Scene
from pointseg.scoring.labels import read_labels
from pointseg.scoring.pairs import find_pairs
from pointseg.scoring.prediction_classes import Classes
from pointseg.scoring.report import as_json
from pointseg.scoring.score import score
from pointseg.scoring.spec import ScoreError, ScoreSpec

TRUTH = np.array([0, 0, 0, 1, 1, 2, -1, -1], np.int32)
GUESS = np.array([0, 0, 1, 1, 1, -1, 1, 0], np.int32)
NAMES, CODES = ["ground", "tree", "roof"], [2, 5, 6]
COORD = np.random.default_rng(0).uniform(0, 50, (8, 3)).round(2).astype(np.float32)
ORIGIN = np.array([650_000.0, 6_860_000.0, 0.0])


def cloud(**fields):
    return Scene(coord=COORD, fields={k: np.asarray(v) for k, v in fields.items()}, origin=ORIGIN)


def codes_of(labels):
    return np.array([*CODES, 1], np.uint8)[labels]


def constant(label):
    return np.full(len(TRUTH), label, np.int32)


def record(path, *, names=NAMES, codes=CODES):
    text = json.dumps({"class_names": names, "class_codes": codes})
    path.with_name(f"{path.name}.json").write_text(text, encoding="utf-8")


@pytest.fixture
def pair(tmp_path):
    """A reference in LAS with codes, and what pointseg-predict makes of it."""
    ours, theirs = tmp_path / "out" / "a.laz", tmp_path / "ref" / "a.laz"
    ours.parent.mkdir()
    theirs.parent.mkdir()
    write_cloud(theirs, cloud(classification=codes_of(TRUTH)))
    write_labelled(theirs, ours, GUESS, codes=tuple(CODES))
    record(ours)
    return ours, theirs


def scored(ours, theirs, **changes):
    return score(ScoreSpec(ours, theirs, **changes))


WANTED = [[2, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
"""The last row and column: without a predicted class."""


def test_codes_become_classes_by_the_record(pair):
    found = scored(*pair, ignored=frozenset({1}))
    assert found.names == (*NAMES, "(no class)") and found.classes == 3
    assert found.confusion.matrix.tolist() == WANTED
    np.testing.assert_allclose(found.per_class()["iou"], [2 / 3, 2 / 3, 0])
    means = found.means()
    assert means["precision"] == pytest.approx((1 + 2 / 3 + 0) / 3)  # roof, never predicted: 0
    assert means["recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    (one,) = found.pairs
    assert (one.points, one.ignored, one.accuracy) == (6, 2, 4 / 6)
    assert one.miou == pytest.approx(4 / 9)
    assert one.meaning.mapping == {2: "ground", 5: "tree", 6: "roof"}
    assert one.meaning.ignored == (1,)
    assert one.meaning.prediction_field == "pointseg_class"


def test_ignored_classes_have_no_row(pair):
    found = scored(*pair, ignored=frozenset({1, 5}))
    assert found.confusion.matrix.tolist() == [WANTED[0], [0] * 4, *WANTED[2:]]
    assert as_json(found)["mean_class_accuracy"] == pytest.approx((2 / 3 + 0) / 2)


def test_codes_of_both_are_the_same(pair):
    found = scored(*pair, ignored=frozenset({1}), prediction_field="classification")
    assert found.confusion.matrix.tolist() == WANTED and found.names[:3] == tuple(NAMES)


def test_what_the_copy_kept_of_its_input_is_a_reference(pair):
    ours, _ = pair
    found = scored(ours, ours, reference_field="input_classification", ignored=frozenset({1}))
    assert found.confusion.matrix.tolist() == WANTED


def test_text_against_las(pair, tmp_path):
    theirs = tmp_path / "a.txt"
    write_cloud(theirs, cloud(label=TRUTH))
    found = scored(pair[0], theirs, same_values=True)
    assert found.confusion.matrix.tolist() == WANTED
    assert scored(pair[0], theirs).confusion.matrix.tolist() == WANTED, "0, 1, 2 are no codes"


def test_a_reference_that_was_predicted_is_read_by_names(pair, tmp_path):
    other = tmp_path / "other.ply"
    write_cloud(other, cloud(pointseg_class=np.where(TRUTH < 0, -1, 2 - TRUTH)))
    record(other, names=NAMES[::-1], codes=None)
    assert scored(pair[0], other).confusion.matrix.tolist() == WANTED


def test_a_record_describes_its_own_labels_only(pair, tmp_path):
    ours, theirs = pair
    record(ours, codes=None)
    with pytest.raises(ScoreError, match="'classification' is that of its input"):
        scored(ours, theirs, prediction_field="classification")
    found = scored(ours, theirs, prediction_field="input_classification")
    assert found.names == ("1", "2", "5", "6") and found.confusion.accuracy() == 1
    text = {"class_names": NAMES, "class_codes": None, "result": {"points": 9}}
    ours.with_name("a.laz.json").write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(ScoreError, match="is the record of a file of 9 points, a.laz has 8"):
        scored(ours, theirs)
    ours.with_name("a.laz.json").write_text('{"class_names": 3}', encoding="utf-8")
    with pytest.raises(ScoreError, match="a.laz.json: .* damaged"):
        scored(ours, theirs)


def test_a_class_that_the_record_lacks_is_refused(pair):
    record(pair[0], names=NAMES[:1], codes=CODES[:1])
    with pytest.raises(ScoreError, match=r"holds 1 \(4 points\), and its record knows 0=ground"):
        scored(*pair)


def test_labels_alone(tmp_path):
    (tmp_path / "a.label").write_bytes((TRUTH.astype("<u4") & 0xFFFF | 7 << 16).tobytes())
    (tmp_path / "b.labels").write_text("\n".join(map(str, TRUTH)), encoding="utf-8")
    found = scored(tmp_path / "a.label", tmp_path / "b.labels")
    assert found.confusion.matrix.tolist() == [[3, 0, 0], [0, 2, 0], [0, 0, 1]]
    assert found.pairs[0].tolerance is None
    (tmp_path / "a.label").write_bytes(bytes(30))
    with pytest.raises(UserError, match=r"^[^;]*a.label: has 30 bytes"):
        scored(tmp_path / "a.label", tmp_path / "b.labels")


def test_classes_with_one_code(pair):
    ours, theirs = pair
    record(ours, names=["ground", "tree", "roof"], codes=[2, 5, 5])
    with pytest.raises(ScoreError, match="classes tree and roof have the same code 5"):
        scored(ours, theirs, ignored=frozenset({1}))
    found = scored(ours, theirs, ignored=frozenset({1}), class_of={5: "tree", 6: "roof"})
    assert found.confusion.matrix.tolist() == WANTED


def test_map_says_classes(pair, tmp_path):
    ours, theirs = pair
    found = scored(ours, theirs, class_of={1: "roof", 5: "0"})
    assert found.confusion.matrix.tolist() == [[2, 3, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1], [0] * 4]
    found = scored(ours, theirs, class_of={1: "tree"}, prediction_field="classification")
    assert found.confusion.matrix[1].tolist() == [1, 3, 0, 0], "codes of both, but for one"
    record(ours, codes=None)
    with pytest.raises(ScoreError, match="number classes differently"):
        scored(ours, theirs)
    named = {2: "ground", 5: "tree", 6: "roof"}
    found = scored(ours, theirs, class_of=named, ignored=frozenset({1}))
    assert found.confusion.matrix.tolist() == WANTED
    with pytest.raises(ScoreError, match="--map 2=soil"):
        scored(ours, theirs, class_of={2: "soil"})
    with pytest.raises(ScoreError, match=r"holds 1 \(2 points\), 5 \(2 points\).*--ignore 1 5 6"):
        scored(ours, theirs, class_of={2: "ground"})


@pytest.mark.parametrize(
    ("names", "text", "number"),
    [
        ({0: "a", 4: "2"}, "a", 0),
        ({0: "a", 4: "2"}, "2", 4),  # a name counts more than a number
        ({0: "a", 4: "2"}, "4", 4),
        ({0: "a", 4: "2"}, "-1", None),
        (None, "-1", -1),
        (None, "7", 7),
        (None, "a", None),
    ],
)
def test_the_number_of_a_class(names, text, number):
    assert Classes(names, False).number(text) == number


def test_without_a_record_numbers_are_compared(tmp_path):
    write_cloud(tmp_path / "a.ply", cloud(label=np.where(TRUTH < 0, -1, TRUTH + 10)))
    write_cloud(tmp_path / "b.npz", cloud(segment=GUESS + 10))
    found = scored(tmp_path / "b.npz", tmp_path / "a.ply")
    assert found.names == ("9", "10", "11", "12")
    assert found.confusion.matrix[1:, 1:].tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("values", "codes", "said"),
    [
        ([2, 2, 5, 5, 6, 6, 2, 2], CODES, "ASPRS codes"),  # a field called label, with codes
        ([1, 1, 2, 2, 1, 1, 2, 2], [1, 2, 0], "numbers of classes or ASPRS codes"),
        ([0, 1, 2, 3, 0, 0, 0, 0], CODES, r"3 \(1 points\).*--reference-values codes"),
    ],
)
def test_doubt_is_refused(pair, tmp_path, values, codes, said):
    write_cloud(tmp_path / "a.ply", cloud(label=np.array(values, np.int32)))
    record(pair[0], codes=codes)
    with pytest.raises(ScoreError, match=said):
        scored(pair[0], tmp_path / "a.ply")


def test_several_fields_that_differ_are_refused(pair, tmp_path):
    both = tmp_path / "both.ply"
    write_cloud(both, cloud(label=TRUTH, classification=codes_of(TRUTH)))
    with pytest.raises(ScoreError, match=r"\(label, classification\).*--reference-field"):
        scored(pair[0], both)
    found = scored(pair[0], both, reference_field="Label")
    assert found.confusion.matrix.tolist() == WANTED
    with pytest.raises(ScoreError, match="has no field 'truth'.*label, classification"):
        scored(pair[0], both, reference_field="truth")


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({"label": TRUTH, "classification": constant(0)}, "label"),  # nobody filled it
        ({"label": TRUTH, "classification": constant(1)}, "label"),  # unclassified
        ({"label": constant(1), "classification": codes_of(TRUTH)}, None),
        ({"segment": TRUTH, "label": constant(-1)}, "class"),  # as PLY has segment
        ({"label": constant(0), "classification": codes_of(TRUTH)}, "classification"),
        ({"label": constant(0), "classification": constant(0)}, "label"),
        ({"label": constant(2), "segment": constant(2)}, "class"),  # all of one class
        ({"label": constant(2), "classification": codes_of(TRUTH)}, None),
        ({"label": constant(1), "segment": constant(2)}, None),
    ],
)
def test_only_fields_that_nobody_filled_do_not_count(tmp_path, fields, chosen):
    both, how = tmp_path / "both.ply", {"option": "--reference-field", "is_ours": False}
    write_cloud(both, cloud(**fields))
    if chosen is None:
        with pytest.raises(ScoreError, match="several fields that differ .*--reference-field"):
            read_labels(both, None, None, **how)
    else:
        assert read_labels(both, None, None, **how).field == chosen


def test_rows_must_be_the_same_points(pair, tmp_path):
    ours, theirs = pair
    fewer = cloud(label=TRUTH).select(np.arange(7))
    write_cloud(tmp_path / "fewer.ply", fewer)
    with pytest.raises(ScoreError, match="a.laz: has 8 points, .*fewer.ply has 7"):
        scored(ours, tmp_path / "fewer.ply")
    order = np.array([0, 1, 2, 4, 3, 5, 6, 7])
    write_cloud(tmp_path / "other.ply", cloud(label=TRUTH).select(order))
    with pytest.raises(ScoreError, match=r"row 3 is another point .* 2 of 8 rows"):
        scored(ours, tmp_path / "other.ply")
    write_cloud(tmp_path / "elsewhere.ply", replace(cloud(label=TRUTH), origin=ORIGIN + 1))
    with pytest.raises(ScoreError, match="8 of 8 rows"):
        scored(ours, tmp_path / "elsewhere.ply")


def test_the_prediction_is_not_its_own_reference(pair):
    with pytest.raises(UserError, match="is the prediction itself"):
        scored(pair[0], pair[0])


def test_folders(tmp_path, capsys):
    ours, theirs, out = tmp_path / "ours", tmp_path / "theirs", tmp_path / "scores"
    (ours / "more").mkdir(parents=True)
    (theirs / "more").mkdir(parents=True)
    for name, other in (("a.ply", "a.pcd"), ("more/b.ply", "more/b.txt")):
        write_cloud(ours / name, cloud(pointseg_class=GUESS))
        record(ours / name)
        write_cloud(theirs / other, cloud(label=TRUTH))
    write_cloud(ours / "bad.ply", cloud(pointseg_class=GUESS).select(np.arange(3)))
    record(ours / "bad.ply")
    for path in (theirs / "bad.ply", theirs / "missing.ply", ours / "surplus.ply"):
        write_cloud(path, cloud(label=TRUTH))
    assert main([str(ours), str(theirs), "-o", str(out)]) == 1
    printed = capsys.readouterr().out
    assert (
        "prediction  field 'pointseg_class': numbers of classes, by the prediction's rec" in printed
    )
    assert "reference   field 'label': " in printed and "0=ground, 1=tree, 2=roof" in printed
    for text in ("failed: ", "bad.ply: has 3 points", "2 of 4 compared"):
        assert text in printed
    assert f"missing: {theirs / 'missing.ply'} " in printed
    assert f"surplus: {ours / 'surplus.ply'} " in printed
    found = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert found["confusion"]["matrix"] == (2 * np.array(WANTED)).tolist()
    assert found["points"] == 12 and found["classes"]["roof"]["precision"] is None
    ground = found["classes"]["ground"]
    assert (ground["reference_points"], ground["predicted_points"]) == (6, 4)
    assert "\n2 of these points have no predicted class" in printed
    assert (out / "confusion.csv").is_file() and (out / "confusion.png").is_file()
    write_cloud(ours / "a.npz", cloud(pointseg_class=GUESS))
    (theirs / "more" / "b.txt").write_text("no numbers", encoding="utf-8")
    with pytest.raises(UserError, match="none of 3 pairs could be compared"):
        scored(ours, theirs)
    assert main([str(ours), str(theirs), "-o", str(out)]) == 2, "nothing is replaced unasked"
    assert "--overwrite" in capsys.readouterr().err


@pytest.fixture
def folders(tmp_path):
    """Two folders with one pair, a.ply."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    write_cloud(ours / "a.ply", cloud(pointseg_class=GUESS))
    write_cloud(theirs / "a.ply", cloud(label=TRUTH))
    record(ours / "a.ply")
    return ours, theirs


def test_a_missing_prediction_alone_is_a_failure(folders, tmp_path):
    given = [*map(str, folders), "-o"]
    assert main([*given, str(tmp_path / "whole")]) == 0
    write_cloud(folders[1] / "missing.ply", cloud(label=TRUTH))
    assert main([*given, str(tmp_path / "less")]) == 1


def test_a_file_of_two_endings_belongs_to_that_of_one(folders):
    write_cloud(folders[1] / "b.copc.laz", cloud(classification=codes_of(TRUTH)))
    write_cloud(folders[0] / "b.laz", cloud(classification=codes_of(TRUTH)))
    pairs = find_pairs(ScoreSpec(*folders))
    assert [(a.name, b.name) for a, b in pairs.found] == [
        ("a.ply", "a.ply"), ("b.laz", "b.copc.laz"),
    ]  # fmt: skip
    assert not (pairs.missing or pairs.surplus or pairs.twice)


def test_names_in_two_forms_of_unicode_are_one(folders):
    """As a Mac writes them, and as others do; what lies in hidden folders is no reference."""
    for folder, form in zip(folders, ("NFC", "NFD"), strict=True):
        write_cloud(folder / f"{unicodedata.normalize(form, 'grün')}.ply", cloud(label=TRUTH))
    (folders[1] / ".old").mkdir()
    (folders[1] / ".old" / "c.label").write_bytes(bytes(32))
    pairs = find_pairs(ScoreSpec(*folders))
    assert len(pairs.found) == 2 and not (pairs.missing or pairs.surplus)


@pytest.mark.parametrize("which", [0, 1])
def test_two_files_of_one_name_fail(folders, which):
    write_cloud(folders[which] / "a.xyz", cloud(label=TRUTH))
    for folder in folders:
        write_cloud(folder / "b.ply", cloud(label=TRUTH))
    found = scored(*folders)
    assert len(found.failed) == 1 and not found.is_complete
    assert "a.xyz" in (failure := str(found.failed[0])) and "a.ply" in failure
    assert found.confusion.matrix.sum() == np.count_nonzero(TRUTH >= 0), "b alone"


def test_files_of_a_folder_are_read_from_one_field_where_they_have_it(folders):
    ours, theirs = folders
    write_cloud(theirs / "a.ply", cloud(label=TRUTH, classification=constant(0)))
    for name in "bc":
        write_cloud(ours / f"{name}.ply", cloud(pointseg_class=GUESS))
        record(ours / f"{name}.ply")
    # nobody labelled it, but what a program found is there
    write_cloud(theirs / "b.ply", cloud(label=constant(0), classification=codes_of(TRUTH)))
    write_cloud(theirs / "c.ply", cloud(classification=codes_of(TRUTH)))  # the only field
    found = scored(*folders, ignored=frozenset({1}))
    (failed,) = found.failed
    assert "b.ply" in failed.error and "--reference-field" in failed.error
    found = scored(*folders, ignored=frozenset({0, 1}), reference_field="classification")
    assert not found.failed


def test_predictions_of_other_classes_are_not_added(folders):
    ours, theirs = folders
    write_cloud(ours / "b.ply", cloud(pointseg_class=GUESS))
    write_cloud(theirs / "b.ply", cloud(label=TRUTH))
    record(ours / "b.ply", names=["ground", "tree", "wall"])
    found = scored(*folders)
    (failed,) = found.failed
    assert "b.ply" in failed.prediction and "a.ply" in failed.error
    assert found.names[:3] == tuple(NAMES) and found.confusion.matrix.tolist() == WANTED
