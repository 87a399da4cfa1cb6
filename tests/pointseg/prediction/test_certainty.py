"""How sure classes are, in results: as fields, and as points that get no class; in memory and through the disk."""

from __future__ import annotations

import json
from dataclasses import replace

import laspy
import numpy as np
import pytest

from pointseg.cli.predict import main
from pointseg.files import read_cloud, read_columns, write_cloud
from pointseg.prediction.predict import predict
from pointseg.prediction.results.record import record_file
from pointseg.prediction.results.summary_table import summary_table
from pointseg.scene import Scene
from tests.pointseg.evaluation.answers import colored
from tests.pointseg.prediction import test_predict
from tests.pointseg.prediction.streaming import test_stream
from tests.pointseg.prediction.streaming.test_stream import cloud, contents, stopped

model = test_predict.model
by_whole_tile = test_stream.model


def spec_of(tmp_path, source, **changes):
    return test_predict.spec_of(tmp_path, source, **{"pictures": False, **changes})


def unsure():
    """100 points that are sure to be of class 1, 100 of which two classes are alike, 100 in between."""
    scene = colored([1], count=300)
    scene.coord[:] = np.arange(900).reshape(300, 3) / 5  # a point in each voxel
    scene["color"][100:200, 0] = 255  # 0.5, 0.5, 0.0002
    scene["color"][200:, 0] = 239  # 0.62, 0.38, 0.0002
    return scene


def test_unsure_points_get_no_class_and_are_counted(tmp_path, model):
    source = test_predict.write(tmp_path / "cloud.las", unsure())
    codes = {"floor": 2, "wall": 6, "thing": 5}
    said: list[str] = []
    spec = spec_of(
        tmp_path, source, confidence=True, reject=0.6, class_codes=codes, log=said.append
    )
    (result,) = predict(spec)
    assert result.status == "done", result.reason
    assert (result.points, result.rejected, result.unlabelled) == (300, 100, 0)
    assert result.classes == {"wall": 200}
    found = laspy.read(tmp_path / "out" / "cloud.las")
    assert found.pointseg_class.tolist() == [1] * 100 + [-1] * 100 + [1] * 100
    assert np.array(found.classification).tolist() == [6] * 100 + [1] * 100 + [6] * 100
    confidence = np.array(found.pointseg_confidence)
    assert confidence[0] > 0.999 and 0.49 < confidence[150] <= 0.5 and 0.6 < confidence[250] < 0.63
    (note,) = [line for line in said if "confidence" in line]
    assert "100 of 300" in note and "0.6" in note and note.endswith(result.notes[-1])
    record = json.loads(record_file(tmp_path / "out" / "cloud.las").read_text())
    assert record["reject"] == 0.6 and record["confidence"] and record["result"]["rejected"] == 100
    assert "100 (33.3 %)" in summary_table([result])
    assert predict(spec)[0] == replace(result, status="kept")
    for changes, rejected in (
        ({"reject": 0.7}, 200),
        ({"reject": 0.7, "confidence": False}, 200),
        ({"reject": None, "confidence": False}, None),
        ({"reject": None}, None),
    ):
        (result,) = predict(replace(spec, **changes))
        assert (result.status, result.rejected) == ("done", rejected)
        fields = laspy.read(tmp_path / "out" / "cloud.las").point_format.extra_dimension_names
        assert ("pointseg_margin" in fields) is changes.get("confidence", True)
    assert "rejected" not in summary_table([result])


def test_results_without_these_options_stay_those_of_before(tmp_path, model):
    source = test_predict.write(tmp_path / "cloud.ply", unsure())
    predict(spec_of(tmp_path, source))
    record = json.loads(record_file(tmp_path / "out" / "cloud.ply").read_text())
    assert not {"confidence", "reject"} & record.keys()
    del record["result"]["rejected"]  # as earlier versions wrote it
    record_file(tmp_path / "out" / "cloud.ply").write_text(json.dumps(record))
    assert predict(spec_of(tmp_path, source))[0].status == "kept"


