"""What colours show: classes, errors, the points' own colours, or a measured value on a scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointseg.conventions import COLOURINGS
from pointseg.files.columns.names import key_of
from pointseg.files.labelling.certainty import MEASURES
from pointseg.files.labelling.labels import OWN
from pointseg.pictures.sheets import NOT_COUNTED, RIGHT, UNNAMED, WRONG
from pointseg.pictures.viewpoints import upright
from pointseg.scene import Scene
from pointseg.viewing.clouds import ViewedCloud
from pointseg.viewing.palette import Color, Palette

CLASS, REFERENCE, ERRORS, OWN_COLOR, CONFIDENCE, INTENSITY, HEIGHT = COLOURINGS
NO_VERDICT, IS_RIGHT, IS_WRONG = range(3)
"""Of a point: it has no reference class; the predicted class is that of the reference, or another one."""
VERDICTS: tuple[tuple[str, Color], ...] = (
    ("no reference", NOT_COUNTED),
    ("right", RIGHT),
    ("wrong", WRONG),
)
"""Name and colour of each."""
TRIM = 1.0
"""Per cent of the values at each end of a scale that share its last colour."""
MAPS = {CONFIDENCE: "viridis", INTENSITY: "gray", HEIGHT: "turbo"}
STEPS = 256


@dataclass(frozen=True)
class Scale:
    """The values of the first and the last colour, and (256, 3) the colours."""

    low: float
    """Value of the first colour."""
    high: float
    """Value of the last colour."""
    colors: NDArray[np.uint8]
    """(256, 3) red, green, blue."""

    def paint(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """(n, 3) colours of values; grey where one is not finite."""
        span = self.high - self.low
        share = (values - self.low) / span if span else np.full(len(values), 0.5)
        known = np.isfinite(share)
        step = np.clip(np.where(known, share, 0) * STEPS, 0, STEPS - 1).astype(np.int64)
        return np.where(known[:, None], self.colors[step], np.array(UNNAMED, np.uint8))


class Colouring:
    """The colours of all clouds, with scales that they share."""

    def __init__(self, clouds: Sequence[ViewedCloud], palette: Palette, *, up: str = "z") -> None:
        """Find out what can be shown.

        Args:
            clouds: all of them.
            palette: of their classes.
            up: the axis along which heights are measured, one of ``PICTURE_UP_AXES``.
        """
        self._palette, self._up = palette, up
        self.choices = tuple(c for c in COLOURINGS if any(self._has(v, c) for v in clouds))
        """What some cloud can show; heights are always there."""
        self.scales = {name: self._scale(clouds, name) for name in self.choices if name in MAPS}
        """Of measured values."""

    def colors(self, cloud: ViewedCloud, choice: str) -> NDArray[np.uint8]:
        """(n, 3) colours of a cloud; grey where it lacks what is shown."""
        if not self._has(cloud, choice):
            return np.tile(np.array(UNNAMED, np.uint8), (len(cloud.scene), 1))
        if choice == CLASS:
            return self._palette.paint(cloud.labels)
        if choice == REFERENCE:
            assert cloud.reference is not None
            return self._palette.paint(cloud.reference)
        if choice == ERRORS:
            return np.array([color for _, color in VERDICTS], np.uint8)[verdicts(cloud)]
        if choice == OWN_COLOR:
            return np.clip(np.rint(cloud.scene["color"]), 0, 255).astype(np.uint8)
        return self.scales[choice].paint(self._values(cloud.scene, choice))

    def _has(self, cloud: ViewedCloud, choice: str) -> bool:
        if choice == CLASS:
            return bool((cloud.labels >= 0).any())
        if choice in (REFERENCE, ERRORS):
            return cloud.reference is not None
        if choice == CONFIDENCE:
            return confidence_of(cloud.scene) is not None
        return (
            choice == HEIGHT or {OWN_COLOR: "color", INTENSITY: "strength"}[choice] in cloud.scene
        )

    def _values(self, scene: Scene, choice: str) -> NDArray[np.floating]:
        if choice == CONFIDENCE:
            found = confidence_of(scene)
            assert found is not None
            return found
        if choice == INTENSITY:
            return scene["strength"][:, 0]
        return heights(scene, self._up)

    def _scale(self, clouds: Sequence[ViewedCloud], choice: str) -> Scale:
        from matplotlib import colormaps  # slow to import

        colors = (colormaps[MAPS[choice]](np.linspace(0, 1, STEPS))[:, :3] * 255).round()
        if choice == CONFIDENCE:
            return Scale(0.0, 1.0, colors.astype(np.uint8))
        low, high = np.percentile(
            np.concatenate(list(self._all(clouds, choice))), [TRIM, 100 - TRIM]
        )
        return Scale(float(low), float(high), colors.astype(np.uint8))

    def _all(self, clouds: Sequence[ViewedCloud], choice: str) -> Iterator[NDArray[np.floating]]:
        for cloud in clouds:
            if self._has(cloud, choice):
                yield self._values(cloud.scene, choice)


def verdicts(cloud: ViewedCloud) -> NDArray[np.int64]:
    """(n,) whether each point is right, wrong, or without a reference class."""
    if cloud.reference is None:
        return np.full(len(cloud.scene), NO_VERDICT)
    known = np.where(cloud.labels == cloud.reference, IS_RIGHT, IS_WRONG)
    return np.where(cloud.reference < 0, NO_VERDICT, known)


def confidence_of(scene: Scene) -> NDArray[np.float32] | None:
    """(n,) confidence as ``pointseg-predict`` writes it, 0 to 1; None: there is none."""
    by_key = {key_of(name): name for name in scene.fields}
    for key in (OWN + MEASURES[0].name, MEASURES[0].name):
        values = scene.fields.get(by_key.get(key, ""))
        if values is not None and values.size == len(scene) and values.dtype.kind in "fiu":
            return values.reshape(-1).astype(np.float32)
    return None


def heights(scene: Scene, up: str) -> NDArray[np.float64]:
    """(n,) positions along the axis that points up, in the coordinates of the file."""
    direction = upright(np.eye(3), up)[:, 2].astype(np.float64)
    return scene.coord @ direction + scene.origin @ direction
