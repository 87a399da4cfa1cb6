"""Models that read images from Python: classes are those of the command with --cameras, from arrays."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import pointseg
from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import PointCloudFormat
from pointseg.config.serialization import read_recipe
from pointseg.files import read_cloud, write_cloud
from pointseg.images.readers.image_files import ImageFile
from pointseg.images.readers.manifest import write_manifest
from pointseg.models import image_encoder
from pointseg.models.checkpoint import read_checkpoint, save_checkpoint
from pointseg.models.image_encoder import open_for, trained_with
from pointseg.models.network import build_segmenter
from pointseg.prediction.inputs.cloud_images import CloudImages, camera_rule
from pointseg.prediction.predict import predict
from pointseg.prediction.spec import PredictSpec
from tests.pointseg.evaluation.answers import CLASSES as OTHERS
from tests.pointseg.evaluation.answers import RECIPE as BLIND
from tests.pointseg.lifting.floor import K, pose
from tests.pointseg.painted import CLASSES, SEEING, SIZE, Painted

SCENE = Painted().load("val", "val0")
MOVED = np.array([[4.5e5, 5.4e6, 100.0]])
PIXELS = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


def frame(view, shift=(0, 0, 0), scale=1.0):
    """A camera above the floor; the second one sees a part of it."""
    found = pose(0.4 * view)
    found[:3, 3] = (found[:3, 3] - np.asarray(shift)) * scale
    return pointseg.array_frame(PIXELS[view], K, world_to_camera=found, name=str(view))


FRAMES = [frame(0), frame(1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and the weights of their encoder; the images decide their classes."""
    out = tmp_path_factory.mktemp("ditr")
    encoder, images = open_for(SEEING.images, "none")
    for name, config in (
        ("ditr.pt", images),
        ("forgiving.pt", replace(images, allow_missing_images=True)),
        ("blind.pt", None),
    ):
        recipe, classes = replace(SEEING, images=config), CLASSES
        if config is None:
            recipe, classes = BLIND, OTHERS
        torch.manual_seed(2)
        state = build_segmenter(recipe, len(classes.names), config and encoder).state_dict()
        state = {k: v * 100 if "image" in k and v.ndim > 1 else v for k, v in state.items()}
        if config is not None:  # so that both classes are found
            state["seg_head.bias"] = state["seg_head.bias"] + torch.tensor([-0.25, 0.25])
        save_checkpoint(out / name, state, recipe=recipe, classes=classes)
    weights = {k.removeprefix("vit."): v.contiguous() for k, v in encoder.state_dict().items()}
    save_file(weights, out / "dino.safetensors")
    save_file({k: 2 * v for k, v in weights.items()}, out / "other.safetensors")
    return out


@pytest.fixture(scope="module")
def net(folder):
    return loaded(folder)


def loaded(folder, name="ditr.pt", weights="dino.safetensors"):
    return pointseg.load_model(folder / name, weights=folder / weights, device="cpu")


def commanded(folder, out):
    """Classes of the command, for files of the same points, images and poses."""
    write_cloud(out / "cloud.ply", SCENE)
    found = []
    for view, each in enumerate(FRAMES):
        Image.fromarray(PIXELS[view]).save(out / f"{view}.png")
        found.append(replace(each, image=ImageFile(out / f"{view}.png")))
    write_manifest(out / "cameras.json", found)
    (result,) = predict(
        PredictSpec(
            inputs=(out / "cloud.ply",),
            out=out / "out",
            model=folder / "ditr.pt",
            encoder=trained_with(str(folder / "dino.safetensors")),
            cameras=camera_rule("cameras.json", None),
            pictures=False,
            log=lambda text: None,
        )
    )
    assert result.status == "done", result.reason
    return read_cloud(out / "out" / "cloud.ply")["segment"]


def test_arrays_scenes_and_files_get_the_classes_of_the_command(folder, tmp_path, monkeypatch):
    opened, open_encoder = [], image_encoder.open_encoder
    monkeypatch.setattr(
        image_encoder,
        "open_encoder",
        lambda *given, **named: (opened.append(given), open_encoder(*given, **named))[1],
    )
    net = loaded(folder)
    one = net.predict(SCENE.coord, color=SCENE["color"], frames=FRAMES)
    two = net.predict(SCENE, frames=tuple(FRAMES))
    assert len(opened) == 1  # for all calls
    expected = commanded(folder, tmp_path)
    assert len(np.unique(expected)) > 1
    for found in (one, two, net.predict(tmp_path / "cloud.ply", frames=FRAMES)):
        np.testing.assert_array_equal(found, expected)
    again = net.predict(SCENE, frames=[frame(1), frame(0)])
    assert (again != expected).any()  # the last image that sees a point gives its feature


