"""Several datasets of one distillation: each keeps its own visibility and number of views."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dinomed3d.runtime.errors import UserError
from pointseg import datasets
from pointseg.config.presets import images_of, recipe_for
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import override
from pointseg.datasets.mixture import Mixture
from pointseg.images.visibility import VisibilityConfig
from pointseg.training.distillation_datasets import describe_visibility, mix_datasets
from tests.pointseg.painted import Painted

EXTRA = ("s3dis=a", "nuscenes=b")


@pytest.fixture(autouse=True)
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "open_dataset", lambda name, *_, **__: Painted(name=name))


def mixed(extra: tuple[str, ...], *changes: str) -> tuple[Recipe, Mixture]:
    recipe = recipe_for("scannet", "minkunet", "full")
    recipe = replace(recipe, images=images_of(recipe, "vit_small_patch16_dinov3"))
    recipe = override(recipe, changes)
    return recipe, mix_datasets(Painted(name="scannet"), recipe, extra, changes)


def test_each_has_its_own_visibility() -> None:
    recipe, mixture = mixed(EXTRA)
    first, s3dis, nuscenes = (source.images for source in mixture.sources)
    assert recipe.images is not None
    assert recipe.images.visibility == VisibilityConfig(near_m=1.0, far_m=4.0)
    assert first is None and s3dis is not None and nuscenes is not None
    assert s3dis.visibility == VisibilityConfig()
    assert (nuscenes.views, nuscenes.visibility.occlusion) == (None, "none")
    lines = describe_visibility(mixture, recipe)
    assert "480 x 640" in lines[0] and "images.size" in lines[0]
    assert [line.partition(":")[0] for line in lines[1:]] == ["scannet", "s3dis", "nuscenes"]


def test_overrides_are_for_all() -> None:
    recipe, mixture = mixed(EXTRA, "images.views=3", "images.visibility.far_m=9")
    images = [source.images or recipe.images for source in mixture.sources]
    assert [(each.views, each.visibility.far_m) for each in images if each] == [(3, 9.0)] * 3


@pytest.mark.parametrize("extra", ["nothing", "kitty=a", "synthetic=c"])
def test_refused(extra: str) -> None:
    with pytest.raises(UserError, match=extra.partition("=")[0]):
        mixed((extra,))
