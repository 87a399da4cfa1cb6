"""Scenes with their images: which views are used, which points each shows, and the images or their features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.lifting import Last, Nearest, Random, SelectView
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.memory import free_bytes
from pointseg.cloud import Cloud
from pointseg.conventions import CHOOSING_FUSES
from pointseg.datasets.dataset import Dataset
from pointseg.datasets.mixture import Mixture
from pointseg.images.config import ImageConfig
from pointseg.images.preprocess import flip_coordinates, load_images
from pointseg.images.projected import ChosenView, EveryView, Projected
from pointseg.images.projection import candidate_frames, compute_visibility, frames_in_view
from pointseg.images.select_views import select_views
from pointseg.scene import Scene

if TYPE_CHECKING:
    from pointseg.images.features.feature_cache import FeatureCache
    from pointseg.images.readers.frame import Frame, ProvidesFrames

PROJECTION_BYTES = 9
"""Two float32 pixel coordinates and a flag, for each point in each view that is kept."""
ALWAYS_FREE = 100_000_000
"""Scenes that need less memory are never refused, because the amount of free memory is only approximate."""

ChangeFrames = Callable[[str, Sequence["Frame"]], Sequence["Frame"]]
"""From the name of a scene and its selected frames to the frames that are used."""


@dataclass(frozen=True)
class ImageSet:
    """The V views of a scene: their images, or the feature maps of these."""

    images: NDArray[np.uint8] | None
    """(V, 3, H, W) pixels."""
    maps: Tensor | None
    """(V, C, h, w) cached features."""

    def add_to(self, cloud: Cloud) -> Cloud:
        """A batch of one cloud with these views."""
        if self.maps is not None:
            return replace(cloud, image_maps=self.maps[None])
        return replace(cloud, images=torch.from_numpy(self.images)[None])


@dataclass(frozen=True)
class ImageLoader:
    """Selects the views of a scene, projects its points and reads the images."""

    config: ImageConfig
    """How images are used."""
    cache: FeatureCache | None = None
    """Cached features of all images. None: the images themselves are read."""
    change: ChangeFrames | None = None
    """Applied to the selected frames, to simulate camera failures."""
    keep_shown: bool = False
    """Whether ``image_shown`` is added, where one view is chosen for each point."""

    def load(
        self,
        name: str,
        scene: Scene,
        frames: Sequence[Frame],
        rng: np.random.Generator | None = None,
    ) -> tuple[Scene, ImageSet]:
        """A scene with the fields that ``ImageConfig.fields`` names, and its views.

        Where one view per point is fused it is chosen here, so that positions in the others do not travel.

        Args:
            name: of the scene, for messages.
            scene: with coordinates as its file gives them, before augmentation.
            frames: its posed images.
            rng: draws views and those that are dropped, and augments images, in training; None: views evenly
                spread, none dropped, images unchanged.

        Raises:
            UserError: no images or no visible point, unless the recipe allows that; an image that cannot be
                read or is not in the cache; more views than fit into memory.
        """
        scene, selected = self.project_points(name, scene, frames, rng)
        if not selected:
            return self._without_images(name, scene)
        if self.cache is not None:
            return scene, ImageSet(None, self._cached(name, selected))
        height, width = self.config.size
        augment = rng if self.config.augment else None
        images, flipped = load_images(selected, (height, width), rng=augment)
        return flip_coordinates(scene, flipped, width), ImageSet(images, None)

    def project_points(
        self,
        name: str,
        scene: Scene,
        frames: Sequence[Frame],
        rng: np.random.Generator | None = None,
    ) -> tuple[Scene, list[Frame]]:
        """A scene with the fields of :meth:`load`, and the frames that are used.

        Arguments and errors as for :meth:`load`; no image is read. Without frames the scene is unchanged.
        """
        config = self.config
        if self.cache is not None:
            frames = candidate_frames(scene, frames, self.cache.views)
        if config.views is not None and len(frames) > config.views:
            # Most photos of a large site show none of the points: select among the others.
            frames = [frames[i] for i in frames_in_view(scene, frames)] or frames
        allowed = config.allow_missing_images
        selected: list[Frame] = []
        for drawn in (rng, None) if rng is not None else (None,):
            selected = [frames[i] for i in select_views(frames, config.views, drawn)]
            if self.change is not None:
                selected = list(self.change(name, selected))
            if not selected:
                break
            self._check_memory(name, len(scene), len(selected))
            kept = self._not_dropped(selected, rng)
            # A random draw may miss all points; evenly spread views that do so are an error.
            forgiving = allowed or drawn is not None or len(kept) < len(selected)
            found = self._project(scene, kept, rng, forgiving)
            if allowed or found["image_mask"].any():
                return found, kept
            if len(kept) < len(selected):  # a drop is no reason to draw other views
                whole = self._project(scene, selected, None, allowed or drawn is not None)
                if whole["image_mask"].any():
                    return found, kept
        return scene, selected

    def _not_dropped(
        self, selected: Sequence[Frame], rng: np.random.Generator | None
    ) -> list[Frame]:
        """The views that are left in training; the choice among several is made of these."""
        drop = self.config.view_drop
        if rng is None or drop == 0:
            return list(selected)
        kept = rng.random(len(selected)) >= drop
        return [frame for frame, stays in zip(selected, kept, strict=True) if stays]

    def _project(
        self,
        scene: Scene,
        frames: Sequence[Frame],
        rng: np.random.Generator | None,
        none_visible: bool,
    ) -> Scene:
        height, width = self.config.size
        return compute_visibility(
            scene,
            frames,
            self.config.visibility,
            (height, width),
            keep=self._keep(len(scene), len(frames), rng),
            allow_none_visible=none_visible,
        )

    def _keep(self, points: int, views: int, rng: np.random.Generator | None) -> Projected:
        """What is kept of the projection: one view per point where the fusion reads one."""
        choose = _chooser(self.config.fuse, rng)
        if choose is None:
            return EveryView(points, views)
        return ChosenView(points, views, choose, shown=self.keep_shown)

    def _check_memory(self, name: str, points: int, views: int) -> None:
        """Refuse what certainly does not fit: the system kills a program for lack of memory without a message."""
        height, width = self.config.size
        image = int(3 * height * width if self.cache is None else 2 * np.prod(self._map_shape))
        once, each = 0, PROJECTION_BYTES * points + image
        if self.config.chooses_view:  # positions in one view alone are kept
            once, each = PROJECTION_BYTES * points, image
        free, needed = free_bytes(), once + views * each
        if needed > max(free, ALWAYS_FREE):
            raise UserError(
                f"scene {name}: {points} points and {views} images need {needed / 1e9:.1f} GB of memory, "
                f"but only {free / 1e9:.1f} GB are free: use {max(1, (free - once) // each)} images or fewer "
                "(--max-views; in training --override images.views=...; from Python fewer frames), or split the scene"
            )

    @property
    def _map_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a feature map."""
        (height, width), stride = self.config.size, self.config.stride
        return self.config.channels, -(-height // stride), -(-width // stride)

    def _cached(self, name: str, selected: Sequence[Frame]) -> Tensor:
        """(V, C, h, w) features of the selected frames."""
        assert self.cache is not None
        maps = []
        for frame in selected:
            found = self.cache.get(frame)
            if found is None:
                raise UserError(f"scene {name}: {self.cache.explain_missing(frame)}")
            maps.append(found)
        return torch.stack(maps)

    def _without_images(self, name: str, scene: Scene) -> tuple[Scene, ImageSet]:
        """One black view in which no point is visible."""
        dropped = "image_mask" in scene  # all views were
        if not self.config.allow_missing_images and not dropped:
            raise UserError(
                f"scene {name}: has no images; leave it out, or allow such scenes with --allow-missing-images (in "
                "training --override images.allow_missing_images=true)"
            )
        scene = self._keep(len(scene), 1, None).add_to(scene)
        if self.cache is None:
            return scene, ImageSet(np.zeros((1, 3, *self.config.size), np.uint8), None)
        return scene, ImageSet(None, torch.zeros((1, *self._map_shape), dtype=torch.float16))


def _chooser(fuse: str, rng: np.random.Generator | None) -> SelectView | None:
    """What chooses the view of a point; None: all views are fused.

    Args:
        fuse: one of ``FUSES``.
        rng: of training, for random; None: the last view, so that predictions are deterministic.
    """
    if fuse == "nearest":
        return Nearest()
    if fuse == "random" and rng is not None:
        return Random(torch.Generator().manual_seed(int(rng.integers(2**63))))
    return Last() if fuse in CHOOSING_FUSES else None


@dataclass(frozen=True)
class SceneImageLoader:
    """Loads the images of the scenes of a dataset."""

    dataset: Dataset
    """Provides the frames of its scenes."""
    images: ImageLoader
    """Selects, projects and reads them."""

    def __post_init__(self) -> None:
        if not hasattr(self.dataset, "frames"):
            raise UserError(f"the dataset {self.dataset.name} has no images")

    def load(
        self, split: str, name: str, scene: Scene, rng: np.random.Generator | None = None
    ) -> tuple[Scene, ImageSet]:
        """A scene with ``image_coord`` and ``image_mask``, and its views; see :meth:`ImageLoader.load`.

        Args:
            split: of the dataset.
            name: of the scene.
            scene: with coordinates as the dataset gives them, before augmentation.
            rng: for training; None: views evenly spread, images unchanged.
        """
        frames = self._frames(split, name)
        return self._loader(split, name).load(f"{split}/{name}", scene, frames, rng)

    def visible_mask(self, split: str, name: str, scene: Scene) -> NDArray[np.bool_]:
        """(N,) whether a point of a scene is visible in some view; no image is read."""
        frames = self._frames(split, name)
        found, _ = self._loader(split, name).project_points(f"{split}/{name}", scene, frames)
        if "image_mask" not in found:
            return np.zeros(len(scene), np.bool_)
        return np.asarray(found["image_mask"].any(1))

    def _loader(self, split: str, name: str) -> ImageLoader:
        """With the visibility of the scene's own dataset, where there are several."""
        rule = self.dataset.image_config(split, name) if isinstance(self.dataset, Mixture) else None
        if rule is None:
            return self.images
        return replace(self.images, config=self.images.config.with_visibility_of(rule))

    def _frames(self, split: str, name: str) -> Sequence[Frame]:
        return cast("ProvidesFrames", self.dataset).frames(split, name)


def pad_views(clouds: Sequence[Cloud]) -> list[Cloud]:
    """Clouds with equally many views, as a batch needs: black views that show no point are appended."""
    most = max(map(_views, clouds), default=0)
    return [_padded(cloud, most) for cloud in clouds]


def _views(cloud: Cloud) -> int:
    given = cloud.images if cloud.image_maps is None else cloud.image_maps
    return 0 if given is None else given.shape[1]


def _padded(cloud: Cloud, views: int) -> Cloud:
    more = views - _views(cloud)
    if _views(cloud) == 0 or more == 0:
        return cloud
    longer = {}
    names = ["images", "image_maps", "image_shown"]
    if cloud.image_view is None:
        names += ["image_coord", "image_mask"]  # else they are of the chosen view
    for name in names:
        values: Tensor | None = getattr(cloud, name)
        if values is not None:
            shape = (values.shape[0], more, *values.shape[2:])
            longer[name] = torch.cat([values, values.new_zeros(shape)], 1)
    return replace(cloud, **longer)
