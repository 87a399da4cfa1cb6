"""The distiller: worked by hand, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud, collate
from pointseg.distill import Distiller, cosine_distance
from pointseg.ditr import PointImages
from pointseg.models.network import backbone_of
from tests.pointseg.painted import SEEING

BARE = replace(SEEING, images=None)


def test_cosine_distance_by_hand() -> None:
    prediction = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], requires_grad=True)
    target = torch.tensor([[3.0, 0.0], [0.0, -1.0], [0.0, 5.0]])
    seen = torch.tensor([True, True, False])
    assert cosine_distance(prediction, target, seen).item() == pytest.approx((0 + 2) / 2)
    whole = cosine_distance(prediction, target)
    assert whole.item() == pytest.approx((0 + 2 + 1 - 0.5**0.5) / 3, abs=1e-6)
    none = cosine_distance(prediction, target, torch.zeros(3, dtype=torch.bool))
    none.backward()
    assert none.item() == 0 and prediction.grad is not None and not prediction.grad.any()


def cloud(seed: int, *, maps: torch.Tensor) -> Cloud:
    random = torch.Generator().manual_seed(seed)
    coord = torch.rand(40, 3, generator=random)
    grid = torch.unique((coord * 10).long(), dim=0)
    n = len(grid)
    return Cloud(
        coord=grid.float() / 10,
        grid_coord=grid,
        feat=torch.rand(n, 3, generator=random),
        offset=torch.tensor([n]),
        image_coord=torch.rand(n, 2, 2, generator=random) * 64,
        image_mask=torch.rand(n, 2, generator=random) > 0.3,
        image_maps=maps[None],
    )


def distiller(**changes: int) -> Distiller:
    torch.manual_seed(0)
    images = PointImages(None, channels=5, stride=16, image_size=(64, 64))
    return Distiller(backbone_of(BARE), images, **changes)  # type: ignore[arg-type]


def test_targets_are_what_images_show_and_get_no_gradient() -> None:
    maps = torch.rand(2, 5, 4, 4, requires_grad=True)
    model, given = distiller(), cloud(0, maps=maps)
    taught = model(given)
    assert taught.prediction.shape == taught.target.shape == (len(given), 5)
    target, seen = model.images(given)
    assert torch.equal(taught.target, target) and torch.equal(taught.visible, seen)
    assert not taught.target.requires_grad
    cosine_distance(taught.prediction, taught.target, taught.visible).backward()
    assert maps.grad is None
    assert all(p.grad is not None for p in model.heads.parameters())


def test_each_sample_has_the_head_of_its_dataset() -> None:
    maps = torch.rand(2, 5, 4, 4)
    model = distiller(datasets=2).eval()
    one, two = (replace(cloud(k, maps=maps), source=torch.tensor([k])) for k in (0, 1))
    both = model(collate([one, two]))
    feat = model.backbone(collate([one, two])).feat
    torch.testing.assert_close(both.prediction[: len(one)], model.heads[0](feat[: len(one)]))
    torch.testing.assert_close(both.prediction[len(one) :], model.heads[1](feat[len(one) :]))
    alone = model(two)
    alone.prediction.sum().backward()
    unused = model.heads[0].weight.grad
    assert unused is not None and not unused.any()  # in the sum over devices all the same
    with pytest.raises(UserError, match="'cloud.source'"):
        model(replace(two, source=None))


def test_refused() -> None:
    images = PointImages(None, channels=5, stride=16, image_size=(64, 64))
    with pytest.raises(UserError, match="'backbone'"):
        Distiller(backbone_of(BARE, image_channels=5), images)
    with pytest.raises(ValueError, match="'datasets'"):
        distiller(datasets=0)
    with pytest.raises(UserError, match="--image-cache"):
        distiller(summaries=True)(cloud(0, maps=torch.rand(2, 5, 4, 4)))


def summarising() -> Distiller:
    """It sees pictures, and predicts class tokens as well."""
    from dinomed3d.lifting import build_encoder

    encoder = build_encoder(
        "vit_small_patch16_dinov3", weights="none", embed_dim=24, depth=1, num_heads=2, norm=True
    )
    images = PointImages(encoder, channels=24, stride=16, image_size=(64, 64))
    return Distiller(backbone_of(BARE), images, summaries=True)


def pictures_of(samples: int) -> torch.Tensor:
    return torch.randint(0, 256, (samples, 2, 3, 64, 64), dtype=torch.uint8)


def test_summaries_are_of_the_views_that_show_their_cloud() -> None:
    model = summarising().eval()
    images = model.images
    given = cloud(0, maps=torch.rand(2, 5, 4, 4))
    pictures = pictures_of(1)
    mask = given.image_mask.clone()  # type: ignore[union-attr]
    mask[:, 0] = False
    taught = model(replace(given, image_maps=None, images=pictures, image_mask=mask))
    _, summaries = images.encode_with_cls(pictures[0])
    assert taught.image_target is not None and taught.image_prediction is not None
    torch.testing.assert_close(taught.image_target, summaries[1:])
    mean = model.backbone(given).levels[-1].feat.mean(0)
    torch.testing.assert_close(taught.image_prediction[0], model.summary_head(mean))  # type: ignore[misc]


def test_a_cloud_without_points_has_no_summary_and_no_gradient() -> None:
    model = summarising()
    given = replace(cloud(0, maps=torch.rand(2, 5, 4, 4)), image_maps=None)
    for counts in ([0, len(given)], [len(given), 0]):
        model.zero_grad()
        ends = torch.tensor(counts).cumsum(0)
        taught = model(replace(given, offset=ends, images=pictures_of(2)))
        assert taught.image_prediction is not None and taught.image_target is not None
        assert len(taught.image_prediction) == len(taught.image_target) == 2
        cosine_distance(taught.image_prediction, taught.image_target).backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        assert grads and all(grad.isfinite().all() for grad in grads)
