"""A picture of test scenes: the image, the labels, and what arms of a benchmark predict, in the plane of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

TITLE = 18
"""Height of a line of text, pixels."""
WIDTH = 280
"""Of one picture, pixels."""


def draw_predictions(
    data: Any, split: str, scenes: Sequence[str], found: Mapping[str, Path], out: Path
) -> None:
    """One row for each scene, one column for each arm.

    Args:
        data: dataset whose scenes have one image each.
        split: of it.
        scenes: to draw.
        found: folder of test results by title.
        out: the picture.
    """
    rows = [_titles(["image", "labels", *found])]
    for name in scenes:
        scene, (frame, *_) = data.load(split, name), data.frames(split, name)
        coord = torch.from_numpy(scene.coord.astype(np.float64) + scene.origin)
        at = frame.camera.project(coord)[0].numpy().astype(int)
        pictures = [frame.read_image(), _painted(frame.camera.size, at, scene["segment"], data)]
        for folder in found.values():
            labels = np.load(folder / "labels" / split / f"{name}.npy").astype(np.int64)
            pictures.append(_painted(frame.camera.size, at, labels, data))
        rows.append(np.concatenate([_small(picture) for picture in pictures], axis=1))
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(out)


def _painted(
    size: tuple[int, int], at: NDArray[Any], segment: NDArray[Any], data: Any
) -> NDArray[np.uint8]:
    """(H, W, 3) the colour of the class of each pixel's point; white where there is none."""
    picture = np.full((*size, 3), 255, np.uint8)
    inside = ((at >= 0) & (at < size[::-1])).all(1) & (segment >= 0)
    u, v = at[inside].T
    picture[v, u] = data.classes.colors[segment[inside]]
    return picture


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(picture)
    return np.asarray(image.resize((WIDTH, WIDTH * image.height // image.width)))


def _titles(words: Sequence[str]) -> NDArray[np.uint8]:
    image = Image.new("RGB", (WIDTH * len(words), TITLE), "white")
    draw = ImageDraw.Draw(image)
    for number, word in enumerate(words):
        draw.text((WIDTH * number + 4, 3), word, fill="black")
    return np.asarray(image)