def test_points_without_a_position_are_not_rejected(tmp_path, model):
    scene = unsure()
    scene.coord[[0, 1, 100]] = np.nan
    source = test_predict.write(tmp_path / "cloud.ply", scene)
    (result,) = predict(spec_of(tmp_path, source, confidence=True, reject=0.6))
    assert (result.unlabelled, result.rejected) == (3, 99)
    found = read_columns(tmp_path / "out" / "cloud.ply")
    assert found["confidence"][[0, 100]].tolist() == [0, 0] == found["entropy"][[0, 1]].tolist()


def test_scans_reject_but_have_no_place_for_fields(tmp_path, model, monkeypatch):
    coord = np.array([[9, 1, 1], [1, 9, 9], [1, 1, 9]], np.float32)
    recipe = replace(test_predict.RECIPE, features=("coord", "strength"), scene_type="outdoor")
    trained = test_predict.trained(recipe=recipe)
    monkeypatch.setattr(
        test_predict.module, "load_model", lambda path, device, **_: (model, trained)
    )
    scan = Scene(coord=coord, fields={"strength": np.full((3, 1), 0.5, np.float32)})
    source = test_predict.write(tmp_path / "a.bin", scan)
    spec = spec_of(tmp_path, source, reject=0.6)
    assert predict(spec)[0].rejected == 1
    assert read_cloud(tmp_path / "out" / "a.bin")["segment"].tolist() == [0, -1, 2]
    asked = model.asked
    (result,) = predict(replace(spec, confidence=True))
    assert result.status == "failed" and "--confidence" in result.reason and model.asked == asked


@pytest.mark.parametrize("suffix", [".laz", ".ply"])
def test_a_stream_writes_what_a_cloud_in_memory_does(tmp_path, by_whole_tile, suffix):
    source = tmp_path / f"cloud{suffix}"
    write_cloud(source, cloud())
    asked = {"confidence": True, "reject": 0.5}
    whole, found = (
        predict(test_stream.spec_of(tmp_path, source, out=out, stream=stream, **asked))[0]
        for out, stream in (("whole", False), ("out", True))
    )
    assert replace(found, target="", seconds=0) == replace(whole, target="", seconds=0)
    assert 100 < found.rejected < test_stream.COUNT - 100
    assert contents(tmp_path / "out" / source.name) == contents(tmp_path / "whole" / source.name)


def test_a_stream_that_was_stopped_goes_on_whatever_is_rejected(tmp_path, by_whole_tile):
    source, said = tmp_path / "cloud.npy", []
    write_cloud(source, cloud())
    spec = test_stream.spec_of(tmp_path, source, stream=True, confidence=True, log=said.append)
    stopped(tmp_path, by_whole_tile, spec, after=7)
    predict(replace(spec, reject=0.5, confidence=False))  # made of the same tiles
    assert any("7 tiles are finished" in line for line in said)
    predict(replace(spec, reject=0.5, confidence=False, stream=False, out=tmp_path / "whole"))
    assert contents(tmp_path / "out/cloud.npy") == contents(tmp_path / "whole/cloud.npy")
    (tmp_path / "out/cloud.npy").unlink()
    stopped(tmp_path, by_whole_tile, replace(spec, confidence=False), after=3)
    said.clear()
    predict(spec)  # whose tiles must tell how sure they are
    assert any("certainty changed since" in line for line in said)


@pytest.mark.parametrize("value", ["0", "1.01", "nan", "60%", "-0.5"])
def test_a_confidence_that_cannot_be(value, capsys):
    with pytest.raises(SystemExit) as error:
        main(["a.ply", "-m", "m.pt", "-o", "out", f"--reject={value}"])
    assert error.value.code == 2 and "--reject" in capsys.readouterr().err
