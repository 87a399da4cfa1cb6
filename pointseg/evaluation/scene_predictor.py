"""Classes of all points of a scene, cut into tiles where it does not fit into memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory
from pointseg.config.recipe import Recipe
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.tile_predictor import TilePredictor
from pointseg.evaluation.tiled_cloud import CLASS_ALONE, CloudInMemory, Kept, TiledCloud
from pointseg.evaluation.tiling import tiles_of
from pointseg.files.columns.origin import finite_points
from pointseg.geometry.voxels import voxel_downsample
from pointseg.loading.network_input import Placement, before_placement, placement_of
from pointseg.loading.scene_images import ImageSet
from pointseg.scene import IGNORE, Scene
from pointseg.training.step.memory import max_voxels
from pointseg.transforms import CenterShift

MIN_VOXELS = 4096
"""Tiles are not made smaller than this when memory runs out."""
MAX_SCORES = 200_000_000
"""Class scores of all points of one tile: 0.8 GB."""
MAX_POINTS = 10_000_000
"""Points of one tile, so that voxels of many points do not fill the memory."""
MAX_SIDE = 40_000
"""Voxels along the side of a tile; a network's grid has 65,536, and augmentations rotate and scale tiles."""


class ScenePredictor:
    """A trained network that predicts whole scenes.

    When memory runs out, the number of voxels per forward pass is halved, for this and all later scenes.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        classes: int,
        protocol: InferenceProtocol,
        *,
        device: str = "cpu",
        precision: str = "float32",
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Prepare predictions.

        Args:
            model: maps a Cloud to (N, classes) logits.
            recipe: how it was trained.
            classes: number of classes.
            protocol: the forward passes of a scene.
            device: where the model is.
            precision: float32, float16 or bfloat16.
            log: receives notes.
        """
        self.recipe, self.classes, self.protocol, self.log = recipe, classes, protocol, log
        self.tile_predictor = TilePredictor(
            model, recipe, classes, protocol, device=device, precision=precision
        )
        self.max_points = protocol.config.max_points
        """Voxels in one forward pass."""
        if device == "cpu" and max_voxels(recipe.backbone) < self.max_points:
            self.max_points = min(self.max_points, max(MIN_VOXELS, max_voxels(recipe.backbone)))
            log(f"the free memory suffices for {self.max_points} voxels per forward pass")

    def predict_labels(
        self,
        scene: Scene,
        progress: Callable[[float], None] = lambda share: None,
        images: ImageSet | None = None,
    ) -> NDArray[np.int32]:
        """The class of every point.

        Args:
            scene: N points with the fields of the recipe's features, and, if the recipe has images,
                those that ``ImageConfig.fields`` names.
            progress: called with the share of the work that is done.
            images: what ``image_coord`` refers to. Each image is encoded once.

        Returns:
            (N,) classes; IGNORE for points whose position is not finite.

        Raises:
            UserError: a field is missing or not finite, the memory does not suffice even for small
                tiles, or the voxels are too small for the cloud.
        """
        return self._found(scene, progress, images, CLASS_ALONE)[0]

    def predict_probabilities(
        self,
        scene: Scene,
        progress: Callable[[float], None] = lambda share: None,
        images: ImageSet | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """As `predict_labels`, and (N, K) float32 probabilities; 0 for points whose position is not finite."""
        return self._found(scene, progress, images, Kept.probabilities(self.classes))

    def predict_certainty(
        self,
        scene: Scene,
        progress: Callable[[float], None] = lambda share: None,
        images: ImageSet | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
        """As `predict_labels`, and (N, 3) how sure they are, as `certainty_of`; 0 where the position is not finite."""
        return self._found(scene, progress, images, Kept.certainty())

    def _found(
        self,
        scene: Scene,
        progress: Callable[[float], None],
        images: ImageSet | None,
        keep: Kept,
    ) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """(N,) classes and (N, width) what else is kept."""
        bare = self._needed_fields(scene, images)
        labels = np.full(len(scene), IGNORE, np.int32)
        kept = keep.none_of(len(scene))
        finite, index = finite_points(bare)
        for name, values in finite.fields.items():
            if not np.isfinite(values).all():
                raise UserError(f"scene {scene.name}: '{name}' has values that are not finite")
        if len(index):
            try:
                maps = self.tile_predictor.encode(images)
                labels[index], kept[index] = self._predict(finite, progress, maps, keep)
            except UserError:
                raise
            except ValueError as error:  # from voxels and transforms that the cloud does not fit
                raise UserError(f"scene {scene.name}: {error}") from error
        progress(1.0)
        return labels, kept

    def _needed_fields(self, scene: Scene, images: ImageSet | None) -> Scene:
        """The scene with the fields that the model reads, and no others."""
        needed = self.recipe.needs
        if self.recipe.images is not None:
            needed = (*needed, *self.recipe.images.fields)
            if images is None:
                raise UserError(f"scene {scene.name}: has no images, which the model needs")
        if missing := [name for name in needed if name not in scene]:
            raise UserError(
                f"scene {scene.name}: lacks {', '.join(missing)}, which the model needs"
            )
        return scene.without(*(key for key in scene.fields if key not in needed))

    def _predict(
        self, scene: Scene, progress: Callable[[float], None], maps: Tensor | None, keep: Kept
    ) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """(N,) classes and (N, width) what else is kept of a scene whose points are all finite."""
        scene = before_placement(scene, self.recipe)
        placement = placement_of(scene, self.recipe, max_side_m=self.max_side_m)
        scene = placement(scene)
        size_m = self.protocol.config.prevoxel_m
        inverse: NDArray[np.int64] | slice = slice(None)
        if size_m is not None and not self.protocol.single_pass:
            scene, inverse = voxel_downsample(scene, size_m)
        cloud = CloudInMemory(scene, self.recipe.voxel_m, keep=keep)
        self.predict_tiles(cloud, placement, progress, maps)
        return cloud.labels[inverse], cloud.kept[inverse]

    @property
    def max_side_m(self) -> float:
        """Length of a tile that the grid of the network can hold, metres."""
        return MAX_SIDE * self.recipe.voxel_m

    def predict_tiles(
        self,
        cloud: TiledCloud,
        placement: Placement,
        progress: Callable[[float], None] = lambda share: None,
        maps: Tensor | None = None,
    ) -> None:
        """Find the classes of a cloud tile by tile; when memory runs out, with smaller tiles, keeping what is done.

        Args:
            cloud: placed where training would have placed it.
            placement: of the cloud.
            progress: called with the share of the work that is done.
            maps: features of the images of the scene, if the recipe has images.

        Raises:
            UserError: the memory does not suffice even for small tiles.
        """
        while not self._predict_tiles(cloud, placement, progress, maps):
            self._halve_tiles(cloud.name)

    def _predict_tiles(
        self,
        cloud: TiledCloud,
        placement: Placement,
        progress: Callable[[float], None],
        maps: Tensor | None,
    ) -> bool:
        """Fill in the classes tile by tile; returns False when memory ran out."""
        first_cell = None if placement.is_too_wide else placement.first_cell
        for tile in tiles_of(
            cloud.places(),
            max_points=self.max_points,
            margin_m=self.protocol.config.margin_m,
            max_count=max(1, min(MAX_POINTS, MAX_SCORES // self.classes)),
            max_side_m=self.max_side_m,
        ):
            part = cloud.part(tile)
            if part is None:
                continue  # predicted before memory ran out
            done, share = cloud.done / len(cloud), float(part.wanted.sum()) / len(cloud)

            def report(of_tile: float, done: float = done, share: float = share) -> None:
                progress(min(1.0, done + share * of_tile))

            scene = part.scene
            if (
                placement.is_too_wide
            ):  # it is cut for its extent alone, and each tile is centred by itself
                scene = CenterShift()(scene, np.random.default_rng(0))
            try:
                found = self.tile_predictor.predict(
                    scene,
                    maps,
                    max_points=self.max_points,
                    progress=report,
                    first_cell=first_cell,
                )
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
                return False
            cloud.keep(tile, part, found)
            report(1.0)
        return True

    def _halve_tiles(self, name: str) -> None:
        """Use smaller tiles from now on."""
        gc.collect()
        if self.tile_predictor.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.max_points <= MIN_VOXELS:
            raise UserError(
                f"scene {name}: out of memory with {self.max_points} voxels per forward pass; free some memory, or "
                "use --device cpu, or a single pass"
            )
        self.max_points = max(MIN_VOXELS, self.max_points // 2)
        self.log(
            f"scene {name}: out of memory, continuing with at most {self.max_points} voxels per forward pass "
            f"(--max-points {self.max_points} sets this from the start)"
        )
