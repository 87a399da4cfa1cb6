"""Scenes with their images: which views, what each shows, and the images or what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.memory import free_bytes
from pointseg.cloud import Cloud
from pointseg.datasets.dataset import Dataset
from pointseg.datasets.mixture import Mixture
from pointseg.images.config import ImageConfig
from pointseg.scene import Scene

if TYPE_CHECKING:
    from pointseg.images.features.feature_cache import FeatureCache
    from pointseg.images.readers.frame import Frame, ProvidesFrames

BYTES_PER_SIGHT = 9
"""Two float32 and a flag: where one view shows one point."""
ALWAYS_FREE = 100_000_000
"""Less is never refused for lack of memory: what systems say is free, is so only roughly."""

Change = Callable[[str, Sequence["Frame"]], Sequence["Frame"]]
"""Of a scene's chosen frames; tests make cameras fail with it."""


@dataclass(frozen=True)
class Views:
    """The V views of a scene: their images, or the feature maps of these."""

    images: NDArray[np.uint8] | None
    """(V, 3, H, W)"""
    maps: Tensor | None
    """(V, C, h, w)"""

    def given_to(self, cloud: Cloud) -> Cloud:
        """A batch of one cloud with these views."""
        if self.maps is not None:
            return replace(cloud, image_maps=self.maps[None])
        return replace(cloud, images=torch.from_numpy(self.images)[None])


