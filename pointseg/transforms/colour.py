"""Transforms of colour, 0 to 255. A scene without colour is refused: a recipe without colour has none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.scene import Scene


@dataclass(frozen=True, kw_only=True)
class AutoContrast:
    """With some probability, each channel is stretched to 0..255 and blended with what it was.

    The share of the stretched one is uniform in 0 to 1. A channel of one value stays as it is.
    """

    probability: float = 0.2
    """The probability that contrast is stretched."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene with more contrast."""
        color = _color(scene, "AutoContrast")
        if rng.random() >= self.probability or len(scene) == 0:
            return scene
        share = np.float32(rng.random())
        low, high = color.min(axis=0), color.max(axis=0)
        span = high - low
        flat = span == 0
        stretched = (color - low) * (np.float32(255) / np.where(flat, 1, span))
        return _with_color(scene, np.where(flat, color, color + share * (stretched - color)))


@dataclass(frozen=True, kw_only=True)
class ColorShift:
    """With some probability, each channel of all points moves by one number, then is cut to 0..255."""

    ratio: float = 0.05
    """The number is uniform in +- ratio * 255."""
    probability: float = 0.95
    """The probability that colours are shifted."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene with shifted colours."""
        color = _color(scene, "ColorShift")
        if rng.random() >= self.probability:
            return scene
        shift = rng.uniform(-1, 1, 3) * 255 * self.ratio
        return _with_color(scene, color + shift.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """With some probability, noise is added to each channel of each point, which is then cut to 0..255."""

    std: float = 0.05
    """Standard deviation of the noise, in units of 255."""
    probability: float = 0.95
    """The probability that noise is added."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene with noisy colours."""
        color = _color(scene, "ColorJitter")
        if rng.random() >= self.probability:
            return scene
        noise = rng.standard_normal(color.shape, dtype=np.float32)
        return _with_color(scene, color + noise * np.float32(self.std * 255))


def _color(scene: Scene, who: str) -> NDArray[np.float32]:
    if "color" not in scene:
        raise ValueError(
            f"{who}: scene {scene.name} must have the field 'color', it has none; "
            f"leave colour out of the recipe's features"
        )
    return scene["color"]


def _with_color(scene: Scene, color: NDArray[Any]) -> Scene:
    return scene.with_fields(color=np.clip(color, 0, 255).astype(np.float32))
