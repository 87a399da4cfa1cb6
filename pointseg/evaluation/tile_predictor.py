"""Classes of the points of one tile: probabilities summed over fragments and test-time augmentations."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory
from pointseg.cloud import Cloud, collate
from pointseg.config.recipe import Recipe
from pointseg.conventions import PRECISIONS
from pointseg.evaluation.certainty import certainty_of
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.one_ahead import one_ahead
from pointseg.geometry.fragments import Fragments
from pointseg.geometry.voxels import nearest_to_centre, voxelize
from pointseg.loading.network_input import cell_of, network_input
from pointseg.loading.scene_images import ImageSet
from pointseg.most_likely import most_likely
from pointseg.scene import Scene

COARSEST = 64
"""Voxels along a cell of the coarsest grid that networks have, or a multiple of it."""

_Copied = TypeVar("_Copied", Cloud, Tensor)


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """A forward pass with fragments of a tile, under one test-time augmentation."""

    cloud: Cloud
    """The fragments as a batch."""
    points: list[Tensor]
    """Rows of the tile that each fragment holds."""
    is_first: bool
    """Whether an augmentation begins."""
    is_limited: bool
    """Whether the fragments of the augmentation hold some points only."""
    representative: Tensor | None
    """After the last fragment of these: the row whose scores each point takes."""
    share: float
    """Of the tile's work, done after this pass."""


@dataclass(frozen=True, kw_only=True)
class TileClasses:
    """The classes of the points of a tile, and how sure the network is of them."""

    labels: NDArray[np.int32]
    """(N,) most likely classes."""
    scores: Tensor
    """(M, K) sums of probabilities, on the network's device."""
    rows: NDArray[np.int64] | None = None
    """(N,) the row of `scores` that each point takes; None: its own."""

    def probabilities(self) -> NDArray[np.float32]:
        """(N, K) float32, mean over all passes; each row sums to 1."""
        mean = self.scores / self.scores.sum(1, keepdim=True)
        found: NDArray[np.float32] = mean.float().cpu().numpy()
        return found if self.rows is None else found[self.rows]

    def certainty(self) -> NDArray[np.uint16]:
        """(N, 3) ``MEASURES`` in ``STEPS``, of the same mean; without all of it in memory."""
        found = certainty_of(self.scores)
        return found if self.rows is None else found[self.rows]


