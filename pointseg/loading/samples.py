"""Scenes for the training and validation loops: loaded, augmented, voxel-sampled, batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud, collate
from pointseg.config.recipe import Recipe
from pointseg.datasets.dataset import Dataset
from pointseg.datasets.mixture import Mixture
from pointseg.loading.scene_images import ImageLoader, SceneImageLoader, pad_views
from pointseg.loading.to_cloud import to_cloud
from pointseg.scene import Scene
from pointseg.transforms import Compose, Transform, evaluation, indoor, outdoor

if TYPE_CHECKING:
    from pointseg.images.features.feature_cache import FeatureCache

VALIDATION_SEED = 2**31
"""Seed of the point drawn from each voxel in validation; the same in every round and every run."""


class UnusableScene(UserError):
    """A scene that ends a run when its turn comes."""

    def __init__(self, reason: str, split: str, name: str) -> None:
        super().__init__(reason, split, name)
        self.reason = reason
        """What is wrong with it, and what to do."""
        self.scene = (split, name)
        """Its split and name."""

    def __str__(self) -> str:
        return self.reason


class Samples(TorchDataset[Cloud | UserError]):
    """Scenes of some splits as input of a network; errors are returned, not raised.

    A worker of a data loader would wrap the message of an error into its traceback; returned as a value
    it reaches the user unchanged.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        training: bool,
        seed: int,
        cache: FeatureCache | None = None,
        labelled: bool = True,
        keep_shown: bool = False,
    ) -> None:
        """List the scenes.

        Args:
            dataset: has the splits of the recipe.
            recipe: how scenes are changed and sampled.
            training: whether the scenes of the training splits are augmented; else those for validation.
            seed: of what is drawn at random in training.
            cache: cached features of the images; None: the images themselves are read.
            labelled: whether scenes must have labels.
            keep_shown: whether clouds say which views show some of their points.

        Raises:
            UserError: the splits hold no scene; a recipe with images for a dataset without.
        """
        self.dataset, self.recipe, self.seed, self.training = dataset, recipe, seed, training
        self.labelled = labelled
        images = recipe.images
        self.images = None
        if images is not None:
            loader = ImageLoader(images, cache, keep_shown=keep_shown)
            self.images = SceneImageLoader(dataset, loader)
        splits = recipe.train_splits if training else recipe.val_splits
        self.scenes = [(split, name) for split in splits for name in dataset.scenes(split)]
        if not self.scenes:
            raise UserError(f"{dataset.name}: the splits {', '.join(splits)} hold no scene")
        self.steps = training_steps(recipe) if training else validation_steps(recipe)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, item: tuple[int, int]) -> Cloud | UserError:
        """The scene with number ``item[1]``; ``item[0]`` seeds what is drawn at random."""
        number, index = item
        split, name = self.scenes[index]
        seed = [self.seed, number] if self.training else [VALIDATION_SEED, index]
        rng, views = np.random.default_rng(seed), None
        try:
            scene = usable(self.dataset.load(split, name), self.recipe, labelled=self.labelled)
            if self.images is not None:  # before augmentation moves the points
                drawn = rng if self.training else None
                scene, views = self.images.load(split, name, scene, drawn)
            scene = self._steps(split, name)(scene, rng)
        except UserError as error:
            return UnusableScene(str(error), split, name)
        except ValueError as error:  # from a transform that the scene does not fit
            return UnusableScene(f"scene {split}/{name}: {error}", split, name)
        cloud = to_cloud(scene, self.recipe)
        if isinstance(self.dataset, Mixture):
            cloud = replace(cloud, source=torch.tensor([self.dataset.source(split, name)]))
        return cloud if views is None else views.add_to(cloud)

    def _steps(self, split: str, name: str) -> Compose:
        """The transforms of a scene: those of its own dataset, where there are several."""
        mixed = self.dataset if isinstance(self.dataset, Mixture) else None
        own = None if mixed is None else mixed.sample_steps(split, name)
        if own is None:
            return self.steps
        return own.training if self.training else own.validation


def join(samples: Sequence[Cloud | UserError]) -> Cloud | UserError:
    """One batch, or the first error among the samples."""
    errors = [sample for sample in samples if isinstance(sample, UserError)]
    return errors[0] if errors else collate(pad_views([s for s in samples if isinstance(s, Cloud)]))


def or_raise(found: Cloud | UserError) -> Cloud:
    """A cloud, or the error that took its place.

    Raises:
        UserError: it is one.
    """
    if isinstance(found, UserError):
        raise found
    return found


def usable(scene: Scene, recipe: Recipe, *, labelled: bool = True) -> Scene:
    """A scene reduced to the fields that training uses.

    Raises:
        UserError: no points, positions that are not finite, a feature or the labels are missing.
    """
    if len(scene) == 0:
        raise UserError(f"scene {scene.name}: holds no points")
    if not np.isfinite(scene.coord).all():
        bad = int((~np.isfinite(scene.coord).all(1)).sum())
        raise UserError(f"scene {scene.name}: {bad} points have positions that are not finite")
    missing = [name for name in recipe.needs if name not in scene]
    if missing:
        raise UserError(
            f"scene {scene.name}: lacks {', '.join(missing)}, which the network reads; "
            f"leave it out with --override features=..."
        )
    if labelled and "segment" not in scene:
        raise UserError(f"scene {scene.name}: has no labels ('segment') to train or validate with")
    kept = {*recipe.needs, *(("segment",) if labelled else ())}
    return scene.without(*(key for key in scene.fields if key not in kept))


def training_steps(recipe: Recipe) -> Compose:
    """The transforms of a training scene, in the order of PTv3's configurations (Wu et al., CVPR 2024)."""
    steps = (
        indoor(
            recipe.augmentation,
            voxel_m=recipe.voxel_m,
            max_points=recipe.max_points,
            sphere_fraction=recipe.sphere_fraction,
            has_color="color" in recipe.needs,
        )
        if recipe.is_indoor
        else outdoor(
            recipe.augmentation,
            voxel_m=recipe.voxel_m,
            max_points=recipe.max_points,
            clip_box_m=recipe.clip_box_m,
            drop_outside=recipe.drop_outside,
        )
    )
    return _placed(steps, recipe)


def validation_steps(recipe: Recipe) -> Compose:
    """One random point per voxel of the whole scene, without augmentation."""
    steps = evaluation(
        voxel_m=recipe.voxel_m,
        center=recipe.is_indoor,
        clip_box_m=recipe.clip_box_m,
        drop_outside=recipe.drop_outside,
    )
    return _placed(steps, recipe)


def _placed(steps: Sequence[Transform], recipe: Recipe) -> Compose:
    """The transforms, between what is done with whole scenes and with samples that a network reads."""
    return Compose((*recipe.input.before, *steps, *recipe.input.after))
