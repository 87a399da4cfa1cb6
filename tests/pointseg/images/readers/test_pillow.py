"""Images opened with Pillow: whatever it raises of a damaged one names the image."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from PIL import Image

from dinomed3d.runtime.errors import UserError
from pointseg.images.readers.frame import ImagesError
from pointseg.images.readers.pillow import opened_image


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (6, 4)).save(stream, "PNG")
    return stream.getvalue()


def test_a_file_or_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    for source in (tmp_path / "a.png", png()):
        with opened_image(source, "a.png") as image:
            assert image.size == (6, 4)


@pytest.mark.parametrize(
    "error",
    [
        OSError("it broke"),
        EOFError("it broke"),
        SyntaxError("it broke"),
        ValueError("it broke"),
        TypeError("it broke"),
        KeyError("it broke"),
        ZeroDivisionError("it broke"),
        struct.error("it broke"),
        Image.DecompressionBombError("it broke"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("late", [False, True])
def test_what_pillow_raises_names_the_image(
    monkeypatch: pytest.MonkeyPatch, error: Exception, late: bool
) -> None:
    """When it is opened, and when pixels are read."""

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image if late else Image, "convert" if late else "open", broken)
    says = "^scan 7: this colour image cannot be read: '?it broke'?; copy it again$"
    with (
        pytest.raises(ImagesError, match=says),
        opened_image(png(), "scan 7", what="colour image") as image,
    ):
        image.convert("RGB")


def test_other_formats_are_refused() -> None:
    """Without where the bytes lie in memory."""
    for content, formats, known in (
        (png(), ("JPEG", "WEBP"), "JPEG or WEBP"),
        (b"text", None, "image that Pillow knows"),
    ):
        says = f"^frame 3: this image cannot be read: it is no {known}; copy it again$"
        with (
            pytest.raises(ImagesError, match=says),
            opened_image(content, "frame 3", formats=formats),
        ):
            pass


def test_what_the_reader_finds_wrong_itself_stays_as_it_is() -> None:
    with pytest.raises(UserError, match="^it must be larger$"), opened_image(png(), "a"):
        raise UserError("it must be larger")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with (
        pytest.raises(ImagesError, match="a.png: this image is missing; unpack or copy"),
        opened_image(tmp_path / "a.png", tmp_path / "a.png"),
    ):
        pass
