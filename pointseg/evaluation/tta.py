"""Classes for all points of a scene: scores summed over fragments and views (section 2.13 of the method's text)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.out_of_memory import ran_out_of_memory
from pointseg.cloud import Cloud, collate
from pointseg.config.recipe import Protocol, Recipe
from pointseg.evaluation.tiling import tiles
from pointseg.files.origin import finite_points
from pointseg.loading.scene_images import Views
from pointseg.loading.to_cloud import to_cloud
from pointseg.ops.voxels import Fragments, Voxels, voxel_downsample, voxelize
from pointseg.scene import IGNORE, Scene
from pointseg.training.memory import max_voxels
from pointseg.transforms import TTA_SETS, CenterShift, ClampToBox, TestAugmentation

FEWEST = 4096
"""Voxels at once below which memory is not tried any further."""
SCORES = 200_000_000
"""Numbers that the sums of one tile may hold: 0.8 GB."""
WIDEST = 40_000
"""Voxels along the side of a tile; a network's grid has 65,536, and views turn and stretch tiles."""
MOST_FRAGMENTS = 100
"""Of one view. Only clouds with heaps of points in one voxel have more."""

PRECISIONS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class InferenceProtocol:
    """Which passes through the network a scene takes."""

    protocol: Protocol
    fast: bool = False
    """One view and one point of each voxel, the nearest to its centre, which names the others."""
    most_fragments: int = MOST_FRAGMENTS
    """Of one view; points in none of them take the scores of a point of their voxel."""

    def __post_init__(self) -> None:
        if self.most_fragments < 1:
            raise UserError(f"'most_fragments' must be >= 1, got {self.most_fragments}")

    @property
    def views(self) -> tuple[TestAugmentation, ...]:
        """What is done to the scene, one after the other."""
        return TTA_SETS["single" if self.fast else self.protocol.views]


