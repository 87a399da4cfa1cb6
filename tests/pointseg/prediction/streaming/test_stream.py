"""Clouds that go through the disk: the classes of those in memory, bit by bit; what was stopped goes on."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dinomed3d.runtime.files.atomic_files import WriteError, temp_path
from pointseg.config.recipe import InferenceConfig
from pointseg.evaluation import scene_predictor
from pointseg.files import in_pieces, read_cloud, read_columns, write_cloud
from pointseg.files.table import pieces
from pointseg.geometry import ground
from pointseg.geometry.ground import height_above_ground
from pointseg.prediction import predict as module
from pointseg.prediction.predict import predict
from pointseg.prediction.results.pictures import picture_file
from pointseg.prediction.spec import PredictSpec
from pointseg.prediction.streaming import (
    finished_tiles,
    places_on_disk,
    sort_points,
    stream_cloud,
    stream_input,
    unfinished,
)
from pointseg.prediction.streaming import survey as survey_module
from pointseg.prediction.streaming.height_file import HeightFile
from pointseg.prediction.streaming.time_left import TimeLeft, duration
from pointseg.prediction.streaming.unfinished import unfinished_folder
from pointseg.scene import Scene
from pointseg.transforms.input_transform import InputTransform
from tests.pointseg.evaluation.answers import RECIPE, trained

TILE = 200
COUNT = 2400


class ByWholeTile(nn.Module):
    """Classes that depend on every point of the tile: any other tile, order or field changes some."""

    def __init__(self):
        super().__init__()
        self.asked, self.stop_at = 0, None

    def forward(self, cloud):
        self.asked += 1
        if self.stop_at is not None and self.asked > self.stop_at:
            raise KeyboardInterrupt
        order = torch.arange(len(cloud.feat), dtype=torch.float32)[:, None]
        whole = cloud.feat.double().mean(0).float() * 1e3 + len(cloud.feat)
        mixed = cloud.feat * 37 + cloud.coord[:, :1] * 11 + whole + order * 0.7
        return torch.sin(mixed[:, :3] * torch.tensor([3.0, 5.0, 7.0])) * 4


@pytest.fixture
def model(monkeypatch):
    """Tiny bounds: everything is cut into many pieces."""
    made = ByWholeTile()
    recipe = replace(
        RECIPE,
        features=("color", "strength", "coord", "height_above_ground"),
        scene_type="outdoor",
        test=InferenceConfig(max_points=TILE, margin_m=1.0),
    )
    monkeypatch.setattr(
        module, "load_model", lambda path, device, **_: (made, trained(recipe=recipe))
    )
    for place in (pieces, stream_input, survey_module):
        monkeypatch.setattr(place, "PIECE", 500)
    monkeypatch.setattr(sort_points, "POINTS", 300)
    monkeypatch.setattr(survey_module, "SAMPLE", 1000)
    monkeypatch.setattr(places_on_disk, "IN_MEMORY", 300)
    monkeypatch.setattr(finished_tiles, "AT_ONCE", 1000)
    return made


def cloud(seed=0, origin=(0, 0, 0)):
    """Outliers, coincident points, one place much denser than the rest, dark and bright intensities."""
    rng = np.random.default_rng(seed)
    coord = (rng.random((COUNT, 3)) * [40, 30, 4]).astype(np.float32)
    coord[: COUNT // 3, :2] = rng.random((COUNT // 3, 2)) * 3 + 5
    coord[100:130] = coord[99]
    coord[-1] = [900, 3, 2]
    rng.shuffle(coord)
    fields = {
        "color": np.rint(rng.random((COUNT, 3)) * 255).astype(np.float32),
        "intensity": (rng.random(COUNT) ** 8 * 6000).astype(np.uint16),
        "number": np.arange(COUNT, dtype=np.int32),
    }
    fields["color"][-450:] = np.minimum(fields["color"][-450:], 1)  # a dark last piece
    return Scene(coord=coord, fields=fields, origin=np.asarray(origin, float))


def spec_of(tmp_path, source, out="out", **changes):
    made = PredictSpec(
        inputs=(source,), out=tmp_path / out, model=tmp_path / "m.pt", pictures=False,
        check_scale=False, log=lambda text: None,
    )  # fmt: skip
    return replace(made, **changes)


def contents(path: Path) -> dict[str, bytes]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("suffix", [".laz", ".ply", ".pcd", ".npy", ""])
def test_a_stream_writes_what_a_cloud_in_memory_does(tmp_path, model, suffix):
    source = tmp_path / f"cloud{suffix}"
    write_cloud(source, cloud(origin=(431_250.0, 5_301_000.0, 0)))
    (whole,) = predict(spec_of(tmp_path, source, out="whole", height=True))
    assert whole.status == "done", whole.reason
    passes = model.asked
    assert passes > 15
    (found,) = predict(spec_of(tmp_path, source, stream=True, height=True))
    assert found.status == "done", found.reason
    assert model.asked == 2 * passes
    target = tmp_path / "out" / source.name
    assert contents(target) == contents(tmp_path / "whole" / source.name)
    assert (found.classes, found.notes) == (whole.classes, whole.notes)
    assert not unfinished_folder(target).exists()
    assert len(found.classes) == 3  # a network of one answer would show nothing
    assert predict(spec_of(tmp_path, source, height=True))[0].status == "kept"


def stopped(tmp_path, model, spec, after: int):
    """A run that is killed after some tiles; the folder that it leaves."""
    model.stop_at = model.asked + after
    with pytest.raises(KeyboardInterrupt):
        predict(spec)
    model.stop_at = None
    folder = unfinished_folder(tmp_path / "out" / spec.inputs[0].name)
    assert len(list((folder / "tiles").glob("*.tile"))) == after
    assert not (tmp_path / "out" / spec.inputs[0].name).exists()
    return folder


def test_a_run_that_was_killed_goes_on(tmp_path, model):
    source, said = tmp_path / "cloud.las", []
    write_cloud(source, cloud())
    predict(spec_of(tmp_path, source, out="whole"))
    passes, spec = model.asked, spec_of(tmp_path, source, stream=True, log=said.append)
    folder = stopped(tmp_path, model, spec, after=7)
    model.asked = 0
    predict(
        replace(spec, class_codes={"floor": 2, "wall": 6, "thing": 1}, keep_classification=False)
    )
    assert model.asked == passes - 7
    assert any("7 tiles are finished" in line for line in said)
    assert not any("less memory" in line for line in said), "tiles are as large as they were"
    assert not folder.exists()
    found, whole = (read_cloud(tmp_path / out / "cloud.las") for out in ("out", "whole"))
    np.testing.assert_array_equal(found["segment"], whole["segment"])


@pytest.mark.parametrize(
    ("spoil", "said", "again"),
    [
        (lambda folder, source: spoil_byte(next(folder.glob("tiles/*.tile"))), "6 tiles", 1 - 7),
        (lambda folder, source: spoil_byte(next(folder.glob("*.rows"))), "damaged", 0),
        (lambda folder, source: forget(folder, "buckets"), "damaged", 0),
        (lambda folder, source: forget(folder, "how"), "changed", 0),
        (lambda folder, source: (folder / "state.json").write_text("{"), "sorting", 0),
        (lambda folder, source: write_cloud(source, cloud(seed=1)), "source_", 0),
    ],
    ids=["tile", "points", "buckets", "how", "state", "input"],
)
def test_what_is_damaged_or_changed_is_made_again(tmp_path, model, spoil, said, again):
    source, lines = tmp_path / "cloud.npy", []
    write_cloud(source, cloud())
    spec = spec_of(tmp_path, source, stream=True, log=lines.append)
    folder = stopped(tmp_path, model, spec, after=7)
    spoil(folder, source)
    lines.clear()
    predict(spec_of(tmp_path, source, out="whole"))
    passes, model.asked = model.asked - 8, 0
    assert predict(spec)[0].status == "done"
    assert model.asked == passes + again and any(said in line for line in lines)
    assert contents(tmp_path / "out/cloud.npy") == contents(tmp_path / "whole/cloud.npy")


def forget(folder: Path, key: str):
    """Take an entry out of the state, as another version might write it."""
    state = json.loads((folder / "state.json").read_text())
    del state[key]
    (folder / "state.json").write_text(json.dumps(state))


def spoil_byte(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_another_model_starts_over_and_says_so(tmp_path, model, monkeypatch):
    source, said = tmp_path / "cloud.ply", []
    write_cloud(source, cloud())
    spec = spec_of(tmp_path, source, stream=True, log=said.append)
    stopped(tmp_path, model, spec, after=3)
    recipe = module.load_model("", "cpu")[1].recipe
    monkeypatch.setattr(
        module, "load_model", lambda path, device, **_: (model, trained("other", recipe))
    )
    assert predict(spec)[0].status == "done"
    assert any("checkpoint_sha256 changed" in line and "starts over" in line for line in said)


def test_smaller_tiles_when_memory_runs_out_are_those_of_a_cloud_in_memory(
    tmp_path, model, monkeypatch
):
    monkeypatch.setattr(scene_predictor, "MIN_VOXELS", 20)
    source, forward = tmp_path / "cloud.npy", model.forward
    write_cloud(source, cloud())

    def short_of_memory(given):
        if model.asked == 9:
            model.asked += 1
            raise torch.OutOfMemoryError
        return forward(given)

    monkeypatch.setattr(model, "forward", short_of_memory)
    passes = []
    for out, stream in (("whole", False), ("out", True)):
        model.asked = 0
        assert predict(spec_of(tmp_path, source, out=out, stream=stream))[0].status == "done"
        passes.append(model.asked)
    assert passes[0] == passes[1] > 20
    assert contents(tmp_path / "out/cloud.npy") == contents(tmp_path / "whole/cloud.npy")


def test_too_little_disk_is_refused_before_the_work(tmp_path, model, monkeypatch):
    source = tmp_path / "cloud.npy"
    write_cloud(source, cloud())
    usage = unfinished.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(unfinished.shutil, "disk_usage", lambda path: usage)
    (result,) = predict(spec_of(tmp_path, source, stream=True))
    assert result.status == "failed" and "GB are free" in result.reason and model.asked == 0


def test_a_disk_that_fills_up_keeps_what_is_finished(tmp_path, model, monkeypatch):
    source = tmp_path / "cloud.npy"
    write_cloud(source, cloud())
    write, spec = finished_tiles.atomic_write, spec_of(tmp_path, source, stream=True)

    def full(path, content):
        if path.name.startswith("00000005"):
            raise WriteError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(finished_tiles, "atomic_write", full)
    (result,) = predict(spec)
    assert result.status == "failed" and "No space left" in result.reason
    asked, model.asked = model.asked, 0
    monkeypatch.setattr(finished_tiles, "atomic_write", write)
    predict(spec)
    passes, model.asked = model.asked, 0
    predict(spec_of(tmp_path, source, out="whole"))
    assert model.asked == asked - 1 + passes and asked == 5
    assert contents(tmp_path / "out/cloud.npy") == contents(tmp_path / "whole/cloud.npy")


def test_clouds_that_do_not_fit_into_memory_are_streamed_by_themselves(
    tmp_path, model, monkeypatch
):
    source, said = tmp_path / "cloud.npy", []
    write_cloud(source, cloud())
    need = stream_cloud.memory_needed(in_pieces(source))
    for free, streamed in ((need * 2, False), (need, True)):
        monkeypatch.setattr(stream_cloud, "free_bytes", lambda free=free: free)
        predict(spec_of(tmp_path, source, out=str(free), log=said.append))
        assert any("sorting" in line for line in said) is streamed
    source, said[:] = tmp_path / "text.txt", []  # which is only read as a whole
    write_cloud(source, cloud())
    assert predict(spec_of(tmp_path, source, log=said.append))[0].status == "done"
    assert not any("sorting" in line for line in said)


@pytest.mark.parametrize(
    ("suffix", "changes", "message"),
    [
        (".txt", {}, "only read as a whole"),
        (".npy", {"features": ("normal",)}, "no normals"),
        (".npy", {"test": InferenceConfig(prevoxel_m=0.1)}, "thins whole clouds"),
        (".npy", {"input": InputTransform(unit_sphere=True)}, "unit sphere"),
    ],
)
def test_what_needs_the_whole_cloud_is_refused(
    tmp_path, model, monkeypatch, suffix, changes, message
):
    source = tmp_path / f"cloud{suffix}"
    write_cloud(source, cloud())
    recipe = replace(RECIPE, **changes)
    monkeypatch.setattr(
        module, "load_model", lambda path, device, **_: (model, trained(recipe=recipe))
    )
    (result,) = predict(spec_of(tmp_path, source, stream=True, tta="test" in changes))
    assert result.status == "failed" and message in result.reason


def test_points_without_a_position_and_pictures(tmp_path, model):
    scene = cloud()
    scene.coord[::7] = np.nan
    source = tmp_path / "cloud.ply"
    write_cloud(source, scene)
    whole, found = (
        predict(spec_of(tmp_path, source, out=out, stream=stream, pictures=stream, height=True))[0]
        for out, stream in (("whole", False), ("out", True))
    )
    assert replace(found, target="", seconds=0) == replace(whole, target="", seconds=0)
    assert contents(tmp_path / "out/cloud.ply") == contents(tmp_path / "whole/cloud.ply")
    held = np.isfinite(scene.coord).all(1)
    heights = read_columns(tmp_path / "out/cloud.ply")["height_above_ground"]
    expected = height_above_ground(scene.coord[held])[:, 0]
    np.testing.assert_allclose(heights[held], expected, atol=5.1e-4)  # three digits
    assert np.isnan(heights[~held]).all()
    with Image.open(picture_file(tmp_path / "out/cloud.ply", "top")) as picture:
        assert np.asarray(picture).std() > 5


def test_a_far_point_changes_no_other_height(tmp_path, model, monkeypatch):
    monkeypatch.setattr(ground, "MOST_CELLS", 10_000)
    scene, source = cloud(), tmp_path / "cloud.npy"
    scene.coord[17] = [-4.5e5, -5.4e6, -100]
    write_cloud(source, scene)
    (result,) = predict(spec_of(tmp_path, source, stream=True, height=True))
    assert result.status == "done"
    heights = np.delete(read_columns(tmp_path / "out/cloud.npy")["height_above_ground"], 17)
    wanted = height_above_ground(np.delete(scene.coord, 17, axis=0))[:, 0]
    np.testing.assert_allclose(heights, wanted, atol=5.1e-4)  # three digits


def test_saved_heights_are_those_of_their_places_and_the_digest_changes_with_them(tmp_path):
    file = HeightFile(tmp_path, 7)
    file.begin()
    file.put(np.array([1, 3]), np.array([[0.12345], [-2.0]], np.float32))
    file.put(np.array([4, 5]), np.array([[1.0], [2.0]], np.float32))
    nan, before = np.nan, file.digest()
    wanted = np.array([nan, 0.123, nan, -2, 1, 2, nan], np.float32)
    np.testing.assert_array_equal(file.rows[:], wanted)
    file.put(np.array([6]), np.array([[1.0]], np.float32))
    assert file.digest() != before
    file.begin()
    assert np.isnan(file.rows[:]).all()


def test_two_runs_at_once_do_not_share_a_folder(tmp_path, model):
    source = tmp_path / "cloud.npy"
    write_cloud(source, cloud())
    with unfinished.alone(unfinished_folder(tmp_path / "out" / "cloud.npy")):
        (result,) = predict(spec_of(tmp_path, source, stream=True))
    assert result.status == "failed" and f"process {os.getpid()}" in result.reason


def test_what_killed_runs_left_is_removed_but_not_what_a_running_one_holds(tmp_path, model):
    source = tmp_path / "cloud.npy"
    write_cloud(source, cloud())
    left = temp_path(tmp_path / "out" / "cloud.npy")
    folder = unfinished_folder(tmp_path / "out" / "cloud.npy")
    folder.mkdir(parents=True)
    own = left.with_name(left.name.replace(f"-{os.getpid()}-", "-2147483641-"))
    for path in (left, own, folder / "lock", folder / "labels.npy"):
        path.write_text("half", encoding="utf-8")
    with unfinished.alone(folder):
        assert predict(spec_of(tmp_path, source, pictures=False))[0].status == "done"
        assert folder.exists() and left.exists() and not own.exists()
    predict(spec_of(tmp_path, source, pictures=False, overwrite=True))
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"cloud.npy", "cloud.npy.json", "summary.json", left.name}


def test_time_left_counts_what_this_run_has_done():
    now, said, shares = [0.0], [], []
    left = TimeLeft(
        "a.las",
        20.0,
        said.append,
        lambda *share: shares.append(share),
        begun=0.5,
        clock=lambda: now[0],
    )
    assert shares == [(0.5, "a.las")]
    for now[0], share in ((30.0, 0.55), (120.0, 0.7)):  # 600 s for each whole cloud
        left(share)
    assert said == ["a.las: 70.0 % of the points, about 4 min left"]  # 180 s, and 60 s to write
    assert shares[-1] == (pytest.approx(0.7 * 600 / 660),)
    assert duration(10) == "less than a minute" and duration(9000) == "about 2 h 30 min"
