"""Clouds that go through the disk: the classes of those in memory, bit by bit; what was stopped goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pointseg.config.recipe import InferenceConfig
from pointseg.files import in_pieces, pieces, read_cloud, write_cloud
from pointseg.prediction import buckets, cloud_on_disk, places_on_disk, stream_cloud, stream_input
from pointseg.prediction import predict as module
from pointseg.prediction import survey as survey_module
from pointseg.prediction.predict import predict
from pointseg.prediction.spec import PredictSpec
from pointseg.prediction.unfinished import unfinished_folder
from pointseg.scene import Scene
from tests.pointseg.evaluation.answers import RECIPE, trained

TILE = 300
COUNT = 6000


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
        monkeypatch.setattr(place, "PIECE", 1000)
    monkeypatch.setattr(stream_cloud, "POINTS", 400)
    monkeypatch.setattr(survey_module, "SAMPLE", 1000)
    monkeypatch.setattr(places_on_disk, "IN_MEMORY", 500)
    monkeypatch.setattr(cloud_on_disk, "AT_ONCE", 2500)
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


@pytest.mark.parametrize("suffix", [".laz", ".las", ".ply", ".pcd", ".npy", ""])
def test_a_stream_writes_what_a_cloud_in_memory_does(tmp_path, model, suffix):
    source = tmp_path / f"cloud{suffix}"
    write_cloud(source, cloud(origin=(431_250.0, 5_301_000.0, 0)))
    (whole,) = predict(spec_of(tmp_path, source, out="whole"))
    assert whole.status == "done", whole.reason
    passes = model.asked
    assert passes > 15
    (found,) = predict(spec_of(tmp_path, source, stream=True))
    assert found.status == "done", found.reason
    assert model.asked == 2 * passes
    target = tmp_path / "out" / source.name
    assert contents(target) == contents(tmp_path / "whole" / source.name)
    assert (found.classes, found.notes) == (whole.classes, whole.notes)
    assert not unfinished_folder(target).exists()
    assert len(found.classes) == 3  # a network of one answer would show nothing
    assert predict(spec_of(tmp_path, source))[0].status == "kept"