class TestTimePredictor:
    """A trained network that names the points of whole scenes, in tiles where they are large.

    When memory runs out, the number of voxels at once is halved, and stays so for the scenes to come.
    """

    __test__ = False  # pytest would take the class for a test

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        classes: int,
        passes: InferenceProtocol,
        *,
        device: str = "cpu",
        precision: str = "float32",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"Voter: 'precision' must be one of {', '.join(PRECISIONS)}, got {precision}"
            )
        self.model, self.recipe, self.classes, self.passes = model, recipe, classes, passes
        self.device, self.precision, self.say = torch.device(device), precision, say
        self.max_points = passes.protocol.max_points
        """Voxels that go through the network at once."""
        if self.device.type == "cpu" and max_voxels() < self.max_points:
            self.max_points = min(self.max_points, max(FEWEST, max_voxels()))
            say(f"the free memory has room for {self.max_points} voxels at once")

    def predict_labels(
        self,
        scene: Scene,
        progress: Callable[[float], None] = lambda share: None,
        views: Views | None = None,
    ) -> NDArray[np.int32]:
        """The class of every point.

        Args:
            scene: N points with the fields that the recipe's features are made of, and, where the recipe
                has images, with ``image_coord`` and ``image_mask``.
            progress: told now and then which share of the work is done.
            views: what ``image_coord`` is of, where the recipe has images. Each image is encoded once.

        Returns:
            (N,) classes; IGNORE for points whose position is not finite.

        Raises:
            UserError: a field is missing or not finite, the memory does not suffice for even a few
                thousand voxels, or the voxels are too fine for the cloud.
        """
        needed = self.recipe.needs
        if self.recipe.images is not None:
            needed = (*needed, "image_coord", "image_mask")
            if views is None:
                raise UserError(
                    f"scene {scene.name}: has no images, which the model reads beside the points"
                )
        if missing := [name for name in needed if name not in scene]:
            raise UserError(
                f"scene {scene.name}: lacks {', '.join(missing)}, which the model needs"
            )
        labels = np.full(len(scene), IGNORE, np.int32)
        bare = scene.without(*(key for key in scene.fields if key not in needed))
        finite, index = finite_points(bare)
        for name in needed:
            if not np.isfinite(finite[name]).all():
                raise UserError(f"scene {scene.name}: '{name}' has values that are not finite")
        if len(index):
            try:
                labels[index] = self._whole(finite, progress, self._encoded(views))
            except UserError:
                raise
            except (
                ValueError
            ) as error:  # what voxels and transforms say of a cloud that does not fit
                raise UserError(f"scene {scene.name}: {error}") from error
        progress(1.0)
        return labels

    def _encoded(self, views: Views | None) -> Tensor | None:
        """(V, C, h, w) features of a scene's images, shared by all that is cut from it."""
        if views is None:
            return None
        if views.maps is not None:
            return views.maps.to(self.device)
        images = torch.from_numpy(views.images).to(self.device)
        try:
            with torch.inference_mode(), self._autocast():
                return self.model.images.encode(images)  # type: ignore[union-attr, operator, no-any-return]
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
        raise UserError(
            f"out of memory while {len(images)} images of {images.shape[2]} x {images.shape[3]} pixels were "
            "encoded; use fewer (--image-views), features made before (pointseg-cache-features), or --device cpu"
        )

    def _whole(
        self, scene: Scene, progress: Callable[[float], None], maps: Tensor | None
    ) -> NDArray[np.int32]:
        """(N,) classes of a scene whose points are all finite."""
        scene = self._placed(scene)
        thinned_to = self.passes.protocol.prevoxel_m
        if thinned_to is not None and not self.passes.fast:
            scene, inverse = voxel_downsample(scene, thinned_to)
            return self._tiled(scene, progress, maps)[inverse]
        return self._tiled(scene, progress, maps)

    def _placed(self, scene: Scene) -> Scene:
        """Where training would have put it: rooms centred, LiDAR scans within their box."""
        rng = np.random.default_rng(0)  # neither draws from it
        if self.recipe.setting == "indoor":  # float32 has no room for the middle of far outliers
            return scene if self._is_wide(scene) else CenterShift()(scene, rng)
        box = self.recipe.clip_box_m
        if box is None or self.recipe.drop_outside:  # whose points are to have a class, too
            return scene
        return ClampToBox(box_m=box)(scene, rng)

    def _is_wide(self, scene: Scene) -> bool:
        """Whether it is cut, and each tile placed by itself, for its extent alone."""
        low, high = scene.coord.min(0).astype(np.float64), scene.coord.max(0).astype(np.float64)
        return bool((high - low > WIDEST * self.recipe.voxel_m).any())

    def _tiled(
        self, scene: Scene, progress: Callable[[float], None], maps: Tensor | None
    ) -> NDArray[np.int32]:
        # Voxels are never cut: a point is where the first point of its voxel is.
        places, inverse = voxel_downsample(
            Scene(coord=scene.coord, name=scene.name), self.recipe.voxel_m
        )
        counts = np.bincount(inverse)
        wide = self.recipe.setting == "indoor" and self._is_wide(scene)
        labels = np.full(len(scene), IGNORE, np.int32)
        while True:
            parts = tiles(
                places.coord,
                max_points=self.max_points,
                margin_m=self.passes.protocol.margin_m,
                counts=counts,
                max_count=max(1, SCORES // self.classes),
                max_side_m=WIDEST * self.recipe.voxel_m,
            )
            insufficient_memory_warning = False
            for part in parts:
                member = np.zeros(len(places), np.uint8)
                index, core = part.select(places.coord)
                member[index], member[index[core]] = 1, 2
                standing = member[inverse]
                points = np.flatnonzero(standing)
                wanted = standing[points] == 2
                if (labels[points[wanted]] != IGNORE).all():
                    continue  # done before memory ran out
                named = float((labels != IGNORE).mean())
                share = float(wanted.sum()) / len(scene)

                def told(of_tile: float, named: float = named, share: float = share) -> None:
                    progress(min(1.0, named + share * of_tile))

                tile = scene.select(points)
                if wide:
                    tile = CenterShift()(tile, np.random.default_rng(0))
                try:
                    found = self._tile(tile, told, maps)
                except (RuntimeError, MemoryError) as error:
                    if not ran_out_of_memory(error):
                        raise
                    insufficient_memory_warning = True
                if (
                    insufficient_memory_warning
                ):  # outside of the except block, whose error holds on to what is to be freed
                    self._halve(scene.name)
                    break
                labels[points[wanted]] = found[wanted]
            if not insufficient_memory_warning:
                return labels

    def _halve(self, name: str) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.max_points <= FEWEST:
            raise UserError(
                f"scene {name}: out of memory with {self.max_points} voxels at once; free some memory, "
                "or use --device cpu, or --fast where all views were asked for"
            )
        self.max_points = max(FEWEST, self.max_points // 2)
        self.say(
            f"scene {name}: out of memory, going on with at most {self.max_points} voxels at once "
            f"(--max-points {self.max_points} does so from the start)"
        )

    def _tile(
        self, tile: Scene, progress: Callable[[float], None], maps: Tensor | None
    ) -> NDArray[np.int32]:
        if self.passes.fast:
            return self._by_voxel(tile, maps)
        scores = torch.zeros(len(tile), self.classes, device=self.device)
        views = self.passes.views
        for number, view in enumerate(views):
            seen = view.apply(tile)
            voxels = voxelize(seen.coord, self.recipe.voxel_m)
            fragments = Fragments(voxels, limit=self.passes.most_fragments)
            cut_short = len(fragments) < int(voxels.counts.max())
            sums = torch.zeros_like(scores) if cut_short else scores
            at_once = max(1, self.max_points // len(voxels))
            for first in range(0, len(fragments), at_once):
                group = fragments[first : first + at_once]
                found = self._probabilities([self._sample(seen, f, voxels) for f in group], maps)
                for fragment, values in zip(group, found.split(len(voxels)), strict=True):
                    sums.index_add_(0, torch.from_numpy(fragment).to(self.device), values)
                done = min(1.0, (first + at_once) / len(fragments))
                progress((number + done) / len(views))
            if cut_short:
                scores += sums[torch.from_numpy(fragments.representative_index).to(self.device)]
        return scores.argmax(1).cpu().numpy().astype(np.int32)

    def _by_voxel(self, tile: Scene, maps: Tensor | None) -> NDArray[np.int32]:
        (view,) = self.passes.views
        seen = view.apply(tile)
        voxels = voxelize(seen.coord, self.recipe.voxel_m)
        chosen = nearest_to_centre(seen.coord, voxels, self.recipe.voxel_m)
        found = self._probabilities([self._sample(seen, chosen, voxels)], maps)
        return found.argmax(1).cpu().numpy().astype(np.int32)[voxels.inverse]

    def _sample(self, scene: Scene, index: NDArray[np.int64], voxels: Voxels) -> Cloud:
        sample = scene.select(index).with_fields(grid_coord=voxels.grid_coord)
        if self.recipe.setting == "indoor":  # as after training's crops
            sample = CenterShift(floor=False)(sample, np.random.default_rng(0))
        return to_cloud(sample, features=self.recipe.features, color_range=self.recipe.color_range)

    def _probabilities(self, clouds: list[Cloud], maps: Tensor | None) -> Tensor:
        """(N, K) float32, of all clouds' points."""
        cloud = collate(clouds).to(self.device)
        if maps is not None:  # all look at the same images, thus as one sample of these
            whole = cloud.offset[-1:]
            cloud = replace(cloud, image_maps=maps[None], image_offset=whole)
        with torch.inference_mode(), self._autocast():
            logits: Tensor = self.model(cloud)
        return logits.float().softmax(1)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.precision))


def nearest_to_centre(
    coord: NDArray[np.float32], voxels: Voxels, size_m: float
) -> NDArray[np.int64]:
    """(M,) of each voxel the point nearest to its centre; of several the first.

    Args:
        coord: (N, 3) metres.
        voxels: of these points.
        size_m: edge of a voxel, metres.
    """
    offset = np.zeros(len(coord), np.float32)
    for axis in range(3):  # axis by axis: a third of the memory
        cell = coord[:, axis].astype(np.float64) / size_m
        offset += np.square(cell - np.floor(cell) - 0.5).astype(np.float32)
    offset = offset[voxels.order]
    least = np.minimum.reduceat(offset, voxels.starts)
    nearest = np.flatnonzero(offset == np.repeat(least, voxels.counts))
    # The first of each voxel's nearest points: the last one written wins, so from behind.
    row = np.searchsorted(voxels.starts, nearest, side="right") - 1
    chosen = np.empty(len(voxels), np.int64)
    chosen[row[::-1]] = nearest[::-1]
    return voxels.order[chosen]
