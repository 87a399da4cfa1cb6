"""Opens images with Pillow: one place that knows what it raises of damaged ones."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dinomed3d.runtime.errors import UserError
from pointseg.images.readers.frame import ImagesError

DAMAGED = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error,
)  # fmt: skip
"""What Pillow raises of damaged files, apart from DecompressionBombError."""


@contextmanager
def opened_image(
    source: Path | bytes,
    name: str | Path,
    *,
    what: str = "image",
    formats: tuple[str, ...] | None = None,
) -> Iterator[Any]:
    """Pillow's open image, which is closed at the end.

    Args:
        source: the file, or its bytes.
        name: names it in messages: the file, and where in it.
        what: it is, for messages.
        formats: Pillow's names of those that it may have; any if not given.

    Raises:
        ImagesError: it is missing or damaged, when it is opened or inside the context.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=formats) as image:
            yield image
    except UnidentifiedImageError as error:  # whose text shows where the bytes lie in memory
        known = " or ".join(formats) if formats else "image that Pillow knows"
        raise ImagesError(
            f"{name}: this {what} cannot be read: it is no {known}; copy it again"
        ) from error
    except (*DAMAGED, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise unreadable(name, error, what) from error


def unreadable(name: str | Path, error: BaseException, what: str) -> ImagesError:
    """That an image or a depth map is missing or damaged."""
    if isinstance(error, FileNotFoundError):
        return ImagesError(f"{name}: this {what} is missing; unpack or copy it there")
    reason = " ".join(str(error).split()).removeprefix(f"{name}: ") or type(error).__name__
    return ImagesError(f"{name}: this {what} cannot be read: {reason}; copy it again")
