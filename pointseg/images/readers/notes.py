"""Notes of readers: said once, by the main process, however often a description of cameras is read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from multiprocessing import parent_process

from pointseg.images.readers.frame import ImagesError

log = logging.getLogger(__name__)


@lru_cache(maxsize=4096)
def say_once(text: str) -> None:
    """Warn; a training reads the cameras of a scene whenever it loads it, in several processes."""
    if parent_process() is None:
        log.warning(text)


def say_left_out(reasons: Sequence[str], images: int) -> None:
    """Say how many images are left out, and why the first one is.

    Args:
        reasons: one for each image that is left out.
        images: number of all images.

    Raises:
        ImagesError: none is left.
    """
    if reasons and len(reasons) == images:
        raise ImagesError(reasons[0])
    if reasons:
        say_once(f"{len(reasons)} of {images} images are left out: {reasons[0]}")
