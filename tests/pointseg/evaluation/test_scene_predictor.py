"""The test protocol for one scene, with networks whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dinomed3d.runtime.errors import UserError
from pointseg.backbones import build_backbone
from pointseg.config.recipe import InferenceConfig, Recipe
from pointseg.evaluation import scene_predictor
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.geometry.voxels import nearest_to_centre, voxelize
from pointseg.scene import IGNORE, Scene
from pointseg.segmenter import Segmenter

RECIPE = Recipe(dataset="folder", features=("color",), voxel_m=1.0)
CLASSES = 3


class ByColor(nn.Module):
    """The class is the strongest colour; remembers the batches it has seen."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, cloud):
        self.seen.append(cloud)
        return cloud.feat * 8


class ByPlace(nn.Module):
    """Logits from the position alone."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, cloud):
        return self.rule(cloud.feat)


def scene_of(coord, **fields):
    return Scene(coord=np.asarray(coord, np.float32), fields=fields, name="s")


def colored(coord, classes):
    color = np.zeros((len(coord), 3), np.float32)
    color[np.arange(len(coord)), classes] = 255
    return scene_of(coord, color=color)


def predictor(model, recipe=RECIPE, *, single_pass=False, max_fragments=100, **protocol):
    passes = InferenceProtocol(
        config=InferenceConfig(**protocol), single_pass=single_pass, max_fragments=max_fragments
    )
    return ScenePredictor(model, recipe, CLASSES, passes)


def scattered(count=3000, size=(8.0, 6.0, 2.0), seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((count, 3)) * size).astype(np.float32), rng.integers(0, CLASSES, count)


def test_every_point_has_its_own_say():
    coord, classes = scattered()
    model = ByColor()
    labels = predictor(model).predict_labels(colored(coord, classes))
    np.testing.assert_array_equal(labels, classes)
    assert labels.dtype == np.int32
    for cloud in model.seen:  # never two points of a voxel in one cloud of a batch
        rows = torch.cat([cloud.grid_coord, cloud.batch[:, None]], 1)
        assert len(rows.unique(dim=0)) == len(rows)


def test_fragments_go_through_together_up_to_the_budget():
    coord, classes = scattered()
    voxels = len(voxelize(coord, 1.0))
    model = ByColor()
    predictor(model, max_points=3 * voxels).predict_labels(colored(coord, classes))
    assert max(len(cloud.offset) for cloud in model.seen) == 3
    assert max(len(cloud) for cloud in model.seen) <= 3 * voxels


def test_one_pass_names_a_voxel_by_the_point_nearest_to_its_centre():
    coord = [[0.1, 0.1, 0.1], [0.4, 0.5, 0.5], [0.9, 0.5, 0.5], [1.2, 0, 0]]
    recipe = replace(RECIPE, scene_type="outdoor")  # which leaves positions as they are
    model = ByColor()
    labels = predictor(model, recipe, single_pass=True).predict_labels(colored(coord, [0, 1, 2, 2]))
    np.testing.assert_array_equal(labels, [1, 1, 1, 2])
    assert len(model.seen) == 1 and len(model.seen[0]) == 2


def test_probabilities_are_summed_over_views():
    # The class depends on the sign of x as the network sees it; views mirror it for half of them.
    def rule(feat):
        right = (feat[:, :1] > 0).float()
        return torch.cat([1.0 * right, 0.9 * (1 - right), 0.3 * torch.ones_like(right)], 1)

    recipe = replace(RECIPE, features=("coord",), scene_type="outdoor")
    scene = scene_of([[2, 0, 0], [-3, 0, 0]])
    single = predictor(ByPlace(rule), recipe).predict_labels(scene)
    np.testing.assert_array_equal(single, [0, 1])
    first = torch.tensor([[1.0, 0, 0.3], [0, 0.9, 0.3]]).softmax(1)
    expected = (first + first.flip(0)).argmax(1)  # by hand: as many views mirrored as not
    mixed = predictor(ByPlace(rule), recipe, tta="nuscenes").predict_labels(scene)
    np.testing.assert_array_equal(mixed, expected)


def test_rooms_are_centred_and_scans_are_not():
    places = []

    def rule(feat):
        places.append(feat.clone())
        return torch.zeros(len(feat), CLASSES)

    scene = scene_of([[10, 4, 7], [12, 8, 9]])
    indoor = replace(RECIPE, features=("coord",))
    predictor(ByPlace(rule), indoor).predict_labels(scene)
    torch.testing.assert_close(places[0], torch.tensor([[-1.0, -2, 0], [1, 2, 2]]))
    predictor(ByPlace(rule), replace(indoor, scene_type="outdoor")).predict_labels(scene)
    torch.testing.assert_close(places[1], torch.tensor([[10.0, 4, 7], [12, 8, 9]]))
    boxed = replace(indoor, scene_type="outdoor", clip_box_m=(0, 0, 0, 11, 5, 8))
    predictor(ByPlace(rule), boxed).predict_labels(scene)
    torch.testing.assert_close(places[2], torch.tensor([[10.0, 4, 7], [11, 5, 8]]))
    predictor(ByPlace(rule), replace(boxed, drop_outside=True)).predict_labels(scene)
    torch.testing.assert_close(places[3], places[1])  # every point is to have a class


@pytest.mark.parametrize("max_fragments", [100, 2])
def test_passes_made_ahead_are_the_same(max_fragments):
    coord, _ = scattered(400, (3.0, 2.0, 2.0))
    recipe = replace(RECIPE, features=("coord",))
    scores = []
    for ahead in (False, True):
        model = ByPlace(lambda feat: feat.sin() * 3)
        made = predictor(model, recipe, tta="nuscenes", max_fragments=max_fragments, max_points=20)
        made.tile_predictor.ahead = ahead
        scores.append(made.predict_labels(scene_of(coord)))
    np.testing.assert_array_equal(*scores)
    assert len(np.unique(scores[0])) > 1


def test_thinned_points_come_back_as_the_one_that_stood_for_them():
    coord = [[0.01, 0, 0], [0.02, 0, 0], [0.31, 0, 0], [3, 0, 0]]
    recipe = replace(RECIPE, scene_type="outdoor")
    model = ByColor()
    labels = predictor(model, recipe, prevoxel_m=0.1).predict_labels(colored(coord, [0, 1, 2, 1]))
    np.testing.assert_array_equal(labels, [0, 0, 2, 1])
    assert sum(len(cloud) for cloud in model.seen) == 4  # two fragments of two voxels


def test_heaps_of_points_are_bounded():
    coord = np.zeros((500, 3))
    coord[-1] = 4
    classes = np.r_[np.zeros(250, int), np.ones(249, int), 2]
    model = ByColor()
    labels = predictor(model, max_fragments=2, max_points=2).predict_labels(colored(coord, classes))
    assert len(model.seen) == 2
    assert (labels[:-1] == 0).all() and labels[-1] == 2


def tiled_rule(feat):
    return torch.stack([feat[:, 0].sin(), feat[:, 1].cos(), 0.2 * feat[:, 2]], 1) * 3


@pytest.mark.parametrize("fast", [False, True])
def test_tiles_make_no_difference_to_a_network_that_sees_points_alone(fast, monkeypatch):
    coord, classes = scattered(6000, size=(40, 30, 2))
    scene = colored(coord, classes)
    whole, parts = ByColor(), ByColor()
    expected = predictor(whole, single_pass=fast).predict_labels(scene)
    found = predictor(parts, single_pass=fast, max_points=500, margin_m=1.0).predict_labels(scene)
    np.testing.assert_array_equal(found, expected)
    assert len(parts.seen) > len(whole.seen)
    assert max(len(cloud) for cloud in parts.seen) <= 500


def test_tiles_make_no_difference_to_convolutions_that_reach_no_further_than_the_margin():
    # 20 x 300 x 2 voxels: cut once, in the middle, where coarse grids of their own would lie otherwise
    coord = np.random.default_rng(3).uniform(0, 1, (6000, 3)) * [20, 601.3, 2]
    scene = colored(coord.astype(np.float32), np.arange(6000) % CLASSES)
    torch.manual_seed(0)
    network = build_backbone(
        "minkunet", in_channels=3, base_channels=4, channels=[4] * 8, layers=[1] * 8
    )
    model = Segmenter(network, CLASSES).eval()
    seen = []

    def balanced(cloud):  # so that random weights give all classes
        logits = model(cloud)
        seen.append((logits.mean(0), logits.std(0)))
        return (logits - seen[0][0]) / seen[0][1]

    found = [
        predictor(balanced, single_pass=True, max_points=count, margin_m=140).predict_labels(scene)
        for count in (100_000, 4500)
    ]
    assert len(seen) == 3
    np.testing.assert_array_equal(found[0], found[1])
    assert np.bincount(found[0], minlength=CLASSES).min() > 300


def test_tiles_are_also_small_enough_for_the_sums(monkeypatch):
    monkeypatch.setattr(scene_predictor, "MAX_SCORES", 3000)
    coord, classes = scattered(3000)
    model = ByColor()
    labels = predictor(model, margin_m=0).predict_labels(colored(coord, classes))
    np.testing.assert_array_equal(labels, classes)
    assert len({float(cloud.coord.sum()) for cloud in model.seen}) > 3


class Small(ByColor):
    """Memory for so many voxels only."""

    def __init__(self, room):
        super().__init__()
        self.room, self.failed = room, 0

    def forward(self, cloud):
        if len(cloud) > self.room:
            self.failed += 1
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return super().forward(cloud)


def test_when_memory_runs_out_half_as_many_voxels_are_tried(monkeypatch):
    monkeypatch.setattr(scene_predictor, "MIN_VOXELS", 50)
    coord, classes = scattered(6000, size=(40, 30, 2))
    model, said = Small(700), []
    made = predictor(model, single_pass=True, max_points=4000, margin_m=1.0)
    made.log = said.append
    labels = made.predict_labels(colored(coord, classes))
    halved = len(said)
    assert halved == model.failed >= 2
    assert made.max_points == 4000 // 2**halved
    assert f"--max-points {made.max_points}" in said[-1]
    np.testing.assert_array_equal(
        labels, predictor(ByColor(), single_pass=True).predict_labels(colored(coord, classes))
    )
    made.predict_labels(colored(coord, classes))
    assert model.failed == halved  # it has learned


def test_what_the_free_memory_has_no_room_for_is_not_tried(monkeypatch):
    monkeypatch.setattr(scene_predictor, "max_voxels", lambda _: 9000)
    said = []
    passes = InferenceProtocol(config=InferenceConfig(max_points=20_000))
    made = ScenePredictor(ByColor(), RECIPE, CLASSES, passes, log=said.append)
    assert made.max_points == 9000
    assert len(said) == 1 and "9000" in said[0]
    monkeypatch.setattr(scene_predictor, "max_voxels", lambda _: 30)
    assert predictor(ByColor()).max_points == scene_predictor.MIN_VOXELS
    assert predictor(ByColor(), max_points=10).max_points == 10


def test_no_memory_at_all_is_an_error(monkeypatch):
    monkeypatch.setattr(scene_predictor, "MIN_VOXELS", 50)
    coord, classes = scattered(500)
    with pytest.raises(UserError, match="out of memory with 50 voxels"):
        predictor(Small(0), max_points=90).predict_labels(colored(coord, classes))


def test_other_errors_of_the_network_pass_through():
    class Broken(nn.Module):
        def forward(self, cloud):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        predictor(Broken()).predict_labels(colored([[0, 0, 0]], [0]))


def test_points_without_a_position_have_no_class():
    coord = np.array([[0, 0, 0], [np.nan, 0, 0], [3, 0, 0], [0, np.inf, 0]], np.float32)
    labels = predictor(ByColor()).predict_labels(colored(coord, [1, 1, 2, 1]))
    np.testing.assert_array_equal(labels, [1, IGNORE, 2, IGNORE])


@pytest.mark.parametrize("count", [0, 1])
def test_no_point_and_one(count):
    shares = []
    labels = predictor(ByColor()).predict_labels(
        colored(np.zeros((count, 3)), [2][:count]), shares.append
    )
    np.testing.assert_array_equal(labels, [2][:count])
    assert shares[-1] == 1.0


def test_progress_rises_to_one():
    coord, classes = scattered(4000, size=(40, 30, 2))
    shares = []
    predictor(ByColor(), tta="nuscenes", max_points=600, margin_m=1).predict_labels(
        colored(coord, classes), shares.append
    )
    assert len(shares) > 20 and shares == sorted(shares) and shares[-1] == 1.0


def test_what_the_model_needs_must_be_there_and_finite():
    with pytest.raises(UserError, match="scene s: lacks color, which the model needs"):
        predictor(ByColor()).predict_labels(scene_of([[0, 0, 0]]))
    bad = scene_of([[0, 0, 0]], color=np.full((1, 3), np.nan, np.float32))
    with pytest.raises(UserError, match="'color' has values that are not finite"):
        predictor(ByColor()).predict_labels(bad)


def test_clouds_too_large_for_their_voxels_are_refused():
    with pytest.raises(UserError, match="scene s: .*divide them by 1000"):
        predictor(ByColor()).predict_labels(colored([[0, 0, 0], [0, 0, 3e6]], [0, 1]))


@pytest.mark.parametrize("setting", ["indoor", "outdoor"])
@pytest.mark.parametrize("prevoxel_m", [None, 0.001])
def test_a_stray_point_far_off_changes_nothing(setting, prevoxel_m):
    recipe = replace(RECIPE, scene_type=setting, voxel_m=0.05)
    coord, classes = scattered(600, size=(4.0, 4.0, 2.0))
    alone, with_stray = ByColor(), ByColor()
    expected = predictor(alone, recipe, prevoxel_m=prevoxel_m).predict_labels(
        colored(coord, classes)
    )
    coord = np.concatenate([coord, [[-684_900, -5_200_000, -150]]])
    scene = colored(coord, np.append(classes, 1))
    found = predictor(with_stray, recipe, prevoxel_m=prevoxel_m).predict_labels(scene)
    np.testing.assert_array_equal(found, [*expected, 1])
    ours = [cloud for cloud in with_stray.seen if len(cloud) > 1]
    assert [len(cloud) for cloud in ours] == [len(cloud) for cloud in alone.seen]
    for one, two in zip(alone.seen, ours, strict=True):
        assert torch.equal(one.grid_coord, two.grid_coord)
        torch.testing.assert_close(one.coord, two.coord, atol=1e-6, rtol=0)


def test_a_wide_cloud_of_few_points_is_cut():
    labels = predictor(ByColor()).predict_labels(colored([[0, 0, 0], [1e6, 0, 0]], [0, 1]))
    np.testing.assert_array_equal(labels, [0, 1])


def test_bfloat16_runs():
    coord, classes = scattered(300)
    passes = InferenceProtocol(config=InferenceConfig())

    class Linear(nn.Linear):
        def forward(self, cloud):
            return super().forward(cloud.feat)

    model = Linear(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(8 * torch.eye(3))
    labels = ScenePredictor(model, RECIPE, 3, passes, precision="bfloat16").predict_labels(
        colored(coord, classes)
    )
    np.testing.assert_array_equal(labels, classes)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="'precision' must be one of float32"):
        ScenePredictor(
            ByColor(), RECIPE, 3, InferenceProtocol(config=InferenceConfig()), precision="int8"
        )
    with pytest.raises(UserError, match="'tta' must be one of single"):
        InferenceProtocol(config=InferenceConfig(tta="all"))
    with pytest.raises(UserError, match="'max_fragments' must be >= 1"):
        InferenceProtocol(config=InferenceConfig(), max_fragments=0)


def test_the_point_nearest_to_the_centre_against_a_loop():
    coord, _ = scattered(2000, seed=3)
    coord -= 4
    coord[10:20] = coord[:10]  # of several at one place the first
    voxels = voxelize(coord, 0.7)
    offset = np.abs(coord.astype(float) / 0.7 - np.floor(coord.astype(float) / 0.7) - 0.5)
    distance = np.square(offset).sum(1)
    for voxel, found in enumerate(nearest_to_centre(coord, voxels, 0.7)):
        members = np.flatnonzero(voxels.inverse == voxel)
        assert distance[found] == pytest.approx(distance[members].min(), rel=1e-5)
        assert found in members and not (10 <= found < 20)
