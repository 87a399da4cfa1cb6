"""The linear probe: what goes in comes out standardised, and only the classifier learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dinomed3d.runtime.errors import UserError
from pointseg.backbones import Backbone, Features, build_backbone
from pointseg.backbones.linear_probe import LinearProbe
from pointseg.cloud import Cloud
from pointseg.config.presets import recipe_for
from pointseg.segmenter import Segmenter
from pointseg.training.step.optimizer import build_optimizer


class Doubled(Backbone):
    """Twice its input, less at random in training."""

    def __init__(self) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.level_channels = 2, 2, (2,)
        self.layer = nn.Linear(2, 2, bias=False)
        self.layer.weight = nn.Parameter(2 * torch.eye(2))
        self.drop = nn.Dropout(0.9)

    def forward(self, cloud: Cloud, image_feat=None, image_seen=None) -> Features:
        return Features(self.drop(self.layer(cloud.feat)), ())


def cloud(feat: Tensor) -> Cloud:
    count = len(feat)
    return Cloud(
        coord=torch.zeros(count, 3),
        grid_coord=torch.zeros(count, 3, dtype=torch.int64),
        feat=feat,
        offset=torch.tensor([count]),
    )


FEAT = torch.tensor([[1.0, 10], [3, 30], [100, 100], [5, 50]])
SEEN = torch.tensor([True, True, False, True])
UNIT = 1.5**0.5
"""1, 3, 5 standardised: -UNIT, 0, UNIT."""


def test_seen_points_are_standardised_among_themselves_and_unseen_ones_are_zero():
    probe = LinearProbe(in_channels=2, image_channels=2)
    found = probe(cloud(torch.zeros(4, 2)), FEAT, SEEN).feat
    wanted = torch.tensor([[-UNIT, -UNIT, 1], [0, 0, 1], [0, 0, 0], [UNIT, UNIT, 1]])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_predictions_use_the_mean_over_all_batches():
    probe = LinearProbe(in_channels=2, image_channels=1)
    given, every = cloud(torch.zeros(4, 2)), torch.ones(4, dtype=torch.bool)
    for shift in (0.0, 2.0, 10.0):
        probe(given, torch.tensor([[-1.0], [1], [-1], [1]]) + shift, every)
    probe.eval()
    found = probe(given, torch.full((4, 1), 4.0), every).feat
    # the mean of 0, 2 and 10 is 4
    torch.testing.assert_close(found[:, 0], torch.zeros(4), atol=1e-6, rtol=0)


def test_the_encoder_is_frozen_and_its_features_are_joined_with_those_of_the_images():
    probe = LinearProbe(in_channels=2, encoder=Doubled(), image_channels=2).train()
    found = probe(cloud(FEAT[SEEN]), FEAT[SEEN], SEEN[SEEN]).feat
    half = torch.tensor([-UNIT, 0, UNIT])[:, None].expand(3, 2)
    wanted = torch.cat([half, torch.ones(3, 1), half], 1)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert not found.requires_grad
    segmenter = Segmenter(LinearProbe(in_channels=2, encoder=Doubled()), 3)
    optimizer = build_optimizer(segmenter, recipe_for("folder", "linear", "full").optimizer)
    trained = [p.shape for group in optimizer.param_groups for p in group["params"]]
    assert trained == [(3, 2), (3,)]


@pytest.mark.parametrize("seen", [[False] * 4, [False, True, False, False]])
@pytest.mark.parametrize("training", [True, False])
def test_few_or_no_seen_points_give_finite_features(seen, training):
    probe = LinearProbe(in_channels=2, image_channels=2).train(training)
    found = probe(cloud(torch.zeros(4, 2)), FEAT, torch.tensor(seen)).feat
    assert found.isfinite().all() and found[:, 2].tolist() == [float(s) for s in seen]
    assert not found[~torch.tensor(seen)].any()


def test_points_are_dropped_in_training_alone():
    probe = LinearProbe(in_channels=2, image_channels=1, image_drop=0.5)
    given, feat = cloud(torch.zeros(1000, 2)), torch.randn(1000, 1)
    every = torch.ones(1000, dtype=torch.bool)
    assert 400 < probe(given, feat, every).feat[:, 1].sum() < 600
    assert probe.eval()(given, feat, every).feat[:, 1].sum() == 1000


def test_it_is_built_by_name_around_an_encoder_by_name():
    config = {"channels": [4, 4], "layers": [1, 1], "base_channels": 4}
    probe = build_backbone("linear", in_channels=3, encoder="minkunet", encoder_config=config)
    assert probe.out_channels == 4
    assert not any(p.requires_grad for p in probe.parameters())


@pytest.mark.parametrize(
    ("config", "kind", "named"),
    [
        ({}, ValueError, "--images.*--init"),
        ({"encoder": "ptv4"}, UserError, "ptv4"),
        ({"image_channels": 2, "image_pooling": "min"}, ValueError, "image_pooling"),
        ({"image_channels": 2, "depth": 2}, UserError, "'depth'"),
    ],
)
def test_what_it_refuses(config, kind, named):
    with pytest.raises(kind, match=named):
        build_backbone("linear", in_channels=2, **config)


def test_image_features_need_to_say_where_they_are_seen():
    probe = LinearProbe(in_channels=2, image_channels=2)
    with pytest.raises(ValueError, match="image_seen"):
        probe(cloud(torch.zeros(4, 2)), FEAT)
    with pytest.raises(ValueError, match="image_feat"):
        probe(cloud(torch.zeros(4, 2)))
    with pytest.raises(ValueError, match="feat"):
        probe(replace(cloud(torch.zeros(4, 3))), FEAT, SEEN)


def test_it_is_trained_and_saved_as_every_model(tmp_path):
    """Floors whose paint only images show: a linear layer on their features tells the colours apart."""
    from pointseg.models.image_encoder import open_for
    from pointseg.models.trained_model import load_model
    from pointseg.training.train import train
    from tests.pointseg.painted import SEEING, spec

    recipe = replace(
        SEEING, backbone="linear", backbone_config={}, epochs=4, evaluations=1, mix3d=0.0
    )
    result = train(spec(tmp_path, recipe=recipe))
    assert result.score > 0.9
    model, trained = load_model(
        result.best, "cpu", encoder=lambda images: open_for(images, "none")[0]
    )
    assert trained.recipe.backbone == "linear" and isinstance(model.backbone, LinearProbe)
    assert model.backbone.image_norm.running_mean.any()
