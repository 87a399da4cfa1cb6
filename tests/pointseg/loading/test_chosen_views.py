"""Views that the loader chooses give the features that all views give, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from dinomed3d.lifting import Last
from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.distill import DistillationOutput, Distiller
from pointseg.images.readers.frame import Frame
from pointseg.loading import scene_images
from pointseg.loading.samples import Samples, join, or_raise
from pointseg.loading.scene_images import ImageLoader
from pointseg.models.image_encoder import open_for
from pointseg.models.network import backbone_of, point_images
from pointseg.training.step.mix3d import mix3d
from tests.pointseg.painted import SEEING, Paint, Painted, above

IMAGES = replace(SEEING.images, views=5, augment=True)  # type: ignore[arg-type]
RECIPE = replace(SEEING, images=IMAGES)


@dataclass(frozen=True)
class Around(Painted):
    """Three to six cameras in a row, each with another picture; each sees a part of the floor."""

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        number = self._number(split, scene)
        return tuple(self._in_a_row(f"{scene}-{k}", 10 * number + k) for k in range(3 + number % 4))

    @staticmethod
    def _in_a_row(name: str, number: int) -> Frame:
        frame = above(name, number)
        pose = frame.camera.world_to_camera.clone()
        pose[:2, 3] += torch.from_numpy(np.random.default_rng(number).uniform(-0.8, 0.8, 2))
        return replace(
            frame, camera=replace(frame.camera, world_to_camera=pose), image=Paint(number)
        )


def batch(recipe: Any = RECIPE, *, keep_shown: bool = False, step: int = 0) -> Cloud:
    """Four scenes with different numbers of views, two of them merged."""
    samples = Samples(Around(), recipe, training=True, seed=3, keep_shown=keep_shown)
    cloud = or_raise(join([samples[step, index] for index in range(4)]))
    assert cloud.images is not None
    return mix3d(cloud, 1.0, np.random.default_rng(0))


@pytest.fixture
def all_views(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Turns the choice of views off: all of them travel, and the network takes the last one."""

    def travel() -> None:
        monkeypatch.setattr(scene_images, "_chooser", lambda fuse, rng: None)

    return travel


@pytest.mark.parametrize("sample", ["nearest", "bilinear"])
def test_features_are_equal_to_the_bit(sample: str, all_views: Any) -> None:
    encoder, images = open_for(replace(IMAGES, sample=sample), "none")
    recipe = replace(RECIPE, images=images)
    chosen = [batch(recipe, step=step) for step in range(3)]
    all_views()
    whole = [batch(recipe, step=step) for step in range(3)]
    network = point_images(images, encoder)
    for one, many in zip(chosen, whole, strict=True):
        assert one.image_view is not None and one.image_coord.shape == (len(one), 1, 2)  # type: ignore[union-attr]
        assert many.image_view is None and many.image_coord.shape[1] == 5  # type: ignore[union-attr]
        assert torch.equal(one.images, many.images) and torch.equal(one.coord, many.coord)  # type: ignore[arg-type]
        # several views see many a point, so that the choice matters
        assert (many.image_mask.sum(1) > 1).float().mean() > 0.2  # type: ignore[union-attr]
        found, seen = network(one)
        wanted, seen_too = network(many)
        assert torch.equal(found, wanted) and torch.equal(seen, seen_too) and not seen.all()


def test_no_more_travels_than_one_view() -> None:
    def travelling(cloud: Cloud) -> int:
        fields = (cloud.image_coord, cloud.image_mask, cloud.image_view, cloud.image_shown)
        return sum(f.numel() * f.element_size() for f in fields if f is not None)

    cloud = batch()
    assert travelling(cloud) == 11 * len(cloud)
    averaged = batch(replace(RECIPE, images=replace(IMAGES, fuse="mean")))
    assert travelling(averaged) == 9 * 5 * len(averaged)


