"""Several datasets of one distillation: each keeps its own visibility and number of views."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dinomed3d.runtime.errors import UserError
from pointseg import datasets
from pointseg.config.presets import images_of, recipe_for
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import override
from pointseg.datasets.mixture import Mixture, SourceDataset
from pointseg.images.visibility import VisibilityConfig
from pointseg.loading.samples import Samples, or_raise
from pointseg.training.tasks.distillation_datasets import _steps, describe_datasets, mix_datasets
from pointseg.transforms.select import SphereCrop
from tests.pointseg.painted import Painted

EXTRA = ("s3dis=a", "nuscenes=b")
FIELDS = frozenset({"color", "normal"})


@pytest.fixture(autouse=True)
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        datasets, "open_dataset", lambda name, *_, **__: Painted(name=name, fields=FIELDS)
    )


def mixed(extra: tuple[str, ...], *changes: str) -> tuple[Recipe, Mixture]:
    recipe = recipe_for("scannet", "minkunet", "full")
    recipe = replace(recipe, images=images_of(recipe, "vit_small_patch16_dinov3"))
    recipe = override(recipe, changes)
    return recipe, mix_datasets(Painted(name="scannet", fields=FIELDS), recipe, extra, changes)


def test_each_has_its_own_visibility() -> None:
    recipe, mixture = mixed(EXTRA)
    first, s3dis, nuscenes = (source.images for source in mixture.sources)
    assert recipe.images is not None
    assert recipe.images.visibility == VisibilityConfig(near_m=1.0, far_m=4.0)
    assert first is None and s3dis is not None and nuscenes is not None
    assert s3dis.visibility == VisibilityConfig()
    assert (nuscenes.views, nuscenes.visibility.occlusion) == (None, "none")
    lines = describe_datasets(mixture, recipe)
    assert "416 x 560" in lines[0] and "images.size" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["scannet", "s3dis", "nuscenes"]


def test_overrides_are_for_all() -> None:
    recipe, mixture = mixed(EXTRA, "images.views=3", "images.visibility.far_m=9")
    images = [source.images or recipe.images for source in mixture.sources]
    assert [(each.views, each.visibility.far_m) for each in images if each] == [(3, 9.0)] * 3


def test_each_has_its_own_crops_and_splits() -> None:
    """ScanNet's 102,400 points, S3DIS's 204,800 of 60 %, Structured3D's of 80 % of all its splits."""
    _, mixture = mixed(("s3dis=a", "structured3d=b"))
    crops = []
    for source in mixture.sources:
        assert source.steps is not None and "0.02 m" in source.steps.in_words
        cut = [step for step in source.steps.training.steps if isinstance(step, SphereCrop)]
        crops.append((cut[-1].max_points, min(step.fraction for step in cut)))
    assert crops == [(102_400, 1.0), (204_800, 0.6), (204_800, 0.8)]
    rooms = mixture.sources[2]
    assert (rooms.train, rooms.val) == (("train", "val", "test"), ())
    assert rooms.images is not None and rooms.images.views == 3
    assert "2/test/test1" in mixture.scenes("train")
    assert not any(name.startswith("2/") for name in mixture.scenes("val"))


def test_samples_are_made_by_the_steps_of_their_dataset() -> None:
    """Scenes of 600 points in 2 m x 2 m: crops of 30 points at most, of all, and of a tenth; larger voxels."""
    recipe, mixture = mixed(("s3dis=a", "structured3d=b"), "features=color")
    assert recipe.images is not None
    recipe = replace(recipe, images=None, train_splits=("train",), val_splits=("val",))
    sources = [
        replace(source, steps=_steps(replace(recipe, voxel_m=voxel, **crop)))
        for source, voxel, crop in zip(
            mixture.sources,
            (0.02, 0.5, 0.02),
            ({"max_points": 30}, {}, {"sphere_fraction": 0.1}),
            strict=True,
        )
    ]
    train, val = sizes(sources, recipe, training=True), sizes(sources, recipe, training=False)
    assert train[0] == 30 and train[1] <= 40 and 40 <= train[2] <= 60
    assert val[0] > 500 and val[1] <= 25 and 2 not in val


def sizes(sources: list[SourceDataset], recipe: Recipe, *, training: bool) -> dict[int, int]:
    """Points of the first sample of each dataset."""
    samples = Samples(Mixture(sources), recipe, training=training, seed=0, labelled=False)
    first = {int(name[0]): n for n, (_, name) in reversed(list(enumerate(samples.scenes)))}
    return {number: len(or_raise(samples[0, index]).coord) for number, index in first.items()}


@pytest.mark.parametrize("extra", ["nothing", "kitty=a", "synthetic=c"])
def test_refused(extra: str) -> None:
    with pytest.raises(UserError, match=extra.partition("=")[0]):
        mixed((extra,))
