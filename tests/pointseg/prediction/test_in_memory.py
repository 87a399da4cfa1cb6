"""Clouds from Python: classes are those of the command, for arrays, scenes and files."""

from __future__ import annotations

import threading
import typing

import numpy as np
import pytest
import torch

import pointseg
from dinomed3d.runtime.errors import UserError
from pointseg.files import read_cloud, write_cloud
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.network import build_segmenter
from pointseg.prediction.in_memory import PointSegmenter
from pointseg.prediction.predict import predict
from pointseg.prediction.spec import PredictSpec
from tests.pointseg.evaluation.answers import CLASSES, RECIPE, colored

SCENE = colored([0, 1, 2, 2])
FAR = np.array([4.5e5, 5.4e6, 100.0])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    torch.manual_seed(0)
    weights = build_segmenter(RECIPE, len(CLASSES)).state_dict()
    weights = {k: v * 20 if k == "head.weight" else v for k, v in weights.items()}
    file = tmp_path_factory.mktemp("model") / "best.pt"
    save_checkpoint(file, weights, recipe=RECIPE, classes=CLASSES)
    return file


@pytest.fixture(scope="module")
def net(path):
    return pointseg.load_model(path, device="cpu")


def test_arrays_scenes_and_files_get_the_classes_of_the_command(net, path, tmp_path):
    source = tmp_path / "cloud.ply"
    write_cloud(source, SCENE)
    spec = PredictSpec(inputs=(source,), out=tmp_path / "out", model=path, log=lambda text: None)
    (result,) = predict(spec)
    assert result.status == "done", result.reason
    expected = read_cloud(tmp_path / "out" / "cloud.ply")["segment"]
    assert len(np.unique(expected)) > 1
    for found in (
        net.predict(SCENE.coord, color=SCENE["color"]),
        net.predict(SCENE.coord.tolist(), color=SCENE["color"].astype(np.uint8)),
        net.predict(SCENE),
        net.predict(source),
        net.predict(str(source)),
    ):
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)
    assert net.classes == CLASSES.names and net.needs == ("color",)
    said = repr(net)
    assert "\n" not in said and CLASSES.names[0] in said and "reads color" in said
    assert f"voxels of {RECIPE.voxel_m:g} m" in said and said.endswith("float32 on cpu>")


@pytest.mark.skipif(not hasattr(typing, "get_overloads"), reason="Python 3.10 keeps none")
def test_a_variable_may_say_whether_probabilities_are_wanted():
    kinds = {
        each.__annotations__["probabilities"]: each.__annotations__["return"]
        for each in typing.get_overloads(PointSegmenter.predict)
    }
    assert kinds["bool"] == "NDArray[np.int32] | LabelledPoints" and len(kinds) == 3


@pytest.mark.parametrize("tta", [False, True])
def test_probabilities_belong_to_the_classes(path, tta):
    net = pointseg.load_model(path, device="cpu", tta=tta)
    coord = SCENE.coord.astype(np.float64)
    coord[7] = np.nan
    labels, probabilities = net.predict(coord, color=SCENE["color"], probabilities=True)
    known = np.arange(len(coord)) != 7
    assert labels[7] == -1 and not probabilities[7].any()
    np.testing.assert_allclose(probabilities[known].sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities[known].argmax(1), labels[known])
    np.testing.assert_array_equal(net.predict(coord, color=SCENE["color"]), labels)
    assert 0 < probabilities[known].std()


def test_far_from_zero_nothing_is_lost(net):
    near = net.predict(SCENE.coord, color=SCENE["color"])
    far = net.predict(SCENE.coord.astype(np.float64) + FAR, color=SCENE["color"])
    assert (near == far).mean() > 0.99


def test_a_doubtful_scale_can_be_accepted(path):
    net = pointseg.load_model(path, device="cpu", check_scale=False)
    assert len(net.predict(SCENE.coord * 1000, color=SCENE["color"])) == len(SCENE)


def test_threads_share_a_model(net):
    expected, found = net.predict(SCENE), {}

    def work(name):
        found[name] = net.predict(SCENE)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[k], expected) for k in range(3))


ROWS = np.random.default_rng(0).random((50, 3)) * 3
BAD = {
    "no color": (ROWS, {}, "color"),
    "two columns": (ROWS[:, :2], {"color": ROWS}, "'points'"),
    "rows": (ROWS, {"color": ROWS[:5] * 255}, "'color'"),
    "fractions": (ROWS, {"color": ROWS / 3}, "'color'"),
    "16 bits": (ROWS, {"color": ROWS * 2e4}, "'color'"),
    "NaN": (ROWS, {"color": ROWS * np.nan}, "'color'"),
    "intensity of 8 bits": (ROWS, {"color": ROWS, "intensity": ROWS[:, 0] * 80}, "'intensity'"),
    "fractions in a scene": (
        SCENE.with_fields(color=SCENE["color"] / 255),
        {},
        "'color' of the scene",
    ),
    "16 bits in a scene": (
        SCENE.with_fields(color=SCENE["color"] * 257),
        {},
        "'color' of the scene",
    ),
    "a scene and more": (SCENE, {"color": SCENE["color"]}, "scene"),
    "a file and more": ("a.ply", {"color": ROWS}, "a.ply"),
    "no file": ("no/such.ply", {}, "no/such.ply"),
    "no LAZ": ("no/such.laz", {}, "no/such.laz: no such file"),
    "words": (ROWS, {"color": "red"}, r"'color' must be \(N, 3\) numbers, got str"),
    "nobody": (None, {}, "'points'.*NoneType"),
    "ragged": ([[1, 2], [3]], {}, "'points'.*list"),
    "complex": (ROWS + 1j, {}, "'points'"),
    "fractions of a tensor": (ROWS, {"color": torch.rand(50, 3, requires_grad=True)}, "'color'"),
    "millimetres": (SCENE.coord * 1000, {"color": SCENE["color"]}, "millimetre"),
    "nothing": (np.zeros((0, 3)), {"color": np.zeros((0, 3))}, "no points"),
}


@pytest.mark.parametrize(("points", "named", "part"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_predicted_is_refused_in_one_sentence(net, points, named, part):
    with pytest.raises(UserError, match=part) as error:
        net.predict(points, **named)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)  # no options of commands where there are none


def test_fields_of_a_scene_that_the_model_does_not_read_may_have_any_values(net):
    scene = SCENE.with_fields(strength=np.full((len(SCENE), 1), 4095, np.float32))
    np.testing.assert_array_equal(net.predict(scene), net.predict(SCENE))


def test_refusals_name_what_python_takes(net, tmp_path):
    with pytest.raises(
        UserError, match=r"^predict: 'points' spans .*0\.001 \* points.*check_scale=False"
    ):
        net.predict(SCENE.coord * 1000, color=SCENE["color"])
    with pytest.raises(
        UserError, match=r"too few for a network.*; give metres .*1000 \* points of kilometres"
    ):
        net.predict(SCENE.coord / 1000, color=SCENE["color"])
    with pytest.raises(UserError, match=r"^predict: 'points' lacks color;.* \(color="):
        net.predict(SCENE.coord)
    source = tmp_path / "large.ply"
    write_cloud(source, SCENE.moved(SCENE.coord * 1000))
    with pytest.raises(UserError, match=r"large.ply: spans .*in metres.*check_scale=False\)\)$"):
        net.predict(source)