@dataclass(frozen=True)
class Showing:
    """Gives scenes their views."""

    recipe: ImageConfig
    cache: FeatureCache | None = None
    """Where the features of all images are; None: the images themselves are read."""
    change: Change | None = None
    """What happens to frames before they are used."""

    def of(
        self,
        who: str,
        scene: Scene,
        frames: Sequence[Frame],
        rng: np.random.Generator | None = None,
    ) -> tuple[Scene, Views]:
        """A scene with ``image_coord`` and ``image_mask``, and its views.

        Args:
            who: its name in messages.
            scene: with coordinates as its file gives them, not varied yet.
            frames: its posed images.
            rng: draws views and varies images, for training; None: views evenly spread, images as they are.

        Raises:
            UserError: no images or no point seen, unless the recipe allows that; an image that cannot be
                read or is not in the cache; more views than the memory has room for.
        """
        from pointseg.images.preprocess import flip_coordinates, load_images

        scene, chosen = self.seen(who, scene, frames, rng)
        if not chosen:
            return self._unseen(who, scene)
        height, width = self.recipe.size
        if self.cache is not None:
            return scene, Views(None, self._maps(who, chosen))
        varied = rng if self.recipe.augment else None
        images, flipped = load_images(chosen, (height, width), rng=varied)
        return flip_coordinates(scene, flipped, width), Views(images, None)

    def seen(
        self,
        who: str,
        scene: Scene,
        frames: Sequence[Frame],
        rng: np.random.Generator | None = None,
    ) -> tuple[Scene, list[Frame]]:
        """A scene with ``image_coord`` and ``image_mask`` in the views that are used, and these.

        Arguments and errors as of ``of``; no image is read. Without any view the scene is as it was.
        """
        from pointseg.images.projection import candidate_frames, compute_visibility, frames_in_view
        from pointseg.images.select_views import select_views

        recipe = self.recipe
        if self.cache is not None:
            frames = candidate_frames(scene, frames, self.cache.views)
        if recipe.views is not None and len(frames) > recipe.views:
            # Views that see none of the points, as of a photo flight over many tiles, are no choice.
            frames = [frames[i] for i in frames_in_view(scene, frames)] or frames
        allowed = recipe.allow_unseen
        chosen: list[Frame] = []
        for drawn in (rng, None) if rng is not None else (None,):
            chosen = [frames[i] for i in select_views(frames, recipe.views, drawn)]
            if self.change is not None:
                chosen = list(self.change(who, chosen))
            if not chosen:
                break
            self._require_room(who, len(scene), len(chosen))
            # A blind draw is no fault of the scene; that views all over it see nothing is.
            scene = compute_visibility(
                scene,
                chosen,
                recipe.visibility,
                (recipe.size[0], recipe.size[1]),
                allow_unseen=allowed or drawn is not None,
            )
            if allowed or scene["image_mask"].any():
                break
        return scene, chosen

    def _require_room(self, who: str, points: int, views: int) -> None:
        """Refuse what is sure not to fit: systems end a program for lack of memory without a word."""
        height, width = self.recipe.size
        if self.cache is None:
            image = 3 * height * width
        else:
            cells = -(-height // self.recipe.stride) * -(-width // self.recipe.stride)
            image = 2 * cells * self.recipe.channels
        each = BYTES_PER_SIGHT * points + image
        free = free_bytes()
        if views * each > max(free, ALWAYS_FREE):
            raise UserError(
                f"scene {who}: where {points} points lie in {views} images, and these, take "
                f"{views * each / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: take {max(1, free // each)} "
                "images or fewer (--image-views; in training --override images.views=...), or cut the "
                "scene into smaller ones"
            )

    def _maps(self, who: str, chosen: Sequence[Frame]) -> Tensor:
        assert self.cache is not None
        maps = []
        for frame in chosen:
            found = self.cache.get(frame)
            if found is None:
                raise UserError(f"scene {who}: {self.cache.explain_missing(frame)}")
            maps.append(found)
        return torch.stack(maps)

    def _unseen(self, who: str, scene: Scene) -> tuple[Scene, Views]:
        """One black view that shows nothing."""
        if not self.recipe.allow_unseen:
            raise UserError(
                f"scene {who}: has no images; leave it out, or allow such scenes with --allow-unseen (in "
                "training --override images.allow_unseen=true)"
            )
        scene = scene.with_fields(
            image_coord=np.zeros((len(scene), 1, 2), np.float32),
            image_mask=np.zeros((len(scene), 1), bool),
        )
        height, width = self.recipe.size
        if self.cache is None:
            return scene, Views(np.zeros((1, 3, height, width), np.uint8), None)
        stride, channels = self.recipe.stride, self.recipe.channels
        shape = (1, channels, -(-height // stride), -(-width // stride))
        return scene, Views(None, torch.zeros(shape, dtype=torch.float16))


@dataclass(frozen=True)
class SceneImageLoader:
    """Gives the scenes of a dataset their views."""

    dataset: Dataset
    showing: Showing

    def __post_init__(self) -> None:
        if not hasattr(self.dataset, "frames"):
            raise UserError(f"the dataset {self.dataset.name} has no images")

    def attach(
        self, split: str, name: str, scene: Scene, rng: np.random.Generator | None = None
    ) -> tuple[Scene, Views]:
        """A scene as it lies in the dataset with ``image_coord`` and ``image_mask``, and its views.

        Args:
            split: of the dataset.
            name: of the scene.
            scene: with coordinates as the dataset gives them, not varied yet.
            rng: draws views and varies images, for training; None: views evenly spread, images as they are.

        Raises:
            UserError: no images or no point seen, unless the recipe allows that; an image that cannot be
                read or is not in the cache.
        """
        frames = self._frames(split, name)
        return self._showing(split, name).of(f"{split}/{name}", scene, frames, rng)

    def shown(self, split: str, name: str, scene: Scene) -> NDArray[np.bool_]:
        """(N,) whether some view shows a point of a scene; no image is read."""
        frames = self._frames(split, name)
        seen, _ = self._showing(split, name).seen(f"{split}/{name}", scene, frames)
        if "image_mask" not in seen:
            return np.zeros(len(scene), np.bool_)
        return np.asarray(seen["image_mask"].any(1))

    def _showing(self, split: str, name: str) -> Showing:
        """By the rule of the dataset that a scene is of, where there are several."""
        rule = self.dataset.image_config(split, name) if isinstance(self.dataset, Mixture) else None
        if rule is None:
            return self.showing
        return replace(self.showing, recipe=self.showing.recipe.with_visibility_of(rule))

    def _frames(self, split: str, name: str) -> Sequence[Frame]:
        return cast("ProvidesFrames", self.dataset).frames(split, name)


def pad_views(clouds: Sequence[Cloud]) -> list[Cloud]:
    """Clouds with equally many views: black ones that show nothing are added.

    Source: section 2.1 of the method's description.
    """
    most = max((0 if c.image_mask is None else c.image_mask.shape[1] for c in clouds), default=0)
    return [_padded(cloud, most) for cloud in clouds]


def _padded(cloud: Cloud, views: int) -> Cloud:
    mask, coord = cloud.image_mask, cloud.image_coord
    if mask is None or coord is None or mask.shape[1] == views:
        return cloud
    more = views - mask.shape[1]

    def longer(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        shape = (values.shape[0], more, *values.shape[2:])
        return torch.cat([values, values.new_zeros(shape)], 1)

    return replace(
        cloud,
        image_coord=longer(coord),
        image_mask=longer(mask),
        images=longer(cloud.images),
        image_maps=longer(cloud.image_maps),
    )
