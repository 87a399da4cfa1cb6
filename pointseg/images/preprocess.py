"""Prepares images for the encoder: resizing, in training colour jitter and mirroring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from pointseg.images.readers.frame import Frame
from pointseg.scene import Scene

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
JITTER_PROBABILITY = FLIP_PROBABILITY = 0.5


def load_images(
    frames: Sequence[Frame], size: tuple[int, int], *, rng: np.random.Generator | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read and resize the images of the selected views.

    Args:
        frames: V of them.
        size: height and width, resized bilinearly with antialiasing.
        rng: for training: each image has its colours jittered with probability 1/2, and is mirrored left to
            right with probability 1/2. None: neither.

    Returns:
        (V, 3, H, W) uint8 red, green, blue; (V,) whether each is mirrored, for ``flip_coordinates``.

    Raises:
        UserError: an image is missing, damaged or of another size than its camera.

    Source: DITR (Knaebel et al. 2025), its published training configurations.
    """
    height, width = size
    images = np.empty((len(frames), 3, height, width), np.uint8)
    flipped = np.zeros(len(frames), np.bool_)
    for number, frame in enumerate(frames):
        image = Image.fromarray(frame.read_image())
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        if rng is not None:
            image = jitter(image, rng)
            flipped[number] = rng.random() < FLIP_PROBABILITY
        pixels = np.asarray(image)
        images[number] = (pixels[:, ::-1] if flipped[number] else pixels).transpose(2, 0, 1)
    return images, flipped


def jitter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Jitter brightness, contrast, saturation and hue in random order, or return the image unchanged."""
    if rng.random() >= JITTER_PROBABILITY:
        return image
    factors = 1 + rng.uniform(-1, 1, 3) * (BRIGHTNESS, CONTRAST, SATURATION)
    turn = rng.uniform(-HUE, HUE)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for step in rng.permutation(4).tolist():
        if step == 3:
            image = turn_hue(image, turn)
        else:
            image = enhancers[step](image).enhance(float(factors[step]))
    return image


def turn_hue(image: Image.Image, turns: float) -> Image.Image:
    """Rotate all hues along the colour circle; 1 is a full turn."""
    hue, saturation, value = image.convert("HSV").split()
    step = round(turns * 256) % 256
    moved = hue.point([(level + step) % 256 for level in range(256)])
    return Image.merge("HSV", (moved, saturation, value)).convert("RGB")


def flip_coordinates(scene: Scene, flipped: NDArray[np.bool_], width: int) -> Scene:
    """Mirror the positions of points in the images that were mirrored.

    The left edge of the first pixel becomes the last position inside the last pixel.

    Args:
        scene: with ``image_coord`` in the pixels of the images, of all views or, with ``image_view``, of one.
        flipped: (V,) which views are mirrored.
        width: of the images in pixels.

    Raises:
        ValueError: ``flipped`` has not one entry per view.
    """
    coord, view = scene["image_coord"], scene.fields.get("image_view")
    most = int(view.max(initial=-1)) if view is not None else coord.shape[1] - 1
    if flipped.ndim != 1 or (
        len(flipped) <= most if view is not None else len(flipped) != most + 1
    ):
        raise ValueError(
            f"flip_coordinates: 'flipped' must be ({most + 1},), one per view of scene {scene.name}, "
            f"got {flipped.shape}"
        )
    if not flipped.any():
        return scene
    turned = flipped if view is None else (flipped[view] & (view >= 0))[:, None]
    u = coord[:, :, 0]
    last = np.nextafter(np.float32(width), np.float32(0))
    mirrored = np.where(turned, np.minimum(np.float32(width) - u, last), u)
    return scene.with_fields(image_coord=np.stack([mirrored, coord[:, :, 1]], axis=2))
