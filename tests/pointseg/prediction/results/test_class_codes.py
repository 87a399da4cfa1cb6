"""ASPRS codes: from the training files into the model's file, and from there into ``classification``."""

from __future__ import annotations

from dataclasses import replace

import laspy
import numpy as np
import pytest
import torch

from dinomed3d.runtime.errors import UserError
from pointseg.files import read_columns, write_cloud
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.network import build_segmenter
from pointseg.models.trained_model import load_model
from pointseg.prediction import predict as module
from pointseg.prediction.predict import predict
from pointseg.prediction.results.class_codes import class_codes
from pointseg.prediction.spec import PredictSpec
from tests.pointseg.evaluation.answers import CLASSES, ByColor, colored, trained
from tests.pointseg.tiny import CLASSES as TWO
from tests.pointseg.tiny import RECIPE


@pytest.mark.parametrize(
    ("known", "given", "keep", "codes"),
    [
        ((), {}, False, None),
        ((2, 6, 1), {}, False, (2, 6, 1)),
        ((2, 6, 1), {}, True, None),
        ((2, 6, 1), {"wall": 19}, False, (2, 19, 1)),
        ((2, None, 1), {"wall": 19}, False, (2, 19, 1)),
        ((2, None, 1), {}, False, None),
        ((), {"floor": 2, "wall": 6, "thing": 1}, False, (2, 6, 1)),
    ],
)
def test_which_codes_are_written(known, given, keep, codes):
    said = []
    assert class_codes(replace(CLASSES, codes=known), given, keep=keep, log=said.append) == codes
    assert ("wall" in "".join(said)) == (None in known and not given)


@pytest.mark.parametrize(
    ("given", "keep", "named"),
    [
        ({"wall": 6}, False, "floor, thing"),
        ({"roof": 6}, False, "roof"),
        ({"wall": 6}, True, "--keep-classification"),
    ],
)
def test_codes_that_do_not_fit_are_refused(given, keep, named):
    with pytest.raises(UserError, match=f"--class-code.*{named}"):
        class_codes(CLASSES, given, keep=keep, log=print)


@pytest.mark.parametrize(
    ("known", "keep", "named"),
    [((), False, "floor, wall, thing"), ((2, None, 6), False, "wall"), ((2, 6, 1), True, "--keep")],
)
def test_codes_that_are_required_must_be_known(known, keep, named):
    with pytest.raises(UserError, match=f"--write-classification.*{named}"):
        class_codes(replace(CLASSES, codes=known), {}, keep=keep, log=print, required=True)


def test_classes_that_share_a_code_are_named():
    said = []
    assert class_codes(CLASSES, {"floor": 2, "wall": 6, "thing": 6}, keep=False, log=said.append)
    (line,) = said
    assert "wall, thing" in line and "6" in line and "floor" not in line


def test_a_model_keeps_the_codes_of_its_classes(tmp_path):
    weights = build_segmenter(RECIPE, 2).state_dict()
    for codes in ((2, None), (2, 6), ()):
        classes = replace(TWO, codes=codes)
        save_checkpoint(tmp_path / "a.pt", weights, recipe=RECIPE, classes=classes)
        assert load_model(tmp_path / "a.pt", "cpu")[1].classes.codes == codes
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    del content["codes"]  # a file of an earlier version
    torch.save(content, tmp_path / "a.pt")
    assert load_model(tmp_path / "a.pt", "cpu")[1].classes.codes == ()


def test_predicted_files_have_the_codes(tmp_path, monkeypatch):
    spoken = replace(trained(), classes=replace(CLASSES, codes=(2, 6, 5)))
    monkeypatch.setattr(module, "load_model", lambda path, device, **_: (ByColor(), spoken))
    scene = replace(colored([0, 1, 2, 2]), origin=np.array([770_500.0, 6_277_500.0, 0]))
    former = np.full((len(scene), 1), 7, np.uint8)
    write_cloud(tmp_path / "a.laz", scene.with_fields(classification=former))
    spec = PredictSpec(
        inputs=(tmp_path / "a.laz",),
        out=tmp_path / "out",
        model=tmp_path / "m",
        pictures=False,
        tta=True,
        log=lambda text: None,
    )

    def classes_of(**changes):
        (result,) = predict(replace(spec, **changes))
        assert result.status == "done", result.reason  # not kept: it would not be the same
        return laspy.read(tmp_path / "out" / "a.laz")

    found = classes_of()
    assert np.array(found.classification).tolist() == [2, 6, 5, 5] * 100
    assert found.header.offsets.tolist() == laspy.read(tmp_path / "a.laz").header.offsets.tolist()
    np.testing.assert_array_equal(found.x, laspy.read(tmp_path / "a.laz").x)
    assert (found["input_classification"] == 7).all()
    named = found.point_format.dimension_by_name("pointseg_class").description
    assert named == ", ".join(f"{number} {name}" for number, name in enumerate(CLASSES.names))
    assert (np.array(classes_of(keep_classification=True).classification) == 7).all()
    found = classes_of(class_codes={"thing": 3}, keep_former=False)
    assert set(np.array(found.classification)) == {2, 6, 3}
    assert "input_classification" not in found.point_format.extra_dimension_names


def test_other_types_have_the_codes_if_that_is_asked_for(tmp_path, monkeypatch):
    spoken = replace(trained(), classes=replace(CLASSES, codes=(2, 6, 5)))
    monkeypatch.setattr(module, "load_model", lambda path, device, **_: (ByColor(), spoken))
    scene = colored([0, 1, 2, 2])
    own = np.full((len(scene), 1), 99, np.float32)  # whatever that was
    write_cloud(tmp_path / "a.ply", scene.with_fields(height_above_ground=own))
    spec = PredictSpec(
        inputs=(tmp_path / "a.ply",), out=tmp_path / "out", model=tmp_path / "m", pictures=False,
        tta=True, log=lambda text: None,
    )  # fmt: skip
    for asked in (False, True):
        (result,) = predict(replace(spec, write_classification=asked, height=asked))
        assert result.status == "done", result.reason
        found = read_columns(tmp_path / "out" / "a.ply")
        assert found["class"].tolist() == [0, 1, 2, 2] * 100
        assert ("classification" in found) == ("pointseg_height_above_ground" in found) == asked
    assert found["classification"].tolist() == [2, 6, 5, 5] * 100
    assert 0.8 < np.ptp(found["pointseg_height_above_ground"]) < 1.1  # of a cloud of 1 m
    assert (found["height_above_ground"] == 99).all()
