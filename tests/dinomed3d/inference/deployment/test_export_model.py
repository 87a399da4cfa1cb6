"""Exported networks: the logits of torch, masks of `predict` by the example without torch, and refusals."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import SimpleITK as sitk
import torch

import dinomed3d
from dinomed3d.cli.main import main
from dinomed3d.inference.deployment import export_model, onnx_file
from dinomed3d.inference.deployment.agreement import compare, random_windows
from dinomed3d.inference.deployment.exported_program import (
    WindowFunction,
    read_program,
    write_program,
)
from dinomed3d.inference.deployment.onnx_file import read_onnx
from dinomed3d.inference.deployment.window_shapes import WindowShapes
from dinomed3d.inference.models.model import fold_weights, open_model
from dinomed3d.inference.nnunet.build_network import build_network
from dinomed3d.networks import build_network as build_own
from dinomed3d.runtime.errors import UserError
from tests import ROOT
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.in_memory.test_load_model import TILT
from tests.dinomed3d.inference.models.write_model import REGIONS, write_cascade, write_model

sys.path.insert(0, str(ROOT / "examples"))
import predict_onnx

OWN = {
    "encoder": "vit_small_patch14_dinov2",
    "encoder_overrides": {"embed_dim": 24, "depth": 2, "num_heads": 2, "init_values": 1.0},
    "tuned_blocks": 1,
    "cnn": {
        "widths": [4, 4, 8],
        "kernels": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "blocks": [1, 1, 1],
        "decoder_blocks": [1, 1],
        "residual": False,
    },
}
"""A DINO-Med3D with tokens, low-rank updates and adapters, whose embedding reads three slices."""
UNORDERED = {"b": 2, "background": 0, "ignore": 3, "a": 1}
"""Labels in another order than their logits, and one that has none."""


@dataclass
class Exported:
    """A model, what it was exported to, and the program on the way."""

    model: Path
    file: Path
    channels: int
    program: Any


def write_own(folder: Path) -> Path:
    """A model of our network with weights that all have an effect."""
    model = write_model(folder, scheme="CTNormalization", turned=False)
    plans = json.loads((model / "plans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    name = "dinomed3d.networks.network.build_network"
    configuration["architecture"] = {
        "network_class_name": name,
        "arch_kwargs": OWN,
        "_kw_requires_import": [],
    }
    configuration["patch_size"] = [6, 16, 24]
    (model / "plans.json").write_text(json.dumps(plans))
    torch.manual_seed(0)
    network = build_own(1, 3, **OWN)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    path = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save({**content, "network_weights": network.state_dict()}, path)
    return model


def export(model: Path, channels: int, *words: str) -> Exported:
    file = model.parent / "model.onnx"
    kept = {}
    with pytest.MonkeyPatch.context() as patch:
        trace = export_model.trace
        patch.setattr(
            export_model, "trace", lambda *given: kept.setdefault("program", trace(*given))
        )
        assert main(["export", str(model), "-o", str(file), *words]) == 0
    return Exported(model, file, channels, kept["program"])


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A PlainConvUNet with regions, for any patch."""
    folder = tmp_path_factory.mktemp("stock")
    model = write_model(folder, labels=REGIONS, channels=("T1", "T2"), masked=True)
    return export(model, 2, "--dynamic")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A DinoMed3D for one window, its weights in a file of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "LARGEST_FILE", 0)
        return export(write_own(tmp_path_factory.mktemp("own")), 1)


@pytest.fixture(params=["stock", "own"])
def exported(request):
    return request.getfixturevalue(request.param)


def function(exported: Exported, halo: int) -> WindowFunction:
    model = open_model(exported.model)
    return WindowFunction(build_network(model, fold_weights(model, "0")), halo)


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.with_name(f"{file.name}.json").read_text(encoding="utf-8"))


def test_logits_are_those_of_torch(stock, own):
    for exported, halo, shape in (
        (stock, 0, (1, 2, 16, 20, 24)),
        (stock, 0, (3, 2, 8, 30, 14)),  # another number of windows of another patch
        (own, 1, (1, 1, 8, 16, 24)),
    ):
        (window,) = random_windows([shape])
        with torch.no_grad():
            expected = function(exported, halo)(window)
        assert expected.shape[2:] == (shape[2] - 2 * halo, *shape[3:])
        found = read_onnx(exported.file)(window)
        scale = float(expected.max() - expected.min())
        assert scale > 1 and float((found - expected).abs().max()) < 1e-4 * scale


def test_a_window_s_neighbours_are_read(own):
    window = random_windows([(1, 1, 8, 16, 24)])[0]
    other = window.clone()
    other[:, :, 0] += 1
    run = read_onnx(own.file)
    assert float((run(window) - run(other)).abs().max()) > 1e-3


