"""Clouds whose files state their unit: the same in training, in memory and as streams; degrees are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import laspy
import numpy as np
import pytest
import yaml

from pointseg.config.recipe import PointCloudFormat
from pointseg.config.serialization import read_recipe
from pointseg.datasets import DatasetError, open_dataset
from pointseg.datasets.folder.dataset import folder_notes
from pointseg.datasets.look_over import look_over
from pointseg.files import CloudFileError, read_cloud, write_cloud
from pointseg.files.coordinate_systems.epsg_units import US_FOOT_M
from pointseg.prediction import predict as module
from pointseg.prediction import predict_file
from pointseg.prediction.inputs.prepare_cloud import axes_of, prepare_cloud
from pointseg.prediction.predict import predict
from pointseg.prediction.streaming import sort_points
from pointseg.prediction.streaming.stream_input import StreamInput
from tests.pointseg.datasets.test_scale import lonlat
from tests.pointseg.evaluation.answers import RECIPE, ByColor, trained
from tests.pointseg.files.coordinate_systems.test_units import DEGREES, HEIGHT, US_FOOT, las
from tests.pointseg.prediction.test_predict import spec_of

CASE = "cases/points/las_us_feet/us_feet_wkt.laz"


@pytest.fixture
def prepared(monkeypatch):
    """Predicts by colour; collects what networks are given, in memory and as streams."""
    seen = []

    def memory(*arguments, **named):
        found = prepare_cloud(*arguments, **named)
        seen.append(found.cloud.coord)
        return found

    class Streamed(StreamInput):
        def _clouds(self):
            for start, index, cloud in super()._clouds():
                seen.append(cloud.coord)
                yield start, index, cloud

    monkeypatch.setattr(predict_file, "prepare_cloud", memory)
    monkeypatch.setattr(sort_points, "StreamInput", Streamed)
    monkeypatch.setattr(module, "load_model", lambda path, device, **_: (ByColor(), trained()))
    return seen


def test_feet_are_converted_alike_and_written_back_as_they_were(shared, tmp_path, prepared):
    source = shared / CASE
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a.laz").symlink_to(source)
    text = {"classes": ["ground"], "features": ["color"], "voxel_m": 0.2, "label": "user_data"}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump({**text, "splits": {"train": ["train"]}}))
    dataset = open_dataset("folder", tmp_path)
    learned = dataset.load("train", "a")
    xyz = laspy.read(source).xyz
    np.testing.assert_allclose(learned.coord + learned.origin, xyz * US_FOOT_M, rtol=0, atol=1e-3)
    (note,) = folder_notes(dataset)
    assert note.startswith(str(tmp_path / "train/a.laz")) and "US survey feet" in note
    notes = []
    for stream in (False, True):
        spec = spec_of(tmp_path, source, stream=stream, overwrite=True, pictures=False)
        (result,) = predict(replace(spec, check_scale=True))
        assert result.status == "done", result.reason
        notes.append(result.notes)
        np.testing.assert_array_equal(prepared.pop(), learned.coord)
        after = laspy.read(result.target)
        assert np.array_equal(after.X, laspy.read(source).X)
        assert after.header.vlrs.get("WktCoordinateSystemVlr")
    assert notes[0] == notes[1] and "US survey feet: converted to metres" in notes[0][0]


def test_heights_in_another_unit_are_stretched_alone(tmp_path):
    path = las(tmp_path / "a.las", text=f'COMPD_CS["A",{US_FOOT},{HEIGHT}]')
    axes, _ = axes_of(path, PointCloudFormat())
    assert axes.unit_m == (US_FOOT_M, US_FOOT_M, 0.3048)


def test_degrees_are_refused_in_training_and_prediction(tmp_path, prepared):
    (tmp_path / "train").mkdir()
    path = las(tmp_path / "train/a.las", text=DEGREES + "]")
    text = {"features": [], "voxel_m": 0.2, "splits": {"train": ["train"]}}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(text))
    dataset = open_dataset("folder", tmp_path, labelled=False)
    (tmp_path / "train/b.las").write_bytes(b"")
    dataset = open_dataset("folder", tmp_path, labelled=False)
    assert folder_notes(dataset) == []  # each is reported when all files are looked at
    assert [found.scene for found in look_over(dataset, ["train"])] == ["a", "b"]
    with pytest.raises(CloudFileError, match=r"a\.las: its coordinates are degrees"):
        dataset.load("train", "a")
    for stream in (False, True):
        (result,) = predict(spec_of(tmp_path, path, stream=stream))
        assert result.status == "failed" and "a.las: its coordinates are degrees" in result.reason
    assert not prepared


def test_degrees_without_a_coordinate_system_are_refused_by_their_size(tmp_path, prepared):
    color = {"color": np.tile(np.float32([0, 9, 200]), (500, 1))}
    (tmp_path / "train").mkdir()
    path = tmp_path / "train/a.ply"
    write_cloud(path, lonlat().with_fields(**color))
    text = {"features": [], "voxel_m": 0.2, "splits": {"train": ["train"]}}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(DatasetError, match=r"a\.ply: .*look like degrees"):
        open_dataset("folder", tmp_path, labelled=False).load("train", "a")
    for stream in (False, True):
        (result,) = predict(spec_of(tmp_path, path, stream=stream))
        assert result.status == "failed" and "look like degrees" in result.reason


def test_a_grid_of_float32_is_said_in_training_in_memory_and_as_a_stream(
    shared, tmp_path, prepared
):
    source = shared / "cases/points/utm_float32/utm_float32.ply"
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a.ply").symlink_to(source)
    text = {"features": [], "voxel_m": 0.2, "splits": {"train": ["train"]}}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(text))
    said = folder_notes(open_dataset("folder", tmp_path, labelled=False))
    for stream in (False, True):
        spec = spec_of(tmp_path, source, stream=stream, overwrite=True, pictures=False)
        (result,) = predict(replace(spec, check_scale=False))
        assert result.status == "done", result.reason
        said += result.notes
    assert sum("0.5 m in y" in note and "double precision" in note for note in said) == 3


@pytest.mark.parametrize(("unit", "now"), [(1.0, None), (0.3048, 0.3048)])
def test_metres_of_older_models_were_what_nobody_stated(unit, now):
    found = json.loads(replace(RECIPE, cloud_format=PointCloudFormat(unit_m=unit)).to_json())
    found["cloud_format"].pop("color_max", None)
    assert read_recipe(json.dumps(found)).cloud_format.unit_m == now


def test_the_case_is_in_metres_by_its_size(shared):
    axes, _ = axes_of(shared / CASE, PointCloudFormat())
    scene = read_cloud(shared / CASE)
    cloud = prepare_cloud(scene, RECIPE, axes).cloud
    assert np.ptp(cloud.coord, axis=0) == pytest.approx([10, 10, 4], abs=0.2)
