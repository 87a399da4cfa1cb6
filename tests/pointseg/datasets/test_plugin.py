"""Datasets of the user's own: what they must have, what they may answer, what their constructor gets."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from dinomed3d.runtime.errors import UserError
from pointseg.config.folder_recipe import fit_to_dataset
from pointseg.config.presets import images_of, recipe_for
from pointseg.config.recipe import Recipe
from pointseg.conventions import DEFAULT_ENCODER
from pointseg.datasets import open_dataset
from pointseg.plugins import PluginError
from pointseg.scene import Scene
from tests.pointseg.tiny import Boxes

NAME = "my_data:Own"


@pytest.fixture
def own(monkeypatch):
    """Makes the class a plug-in."""

    def give(kind: type) -> str:
        module = ModuleType("my_data")
        module.Own = kind
        monkeypatch.setitem(sys.modules, "my_data", module)
        return NAME

    return give


class Own(Boxes):
    """Boxes with a voxel size."""

    voxel_m = 0.1

    def __init__(self) -> None:
        super().__init__()


def spoilt(**attributes: object) -> type:
    return type("Own", (Own,), attributes)


def test_it_is_trained_by_the_recipe_of_folders_at_its_own_voxel_size(own):
    data = open_dataset(own(Own))
    recipe = fit_to_dataset(recipe_for(NAME, "minkunet", "small"), data)
    assert (recipe.dataset, recipe.features, recipe.voxel_m) == (NAME, ("color",), 0.1)
    usual: Recipe = recipe_for("folder", "minkunet", "small")
    assert recipe.augmentation.jitter_m == pytest.approx(5 * usual.augmentation.jitter_m)
    assert (recipe.epochs, recipe.test_splits) == (usual.epochs, ("val",))
    assert images_of(recipe, DEFAULT_ENCODER).size
    assert not hasattr(data, "frames")
    np.testing.assert_array_equal(data.load("val", "val0").coord, Boxes().load("val", "val0").coord)


def test_its_constructor_gets_the_root_if_it_takes_one(own, tmp_path):
    class Rooted(Own):
        def __init__(self, root, scale=1) -> None:
            super().__init__()
            object.__setattr__(self, "root", root)

    assert open_dataset(own(Rooted), tmp_path).inner.root == tmp_path
    for root, named in ((None, "--root"), (tmp_path / "lost", "lost")):
        with pytest.raises(UserError, match=f"{NAME}.*{named}"):
            open_dataset(NAME, root)
    with pytest.raises(UserError, match="--config"):
        open_dataset(NAME, tmp_path, config=tmp_path)
    with pytest.raises(UserError, match="--root"):
        open_dataset(own(Own), tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"load": None}, "load()"),
        ({"scenes": None, "splits": 3}, "splits(), scenes()"),
        ({"__init__": lambda self: 1 / 0}, "ZeroDivisionError"),
        ({"splits": lambda self: "train"}, "splits()"),
        ({"splits": lambda self: ("a", "a")}, "splits()"),
        ({"voxel_m": -1}, "voxel_m"),
        ({"name": property(lambda self: 3), "__init__": lambda self: None}, "name"),
        ({"classes": property(lambda self: ("a", "b")), "__init__": lambda self: None}, "classes"),
        ({"fields": property(lambda self: {"height"}), "__init__": lambda self: None}, "fields"),
    ],
)
def test_what_does_not_fit_is_named_when_it_is_opened(own, change, named):
    with pytest.raises(UserError) as caught:
        open_dataset(own(spoilt(**change)))
    assert NAME in str(caught.value) and named in str(caught.value)


def loading(change):
    return spoilt(load=lambda self, split, scene: change(Boxes().load(split, scene)))


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (loading(lambda scene: 1 / 0), "ZeroDivisionError"),
        (loading(lambda scene: scene.coord), "pointseg.Scene"),
        (loading(lambda scene: scene.without("color")), "color"),
        (loading(lambda scene: scene.with_fields(segment=scene["segment"] + 1)), "0 to 2"),
        (loading(lambda scene: scene.with_fields(segment=scene["segment"] - 1)), "-2 to 0"),
        (loading(lambda scene: replace(scene, coord=scene.coord.astype(float))), "float32"),
        (spoilt(scenes=lambda self, split: [1, 2]), "scenes('val')"),
    ],
)
def test_what_it_loads_is_checked(own, kind, named):
    data = open_dataset(own(kind))
    with pytest.raises(UserError) as caught:
        data.load("val", "val0")
    assert NAME in str(caught.value) and named in str(caught.value)


@pytest.mark.parametrize(("split", "scene"), [("lost", "val0"), ("val", "lost")])
def test_unknown_names_do_not_reach_it(own, split, scene):
    with pytest.raises(UserError, match="lost"):
        open_dataset(own(loading(lambda scene: pytest.fail("reached")))).load(split, scene)


def test_its_frames_are_checked(own):
    class Framed(Own):
        def frames(self, split: str, scene: str):
            return () if scene == "val0" else [Scene(coord=np.zeros((1, 3), np.float32))]

    data = open_dataset(own(Framed))
    assert data.frames("val", "val0") == ()
    with pytest.raises(UserError, match="frames"):
        data.frames("val", "val1")


def test_errors_have_their_cause(own):
    with pytest.raises(PluginError) as caught:
        open_dataset(own(loading(lambda scene: 1 / 0))).load("val", "val0")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
