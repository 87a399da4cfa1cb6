"""Arms, controls and tables of the DITR benchmarks."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from tests import ROOT

sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))

import ditr_data  # noqa: E402
import ditr_encoders  # noqa: E402
import ditr_methods  # noqa: E402
import ditr_probe  # noqa: E402
import ditr_table  # noqa: E402
import textured_rooms  # noqa: E402

from dinomed3d.lifting import build_encoder  # noqa: E402
from dinomed3d.lifting.dino import LVD_MEAN, LVD_STD  # noqa: E402
from pointseg.config.presets import recipe_for  # noqa: E402
from pointseg.images.config import ImageConfig  # noqa: E402
from pointseg.images.visibility import VisibilityConfig  # noqa: E402
from pointseg.loading import samples  # noqa: E402
from pointseg.metrics import Confusion  # noqa: E402
from pointseg.models.network import build_segmenter  # noqa: E402

SIZE = (24, 32)


@pytest.fixture(scope="module")
def data():
    rooms = textured_rooms.TexturedRooms(rooms=(3, 1, 2), views=1, points=1500)
    return ditr_data.InMemory(rooms, kept=0.5)


@pytest.fixture(scope="module")
def bench(data, tmp_path_factory):
    images = ImageConfig(
        encoder="pixel colors",
        size=SIZE,
        sample="bilinear",
        fuse="mean",
        visibility=VisibilityConfig(depth_tolerance_m=0.05),
    )
    made = ditr_methods.Bench(
        data=data,
        recipe=recipe_for("synthetic", "pointnext", "small"),
        images=images,
        work=tmp_path_factory.mktemp("bench"),
        steps=1,
        distil_steps=1,
        labelled=1,
    )
    made.encode(ditr_methods.COLORS, ditr_encoders.PixelColors())
    return made


def test_only_training_scenes_are_thinned(data):
    train, test = data.scenes("train")[0], data.scenes("test")[0]
    assert 0.4 < len(data.load("train", train)) / len(data.whole.load("train", train)) < 0.6
    assert len(data.load("test", test)) == len(data.whole.load("test", test))
    assert data.load("train", train) is data.load("train", train)


def test_no_scene_keeps_its_own_image(data):
    for seed in range(3):
        others = ditr_data.OtherImages(data, seed)
        given = []
        for name in data.scenes("train"):
            (own,), (other,) = data.frames("train", name), others.frames("train", name)
            assert own.image.key() != other.image.key()
            assert own.camera is other.camera and own.depth == other.depth
            given.append(other.image.key())
        assert len(set(given)) == len(given)


def test_held_out_scenes_are_training_scenes_that_are_not_trained_on(data):
    first = data.scenes("train")[0]
    tuned = ditr_data.HeldOut(data, (first,))
    assert tuned.scenes("val") == (first,) and first not in tuned.scenes("train")
    assert tuned.load("val", first) is data.load("train", first)
    assert not set(data.scenes("test")) & {*tuned.scenes("val"), *tuned.scenes("train")}


def test_permuted_encoder_has_the_same_numbers_elsewhere():
    sizes = {"embed_dim": 12, "depth": 1, "num_heads": 2}
    encoder = build_encoder("vit_small_patch14_dinov2", weights="none", **sizes)
    before = {name: values.clone() for name, values in encoder.state_dict().items()}
    after = ditr_encoders.permuted(encoder).state_dict()
    moved = 0
    for name, values in before.items():
        assert torch.equal(values.flatten().sort().values, after[name].flatten().sort().values)
        moved += not torch.equal(values, after[name])
    assert moved > 3


def test_features_of_pixel_colors_are_the_colors_at_the_points(bench, data):
    images, cache = bench.images_of(ditr_methods.COLORS), bench.cache_of(ditr_methods.COLORS)
    (features, labels), *_ = ditr_probe.lifted(data, "test", images, cache, None, 0)
    name = data.scenes("test")[0]
    scene, (frame,) = data.load("test", name), data.frames("test", name)
    assert features.shape == (len(labels), 3)
    assert 0 < len(labels) <= len(scene)
    picture = torch.from_numpy(frame.read_image()).float().mean((0, 1)) / 255
    mean, std = torch.tensor(LVD_MEAN), torch.tensor(LVD_STD)
    assert (features.mean(0) * std + mean - picture).abs().max() < 0.15


def test_a_run_is_found_again_and_another_setting_runs_again(bench, monkeypatch):
    arm = ditr_methods.Arm(name="probe", kind=ditr_methods.PROBE, source=ditr_methods.COLORS)
    first = bench.run(arm, 0)
    monkeypatch.setattr(ditr_methods, "linear_probe", lambda *_, **__: Confusion(14))
    assert bench.run(arm, 0) == first
    other = ditr_methods.replace(arm, few=True)
    again = bench.run(other, 0)
    assert again["confusion"] != first["confusion"] and len(again["labelled"]) == 1


def test_classes_taken_as_one():
    matrix = np.array([[5, 1, 0], [2, 3, 4], [0, 6, 7]])  # rows are labels
    score = ditr_table.iou_of([1, 2])(Confusion.of(matrix))
    assert score == pytest.approx(20 / (22 + 21 - 20))


def test_table_pairs_runs_by_seed():
    one, two = ditr_methods.Arm(name="one"), ditr_methods.Arm(name="two")

    def run(arm, seed, hits):
        matrix = [[hits, 100 - hits], [0, 0]]
        return {"arm": arm.name, "seed": seed, "confusion": matrix, "minutes": 1.0}

    found = [run(one, 0, 50), run(one, 3, 70), run(one, 1, 60)]
    found += [run(two, 1, 50), run(two, 0, 30), run(two, 2, 10)]
    columns = {"accuracy": lambda confusion: confusion.accuracy()}
    text = ditr_table.show(found, [one, two], columns, [(one, two)])
    assert "| one minus two | 15.0 ± 5.0 | 20.0, 10.0 |" in text
    assert "| one | 60.0 ± 5.8 | 50.0, 60.0, 70.0 |" in text
    assert "| two | 30.0 ± 11.5 | 30.0, 50.0, 10.0 |" in text


def test_a_fitted_line_reads_features_as_they_are():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(600, 2, generator=generator) * torch.tensor([5.0, 0.01]) + 3
    labels = (features[:, 1] > 3.004).long()  # of the channel with the smaller spread
    weight, bias = ditr_probe.fit_linear(features, labels, 2, penalty=1e-4)
    assert ((features @ weight.T + bias).argmax(1) == labels).float().mean() > 0.97


def test_a_fitted_head_separates_what_the_backbone_separates(bench, data):
    torch.manual_seed(0)
    recipe = ditr_methods.replace(bench.recipe, voxel_m=0.2)
    segmenter = build_segmenter(recipe, len(data.classes.names))
    few = ditr_data.few_labels(data, 1, seed=0)
    augmented = samples.Samples(few, recipe, training=True, seed=0)
    clouds = [
        augmented[number, 0] for number in range(4)
    ]  # some of those that the head is fitted on
    before = {name: values.clone() for name, values in segmenter.backbone.state_dict().items()}

    def accuracy():
        with torch.no_grad():
            hits = [segmenter.eval()(cloud).argmax(1) == cloud.segment for cloud in clouds]
        known = torch.cat([cloud.segment for cloud in clouds]) >= 0
        return torch.cat(hits)[known].float().mean()

    assert accuracy() < 0.3  # of a random head: twelve seeds gave 0.00 to 0.23
    ditr_probe.fit_head(segmenter, few, recipe, seed=0)
    assert segmenter.training
    assert accuracy() > 0.6  # 0.78 to 0.82
    for name, values in segmenter.backbone.state_dict().items():
        assert torch.equal(values, before[name])
