"""Distilling images into a backbone, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.mixture import Mixture, SourceDataset
from pointseg.images.visibility import VisibilityConfig
from pointseg.loading.scene_images import ImageLoader, SceneImageLoader
from pointseg.models.checkpoint import read_checkpoint
from pointseg.models.image_encoder import open_for
from pointseg.models.network import build_segmenter
from pointseg.models.pretrained import initial_weights
from pointseg.models.trained_model import load_model
from pointseg.training.tasks.distillation import Distillation
from pointseg.training.train import TrainResult, TrainSpec, train
from tests.pointseg.painted import CLASSES, SEEING, Painted
from tests.pointseg.tiny import RECIPE, Boxes

STUDENT = replace(SEEING, epochs=20)
BARE = replace(STUDENT, images=None)


def spec(
    out: Path, *, dataset: Any = None, datasets: int = 1, cls_token_loss: float = 0.0
) -> TrainSpec:
    assert STUDENT.images is not None
    encoder, images = open_for(STUDENT.images, "none")
    recipe = replace(STUDENT, images=images)
    task = Distillation(recipe, encoder, datasets=datasets, cls_token_loss=cls_token_loss)
    return TrainSpec(dataset=dataset or Painted(colored=True), recipe=recipe, out=out, task=task)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(spec(tmp_path_factory.mktemp("taught")))


def test_the_student_says_what_images_show(taught: TrainResult) -> None:
    assert taught.score > 0.6  # 0.0 at the start
    with (taught.last.parent / "metrics.csv").open(encoding="utf-8") as file:
        assert (
            file.readline().strip()
            == "step,loss,cosine_points,visible,lr,points,seconds,val_cosine"
        )


def test_a_segmenter_starts_from_it_and_needs_no_image(taught: TrainResult, tmp_path: Path) -> None:
    model = build_segmenter(BARE, 2)
    said = initial_weights(taught.last, CLASSES.names, BARE)(model)
    assert said.startswith("distilled backbone from") and "the head is new" in said
    state = read_checkpoint(taught.last, ("pointseg-distilled-1",))["model"]
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[f"backbone.{name}"])

    class Blind(Boxes):
        """Has no frames at all."""

    run = train(
        TrainSpec(
            dataset=Blind(),
            recipe=replace(RECIPE, epochs=1),
            out=tmp_path,
            init=initial_weights(taught.last, Boxes().classes.names, replace(RECIPE)),
        )
    )
    assert load_model(run.best, "cpu")[1].recipe.images is None


def test_what_does_not_fit_is_refused(taught: TrainResult, tmp_path: Path) -> None:
    def started(recipe: Any) -> None:
        initial_weights(taught.last, CLASSES.names, recipe)(build_segmenter(recipe, 2))

    with pytest.raises(UserError, match="was distilled with voxel_m 0.1, this run has 0.2"):
        started(replace(BARE, voxel_m=0.2))
    with pytest.raises(UserError, match="was distilled with features"):
        started(replace(BARE, features=("coord",)))
    with pytest.raises(UserError, match="its backbone differs"):
        started(replace(BARE, backbone_config={**BARE.backbone_config, "base_channels": 8}))
    assert STUDENT.images is not None
    seeing = replace(STUDENT, images=replace(STUDENT.images, channels=24, stride=16))
    with pytest.raises(UserError, match="leave out --images"):
        started(seeing)
    with pytest.raises(UserError, match="train it on labels"):
        load_model(taught.last, "cpu")
    with pytest.raises(UserError, match="'recipe' must have images"):
        Distillation(BARE, None)


def test_a_validation_without_visible_points_has_no_score() -> None:
    task = Distillation(STUDENT, None)
    assert task.scores(torch.tensor([1.0, 2.0]))[0] == {"val_cosine": 0.5}
    with pytest.raises(UserError, match="no point of the validation scenes is visible"):
        task.scores(task.empty_metrics())


@pytest.mark.parametrize(
    "changes", [{"missing_token": True}, {"view_drop": 0.5}, {"pooling": "masked_max"}]
)
def test_what_means_nothing_to_a_teacher_is_refused(changes: dict[str, Any]) -> None:
    """A token, for one, would get no gradient, which ends a run on several devices."""
    assert STUDENT.images is not None
    recipe = replace(STUDENT, images=replace(STUDENT.images, **changes))
    with pytest.raises(UserError, match="has no effect on a frozen teacher"):
        Distillation(recipe, None)


def test_class_tokens_of_images_in_tiles_are_refused() -> None:
    assert STUDENT.images is not None
    recipe = replace(STUDENT, images=replace(STUDENT.images, tile=32))
    Distillation(recipe, None)
    with pytest.raises(UserError, match="--cls-token-loss.*images.tile"):
        Distillation(recipe, None, cls_token_loss=1.0)


def test_resumed_it_is_the_same_run(taught: TrainResult) -> None:
    before = taught.last.read_bytes()
    again = spec(taught.last.parent)
    assert train(replace(again, resume=True)).score == taught.score
    assert taught.last.read_bytes() == before
    other = spec(taught.last.parent, datasets=2)
    with pytest.raises(UserError, match="was distilled on other datasets"):
        train(replace(other, resume=True))


def test_several_datasets_share_the_student(tmp_path: Path) -> None:
    parts = [SourceDataset(Painted(colored=True), ("train",), ("val",)) for _ in range(2)]
    mixture = Mixture(parts)
    assert len(mixture.scenes("train")) == 12 and mixture.name == "painted+painted"
    assert mixture.source("train", "1/train/train3") == 1
    made = spec(tmp_path, dataset=mixture, datasets=2)
    recipe = replace(made.recipe, epochs=2)
    run = train(
        replace(made, recipe=recipe, task=Distillation(recipe, made.task.encoder, datasets=2))  # type: ignore[union-attr]
    )
    state = read_checkpoint(run.last, ("pointseg-distilled-1",))["model"]
    assert state["heads.0.weight"].shape == state["heads.1.weight"].shape == (24, 4)
    assert not torch.equal(state["heads.0.weight"], state["heads.1.weight"])


def test_each_of_several_datasets_has_its_own_visibility() -> None:
    assert STUDENT.images is not None
    near = replace(
        STUDENT.images, visibility=VisibilityConfig(far_m=1.0), views=1, size=(32, 32), fuse="mean"
    )
    some = [("train",), ("val",)]
    mixture = Mixture(
        [SourceDataset(Painted(views=3), *some), SourceDataset(Painted(views=3), *some, near)]
    )
    loader = ImageLoader(replace(STUDENT.images, allow_missing_images=True))
    images = SceneImageLoader(mixture, loader)
    for number, views, seen in ((0, 2, 600), (1, 1, 0)):
        name = f"{number}/train/train0"
        scene = mixture.load("train", name)
        for rng in (None, np.random.default_rng(0)):
            attached, shown = images.load("train", name, scene, rng)
            assert shown.images is not None and len(shown.images) == views
            assert attached["image_mask"].any(1).sum() == seen
            assert shown.images is not None and shown.images.shape[2:] == (64, 64)  # in common
        assert images.visible_mask("train", name, scene).sum() == seen
    assert images.images is loader


def test_whole_images_can_be_learned_too(tmp_path: Path) -> None:
    made = spec(tmp_path, cls_token_loss=0.5)
    recipe = replace(made.recipe, epochs=1)
    task = replace_recipe(made, recipe)
    train(replace(made, recipe=recipe, task=task))
    header, *rows = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    row = dict(zip(header.split(","), rows[0].split(","), strict=True))
    assert float(row["loss"]) == pytest.approx(
        float(row["cosine_points"]) + 0.5 * float(row["cosine_cls"]), abs=1e-5
    )


def test_the_weight_of_whole_images_stays_when_resumed(tmp_path: Path) -> None:
    made = spec(tmp_path, cls_token_loss=0.5)
    recipe = replace(made.recipe, epochs=1)
    task = replace_recipe(made, recipe)
    train(replace(made, recipe=recipe, task=task))
    for other in (50.0, 0.0):
        changed = Distillation(recipe, task.encoder, cls_token_loss=other)
        again = replace(made, recipe=recipe, task=changed, resume=True)
        with pytest.raises(
            UserError,
            match=f"with --cls-token-loss 0.5, this run has {other:g}",
        ):
            train(again)
    train(replace(made, recipe=recipe, task=task, resume=True))
    content = read_checkpoint(tmp_path / "last.pt", ("pointseg-distilled-1",))
    task.check(tmp_path / "last.pt", content)
    before = {**content, "training": {}}  # a file that does not say it
    task.check(tmp_path / "last.pt", before)


def replace_recipe(made: TrainSpec, recipe: Any) -> Distillation:
    assert isinstance(made.task, Distillation)
    return Distillation(recipe, made.task.encoder, cls_token_loss=made.task.cls_token_loss)