def test_class_tokens_are_of_all_views_that_show_a_point(all_views: Any) -> None:
    encoder, images = open_for(replace(IMAGES, size=(32, 32)), "none")
    recipe = replace(RECIPE, images=images)

    def output(**given: Any) -> DistillationOutput:
        torch.manual_seed(0)
        student = backbone_of(replace(recipe, images=None))
        network = Distiller(student, point_images(images, encoder), summaries=True)
        found: DistillationOutput = network.eval()(batch(recipe, **given))
        return found

    with pytest.raises(UserError, match="'image_shown'"):
        output()
    chosen = output(keep_shown=True)
    all_views()
    for one, many in zip(chosen, output(), strict=True):
        assert torch.equal(one, many)


def project(drop: float, frames: Sequence[Frame], seed: int) -> tuple[Any, list[Frame]]:
    loader = ImageLoader(replace(IMAGES, view_drop=drop, views=None))
    scene = Around().load("train", "train3")
    return loader.project_points("train3", scene, frames, np.random.default_rng(seed))


def test_points_of_a_dropped_view_take_another_one() -> None:
    """As if the dropped views did not exist; whole views are dropped, each with the same probability."""
    frames = Around().frames("train", "train3")
    counts = []
    for seed in range(60):
        scene, kept = project(0.3, frames, seed)
        counts.append(len(kept))
        if not kept:
            continue
        alone, _ = project(0, kept, 0)
        for name in ("image_view", "image_coord", "image_mask"):
            assert (scene[name] == alone[name]).all()
    assert np.mean(counts) / len(frames) == pytest.approx(0.7, abs=0.06)
    assert len(project(0, frames, 0)[1]) == len(frames)
    loader = ImageLoader(replace(IMAGES, view_drop=0.99, views=None))
    outside_training, _ = loader.project_points("", Around().load("train", "train3"), frames)
    assert (outside_training["image_view"] == project(0, frames, 0)[0]["image_view"]).all()


@pytest.mark.parametrize("fuse", ["last", "mean"])
def test_when_all_views_are_dropped_no_point_is_seen(fuse: str) -> None:
    loader = ImageLoader(replace(IMAGES, view_drop=1 - 1e-9, fuse=fuse))
    scene, views = loader.load(
        "train3",
        Around().load("train", "train3"),
        Around().frames("train", "train3"),
        np.random.default_rng(0),
    )
    assert views.images is not None and views.images.shape[0] == 1 and not views.images.any()
    assert scene["image_mask"].shape == (len(scene), 1) and not scene["image_mask"].any()


def test_a_drop_is_no_reason_to_draw_other_views() -> None:
    """One view sees the floor, the other nothing: without the first, nothing is seen, and that is right."""
    away = above("away", 1)
    pose = away.camera.world_to_camera.clone()
    pose[0, 3] = 100
    frames = (above("good", 0), replace(away, camera=replace(away.camera, world_to_camera=pose)))
    outcomes = {
        (tuple(f.name for f in kept), bool(scene["image_mask"].any()))
        for scene, kept in (project(0.5, frames, seed) for seed in range(40))
    }
    assert {names for names, _ in outcomes} == {(), ("good",), ("away",), ("good", "away")}
    assert all(seen == ("good" in names) for names, seen in outcomes)
    with pytest.raises(UserError, match="none of its 600 points"):  # not even without a drop
        project(0.5, frames[1:], 1)


@pytest.mark.parametrize(
    ("fuse", "training", "kind"),
    [
        ("last", True, "Last"), ("random", True, "Random"), ("random", False, "Last"),
        ("nearest", True, "Nearest"), ("nearest", False, "Nearest"),
        ("mean", True, "NoneType"), ("max", False, "NoneType"),
    ],
)  # fmt: skip
def test_who_chooses(fuse: str, training: bool, kind: str) -> None:
    rng = np.random.default_rng(0) if training else None
    assert type(scene_images._chooser(fuse, rng)).__name__ == kind


def test_random_choices_differ_from_step_to_step() -> None:
    recipe = replace(RECIPE, images=replace(IMAGES, fuse="random", augment=False, views=None))
    samples = Samples(Around(), recipe, training=True, seed=3)
    one, again, other = (or_raise(samples[step, 3]).image_view for step in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)  # type: ignore[arg-type]
    assert isinstance(scene_images._chooser("last", None), Last)