def test_torch_s_own_file_gives_the_same(own, tmp_path):
    write_program(own.program, tmp_path / "model.pt2")
    windows = random_windows([(1, 1, 8, 16, 24)])
    with torch.no_grad():
        expected = [function(own, 1)(windows[0])]
    assert compare(read_program(tmp_path / "model.pt2"), windows, expected, "x").relative < 1e-5


def test_the_example_without_torch_gives_the_masks_of_predict(exported, tmp_path):
    scans = [
        write_scan(tmp_path / f"{n}.nii.gz", n, (20, 24, 14), TILT)
        for n in range(exported.channels)
    ]
    images = [sitk.ReadImage(str(path)) for path in scans]
    for image in images:  # an edge of zeros, and a hole that counts as inside
        image[:3, :, :] = 0
        image[8:12, 8:12, 5:9] = 0
    model = read(exported.file)
    networks = [predict_onnx.load(exported.file.parent, entry) for entry in model["networks"]]
    mask = predict_onnx.segment(model, networks, images)
    expected = dinomed3d.load_model(exported.model, device="cpu").predict(
        images[0] if len(images) == 1 else sitk.Compose(images)
    )
    labels = sitk.GetArrayFromImage(expected)
    assert len(np.unique(labels)) == 3
    assert (sitk.GetArrayFromImage(mask) != labels).mean() < 1e-4
    assert mask.GetOrigin() == images[0].GetOrigin()


def test_the_description_says_what_happens_around_the_network(stock, own):
    first, second = read(stock.file), read(own.file)
    (network,) = first["networks"]
    assert network["sha256"] == hashlib.sha256(stock.file.read_bytes()).hexdigest()
    assert [c["name"] for c in first["channels"]] == ["T1", "T2"]
    assert all(c["only_nonzero"] for c in first["channels"])
    assert first["transpose"] == [1, 0, 2] and first["spacing_mm"] == [1.3, 1.1, 0.9]
    assert first["windows"]["patch_multiple"] == [2, 2, 2]
    assert first["windows"]["mirrored_axes"] == [0, 1]
    assert first["input"]["shape"] == [None, 2, None, None, None]
    assert first["activation"] == "sigmoid"
    assert first["classes"] == [
        {"name": "whole", "value": 1, "region_of": [1, 2]},
        {"name": "b", "value": 2, "region_of": [2]},
    ]
    assert second["activation"] == "softmax" and second["windows"]["halo"] == 1
    assert second["input"]["shape"] == [1, 1, 8, 16, 24]
    assert second["output"]["shape"] == [1, 3, 6, 16, 24]
    (channel,) = second["channels"]
    assert channel["normalization"] == "CTNormalization" and channel["percentile_99_5"] == 4.0
    assert [c["value"] for c in second["classes"]] == [0, 1, 2]
    (data,) = second["networks"][0]["external_data"]
    content = (own.file.parent / data["file"]).read_bytes()
    assert len(content) > 10_000 and data["sha256"] == hashlib.sha256(content).hexdigest()


def test_files_hold_no_paths_of_this_machine(exported):
    content = exported.file.read_bytes()
    assert b".py" not in content and str(ROOT).encode() not in content


def test_a_changed_weight_is_found(stock, tmp_path):
    graph = onnx.load(stock.file)
    weight = next(t for t in graph.graph.initializer if t.dims == [8, 4, 3, 3, 3])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0, 0] += 0.05
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(graph, tmp_path / "changed.onnx")
    windows = random_windows([(1, 2, 16, 20, 24)])
    with torch.no_grad():
        expected = [function(stock, 0)(windows[0])]
    with pytest.raises(UserError, match=r"changed\.onnx.* differ "):
        compare(read_onnx(tmp_path / "changed.onnx"), windows, expected, "changed.onnx")
    entry = {**read(stock.file)["networks"][0], "file": "changed.onnx"}
    with pytest.raises(SystemExit, match="sha256"):
        predict_onnx.load(tmp_path, entry)


@pytest.mark.parametrize("wrong", [float("nan"), 1e-3])
def test_every_input_is_compared(wrong):
    windows = random_windows([(1, 1, 4, 4, 4)] * 2)
    expected = [window.clone() for window in windows]
    expected[0][0, 0, 0, 0, 0] += wrong
    with pytest.raises(UserError, match="differ"):
        compare(lambda window: window, windows, expected, "name")
    assert compare(lambda window: window, windows[1:], expected[1:], "name").difference == 0