class TilePredictor:
    """A trained network that predicts tiles small enough for its memory."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        classes: int,
        protocol: InferenceProtocol,
        *,
        device: str,
        precision: str,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"TilePredictor: 'precision' must be one of {', '.join(PRECISIONS)}, got {precision}"
            )
        self.model, self.recipe, self.classes, self.protocol = model, recipe, classes, protocol
        self.device, self.precision = torch.device(device), precision
        self.ahead = self.device.type != "cpu"
        """Whether voxels and samples of the next pass are made during a pass; a CPU is busy with that one."""

    def encode(self, images: ImageSet | None) -> Tensor | None:
        """(V, C, h, w) features of the images of a scene, which all its tiles share.

        Raises:
            UserError: not enough memory.
        """
        if images is None:
            return None
        if images.maps is not None:
            return images.maps.to(self.device)
        pixels = torch.from_numpy(images.images).to(self.device)
        try:
            with torch.inference_mode(), self._autocast():
                return self.model.images.encode(pixels)  # type: ignore[union-attr, operator, no-any-return]
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
        raise UserError(
            f"out of memory while encoding {len(pixels)} images of {pixels.shape[2]} x {pixels.shape[3]} pixels; "
            "use fewer (--max-views), cached features (pointseg-cache-features), or --device cpu"
        )

    def predict(
        self,
        tile: Scene,
        maps: Tensor | None,
        *,
        max_points: int,
        progress: Callable[[float], None],
        first_cell: NDArray[np.int64] | None = None,
    ) -> TileClasses:
        """Classes of the points of a tile.

        Args:
            tile: its points.
            maps: features of the images of the scene, if the recipe uses images.
            max_points: voxels in one forward pass.
            progress: called with the share of the work that is done.
            first_cell: (3,) smallest voxel of the scene, in voxels from its origin: in a single pass the coarser
                grids of a network then lie as in the whole scene. None: as the tile alone would have them.
        """
        if self.protocol.single_pass:
            return self._single_pass(tile, maps, first_cell)
        scores = torch.zeros(len(tile), self.classes, device=self.device)
        sums = scores
        made = self._passes(tile, max_points)
        with closing(one_ahead(made) if self.ahead else made) as passes:
            for one in passes:
                if one.is_first:
                    sums = torch.zeros_like(scores) if one.is_limited else scores
                found = self._probabilities(one.cloud, maps).split(len(one.points[0]))
                for index, values in zip(one.points, found, strict=True):
                    sums.index_add_(0, index.to(self.device, non_blocking=True), values)
                progress(one.share)
                if one.representative is not None:
                    scores += sums[one.representative.to(self.device)]
        labels = most_likely(scores, tile.name).cpu().numpy().astype(np.int32)
        return TileClasses(labels=labels, scores=scores)

    def _passes(self, tile: Scene, max_points: int) -> Generator[_Pass, None, None]:
        """All forward passes of a tile, in their order; nothing here computes on the device."""
        augmentations = self.protocol.augmentations
        for number, augmentation in enumerate(augmentations):
            augmented = augmentation.apply(tile)
            voxels = voxelize(augmented.coord, self.recipe.voxel_m)
            fragments = Fragments(voxels, limit=self.protocol.max_fragments)
            is_limited = len(fragments) < int(voxels.counts.max())
            at_once = max(1, max_points // len(voxels))
            for first in range(0, len(fragments), at_once):
                group = fragments[first : first + at_once]
                samples = [network_input(augmented, index, voxels, self.recipe) for index in group]
                is_last = first + at_once >= len(fragments)
                others = is_last and is_limited
                done = min(1.0, (first + at_once) / len(fragments))
                yield _Pass(
                    cloud=self._pinned(collate(samples)),
                    points=[self._pinned(torch.from_numpy(index)) for index in group],
                    is_first=first == 0,
                    is_limited=is_limited,
                    representative=torch.from_numpy(fragments.representative_index)
                    if others
                    else None,
                    share=(number + done) / len(augmentations),
                )

    def _pinned(self, given: _Copied) -> _Copied:
        """In memory from which a copy to the device does not wait for it."""
        return given.pin_memory() if self.device.type == "cuda" else given

    def _single_pass(
        self, tile: Scene, maps: Tensor | None, first_cell: NDArray[np.int64] | None
    ) -> TileClasses:
        voxels = voxelize(tile.coord, self.recipe.voxel_m)
        if first_cell is not None:
            own = cell_of(tile.coord.min(0), self.recipe.voxel_m)
            shift = (own - first_cell) % COARSEST
            voxels = replace(voxels, grid_coord=voxels.grid_coord + shift.astype(np.int32))
        index = nearest_to_centre(tile.coord, voxels, self.recipe.voxel_m)
        cloud = collate([network_input(tile, index, voxels, self.recipe)])
        found = self._probabilities(cloud, maps)
        labels = most_likely(found, tile.name).cpu().numpy().astype(np.int32)
        return TileClasses(labels=labels[voxels.inverse], scores=found, rows=voxels.inverse)

    def _probabilities(self, cloud: Cloud, maps: Tensor | None) -> Tensor:
        """(N, K) float32 class probabilities of the points of a batch."""
        cloud = cloud.to(self.device)
        if maps is not None:  # all fragments share the images, like a single sample
            cloud = replace(cloud, image_maps=maps[None], image_offset=cloud.offset[-1:])
        with torch.inference_mode(), self._autocast():
            logits: Tensor = self.model(cloud)
        return logits.float().softmax(1)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.precision))
