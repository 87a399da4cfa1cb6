"""Features of posed images on points, in one call: arrays in, arrays out."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.lifting import Encoder
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.device import choose_device
from dinomed3d.runtime.hardware.memory import free_bytes
from pointseg.conventions import LIFT_FUSES, SAMPLES
from pointseg.files.columns.origin import finite_points, split_origin
from pointseg.images.config import require_whole_patches
from pointseg.images.features.encoder import open_encoder
from pointseg.images.readers.arrays import require_frames, warn_of_intrinsics
from pointseg.images.readers.frame import Frame
from pointseg.images.visibility import VisibilityConfig
from pointseg.lifting.encoding import EncodedViews, encoded_size
from pointseg.lifting.kept_arrays import KeptArrays
from pointseg.lifting.views import Step, find_views, lift_rows
from pointseg.scene import Scene

BLOCK = 1 << 16
"""Points whose features are fused at a time."""
KEPT_BYTES = 1 << 30
"""Memory for feature maps and projections; beyond it they are in a temporary file."""
Z_BUFFER = VisibilityConfig(occlusion="z-buffer")
"""Points are hidden by the depth maps of images, and where there is none, by the cloud itself."""


def lift_features(
    points: NDArray[np.floating] | Tensor | Scene,
    frames: Sequence[Frame],
    encoder: str | Encoder = "vit_small_patch14_dinov2",
    weights: str | os.PathLike[str] | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    fuse: str = "mean",
    sample: str = "bilinear",
    visibility: VisibilityConfig = Z_BUFFER,
    device: str = "cpu",
    step: Step = lambda done, total: None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What an image encoder sees at each point of a cloud.

    Args:
        points: (N, 3) positions in the world of the cameras, metres, an array or a tensor; or a scene. Points
            without a position (NaN) are seen by no image.
        frames: posed images, as ``pointseg.array_frame`` or the readers in ``pointseg.images.readers`` make them.
        encoder: one of ``dinomed3d.lifting.MODELS``, or an encoder that was built already.
        weights: of the named encoder: a file or folder, or "hub", which downloads them.
        image_size: height and width to which images are resized, in whole patches. None: their own, or
            their own aspect ratio at an area of 480,000 pixels if they are larger.
        fuse: how the features of the views that see a point become one: mean, last, nearest or max.
        sample: how a feature map is read: bilinear, or nearest (patch).
        visibility: when a point is visible in an image.
        device: where the encoder computes: auto, cpu, cuda or mps.
        step: called with how many of how many images are encoded.

    Returns:
        (N, C) features, 0 where no image shows the point; (N,) whether any does.

    Raises:
        ValueError: ``points`` is not (N, 3); another ``fuse`` or ``sample``; an ``image_size`` that is not two numbers.
        UserError: ``frames`` are no posed images; no weights; no such device; no point is visible in any image; an
            image that cannot be read; features that do not fit into the free memory.

    Source: the lifting of DITR (Knaebel et al. 2025), section 3. Differs: the mean over views read bilinearly is
    the default, and clouds without depth maps hide their own points.
    """
    _check(fuse, sample)
    require_frames("lift_features", frames)
    warn_of_intrinsics("lift_features", frames)
    device = choose_device(device)
    scene = points if isinstance(points, Scene) else _scene_of(points)
    network = encoder if isinstance(encoder, Encoder) else _opened(encoder, weights)
    needed, free = 4 * len(scene) * network.channels, free_bytes()
    if needed > free:
        raise UserError(
            f"lift_features: {network.channels} features of {len(scene)} points need {needed / 1e9:.1f} GB, but only "
            f"{free / 1e9:.1f} GB are free; lift parts of the cloud, or use pointseg-lift, which writes to a file"
        )
    cloud, index = finite_points(scene)
    patch = network.stride
    if image_size is not None:
        if np.shape(image_size) != (2,):
            raise ValueError(
                f"lift_features: 'image_size' must be (height, width), got {image_size!r}"
            )
        require_whole_patches(image_size, patch, "the encoder", "image_size=({}, {})")
    with KeptArrays(KEPT_BYTES) as shown, KeptArrays(KEPT_BYTES) as maps:
        views = find_views(
            cloud, frames, visibility, lambda size: image_size or encoded_size(size, patch), shown
        )
        encoded = EncodedViews(views, network, maps, device=device, step=step)
        found = np.zeros((len(scene), network.channels), np.float32)
        for start in range(0, len(cloud), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(cloud)))
            found[index[rows]] = lift_rows(views, encoded, rows, fuse=fuse, sample=sample).cpu()
    seen = np.zeros(len(scene), np.bool_)
    seen[index] = views.seen
    return found, seen


def _check(fuse: str, sample: str) -> None:
    for name, value, known in (("fuse", fuse, LIFT_FUSES), ("sample", sample, SAMPLES)):
        if value not in known:
            raise ValueError(
                f"lift_features: '{name}' must be one of {', '.join(known)}, got {value!r}"
            )


def _scene_of(given: NDArray[np.floating] | Tensor) -> Scene:
    points = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind != "f":
        raise ValueError(
            f"lift_features: 'points' must be (N, 3) floats, got {points.shape} {points.dtype}"
        )
    coord, origin = split_origin(points)
    return Scene(coord=coord, origin=origin)


def _opened(encoder: str, weights: str | os.PathLike[str] | None) -> Encoder:
    if weights is None:
        raise UserError(
            f"lift_features: 'weights' must be a file of {encoder}, or 'hub', which downloads it, got None"
        )
    return open_encoder(encoder, weights)