def test_differences_are_fractions_of_the_range_of_logits():
    logits = [torch.tensor([[1.0, 3.0]])]
    found = compare(lambda window: window + 1e-4, logits, logits, "name")
    assert found.range == 2 and found.relative == pytest.approx(5e-5, rel=0.01)
    for run, given, wrong in (
        (lambda window: window + 3e-4, logits, "differ"),
        (lambda window: window[:, :1], logits, "shape"),
        (lambda window: window + 1e-6, [torch.ones(1, 2)], "differ"),  # of no range
    ):
        with pytest.raises(UserError, match=wrong):
            compare(run, given, given, "name")


def test_networks_for_any_patch_are_compared_for_another_batch_and_patch():
    shapes = WindowShapes(
        channels=3, patch=(16, 20, 4), halo=1, is_dynamic=True, multiple=(2, 2, 2)
    )
    assert shapes.trials == [(1, 3, 18, 20, 4), (2, 3, 16, 18, 6)]


@pytest.fixture
def quick(monkeypatch):
    """Files that only name the network, which is kept in memory: what is written when, without a translation."""
    kept = {}

    def write(network, path):
        path.write_text(str(len(kept)))
        kept[path.name] = network

    monkeypatch.setattr(
        export_model, "trace", lambda network, shapes: WindowFunction(network, shapes.halo)
    )
    monkeypatch.setitem(
        export_model.KINDS, ".pt2", (write, lambda path: torch.no_grad()(kept[path.name]))
    )
    return kept


def test_each_fold_becomes_a_file(tmp_path, quick, capsys):
    model = write_model(tmp_path, folds=("0", "1"))
    out = tmp_path / "new" / "model.pt2"
    assert main(["export", str(model), "-o", str(out)]) == 0
    names = ["model.pt2.json", "model_fold_0.pt2", "model_fold_1.pt2"]
    assert sorted(p.name for p in out.parent.iterdir()) == names
    assert [n["fold"] for n in read(out)["networks"]] == ["0", "1"]
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["export", str(model), "-o", str(out), "-f", "1"]) == 2  # the description is there
    assert not out.exists()
    assert main(["export", str(model), "-o", str(out), "-f", "1", "--overwrite"]) == 0
    assert [n["file"] for n in read(out)["networks"]] == ["model.pt2"]


class Runtime:
    """Answers as onnxruntime's session does, with a network of torch."""

    def __init__(self, network):
        self.network = network

    def run(self, _, given):
        with torch.no_grad():
            return [self.network(torch.from_numpy(given["volume"])).numpy()]


@pytest.mark.parametrize(
    "options",
    [
        {
            "kind": "2d",
            "scheme": "RescaleTo01Normalization",
            "mirroring": None,
            "labels": UNORDERED,
        },
        {"kind": "anisotropic", "mirroring": (2,), "folds": ("0", "1")},
        {"reader": "SimpleITKIOWithReorient", "scheme": "NoNormalization", "mirroring": None},
    ],
    ids=lambda options: options.get("kind", "turned"),
)
def test_the_example_follows_every_kind_of_plan(options, tmp_path, quick):
    model = write_model(tmp_path, **options)
    out = tmp_path / "model.pt2"
    export_model.export_model(model, out)
    description = read(out)
    networks = [Runtime(quick[entry["file"]]) for entry in description["networks"]]
    image = sitk.ReadImage(str(write_scan(tmp_path / "scan.nii.gz", 0, (24, 26, 9), TILT)))
    labels = sitk.GetArrayFromImage(predict_onnx.segment(description, networks, [image]))
    expected = dinomed3d.load_model(model, device="cpu").predict(image)
    assert len(np.unique(labels)) > 1
    assert np.array_equal(labels, sitk.GetArrayFromImage(expected))


def test_nothing_is_left_of_a_network_that_differs(tmp_path, quick, monkeypatch, capsys):
    model = write_model(tmp_path)
    write, read = export_model.KINDS[".pt2"]
    monkeypatch.setitem(
        export_model.KINDS, ".pt2", (write, lambda path: lambda window: 1.001 * read(path)(window))
    )
    out = tmp_path / "new" / "model.pt2"
    assert main(["export", str(model), "-o", str(out)]) == 2
    assert "differ" in capsys.readouterr().err
    assert not list(out.parent.iterdir())


def refuse(folder: Path, model: Path, name: str) -> str:
    with pytest.raises(UserError) as error:
        export_model.export_model(model, folder / name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refusals(tmp_path, monkeypatch):
    model = write_model(tmp_path)
    assert "-o" in refuse(tmp_path, model, "model.pth")
    (tmp_path / "model.onnx.data").touch()  # would be taken for the weights of the new file
    assert "model.onnx.data" in refuse(tmp_path, model, "model.onnx")
    assert "cascade" in refuse(tmp_path, write_cascade(tmp_path / "cascade"), "other.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "[onnx]" in refuse(tmp_path, model, "other.onnx")