def test_poses_belong_to_the_points(net, folder, tmp_path):
    expected = net.predict(SCENE, frames=FRAMES)
    coord = np.r_[SCENE.coord + MOVED, [[np.nan] * 3]]
    color = np.r_[SCENE["color"], [[0, 0, 0]]]
    moved = [frame(view, MOVED[0]) for view in (0, 1)]
    labels, probabilities = net.predict(coord, color=color, frames=moved, probabilities=True)
    assert (labels[:-1] == expected).mean() > 0.98 and labels[-1] == -1
    np.testing.assert_array_equal(probabilities[:-1].argmax(1), labels[:-1])


def test_a_file_has_its_unit_and_axes(folder, tmp_path):
    """A file in millimetres with y up, and poses that belong to its numbers."""
    expected = loaded(folder).predict(SCENE, frames=FRAMES)
    content = read_checkpoint(folder / "ditr.pt")
    recipe = replace(
        read_recipe(content["recipe"]), cloud_format=PointCloudFormat(unit_m=0.001, up="y")
    )
    save_checkpoint(tmp_path / "mm.pt", content["model"], recipe=recipe, classes=CLASSES)
    net = pointseg.load_model(tmp_path / "mm.pt", weights=folder / "dino.safetensors", device="cpu")
    back = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # z up of the (x, y, z) of the file
    write_cloud(tmp_path / "a.ply", replace(SCENE, coord=SCENE.coord @ back.astype("f4") * 1000))
    frames = []
    for view in (0, 1):
        found = pose(0.4 * view)
        found[:3, :3], found[:3, 3] = found[:3, :3] @ back, found[:3, 3] * 1000
        frames.append(pointseg.array_frame(PIXELS[view], K, world_to_camera=found))
    labels = net.predict(tmp_path / "a.ply", frames=frames)
    assert (labels == expected).mean() > 0.98


def test_threads_share_a_model(net, monkeypatch):
    views = [[FRAMES[0]], [FRAMES[1]], FRAMES]
    expected, found = [net.predict(SCENE, frames=each) for each in views], {}
    inside, most, through = [], [], net._predictor.predict_labels

    def watched(*given):
        inside.append(given)
        time.sleep(0.02)  # others come in where nothing keeps them out
        most.append(len(inside))
        labels = through(*given)
        inside.pop()
        return labels

    monkeypatch.setattr(net._predictor, "predict_labels", watched)

    def work(k):
        found[k] = net.predict(SCENE, frames=views[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert not np.array_equal(expected[0], expected[2])
    assert all(np.array_equal(found[k], expected[k]) for k in range(3))


def test_a_model_that_can_do_without_images_does(folder):
    net = loaded(folder, "forgiving.pt")
    bare = net.predict(SCENE)
    np.testing.assert_array_equal(net.predict(SCENE, frames=[]), bare)
    assert (net.predict(SCENE, frames=FRAMES) != bare).any()


@pytest.mark.parametrize(
    ("frames", "part"),
    [
        (None, "reads images.*frames="),
        ([], "'frames' must hold at least one"),
        (FRAMES[0], "'frames'.*array_frame.*got Frame"),
        ([PIXELS[0]], "'frames'.*got ndarray"),
        ([frame(0, (900, 0, 0))], "none of its 600 points is visible"),
    ],
)
def test_frames_that_cannot_be_used_are_refused_in_one_sentence(net, frames, part):
    with pytest.raises(UserError, match=part) as error:
        net.predict(SCENE, frames=frames)
    assert "\n" not in str(error.value)


def test_images_are_for_models_that_read_them(folder):
    with pytest.raises(UserError, match="'frames': the model reads no images"):
        pointseg.load_model(folder / "blind.pt", device="cpu").predict(SCENE, frames=FRAMES)
    with pytest.raises(UserError, match="'weights': .*blind.pt reads no images"):
        loaded(folder, "blind.pt")
    with pytest.raises(UserError, match="ditr.pt reads features of vit_.*weights="):
        pointseg.load_model(folder / "ditr.pt", device="cpu")
    with pytest.raises(UserError, match="other.safetensors: are not the weights of vit_"):
        loaded(folder, weights="other.safetensors")


def test_the_note_of_a_cloud_names_intrinsics_of_another_size():
    doubled = pointseg.array_frame(
        PIXELS[0], np.diag([2, 2, 1]) @ K, world_to_camera=pose(), check_intrinsics=False
    )
    assert "another size" in CloudImages(SEEING.images, (*FRAMES, doubled)).note(0.5)
    assert "another size" not in CloudImages(SEEING.images, tuple(FRAMES)).note(0.5)
