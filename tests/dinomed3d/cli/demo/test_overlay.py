"""The picture of the demo's cases: slice, colours, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dinomed3d.cli.demo.overlay import OverlayCase, draw_overlay


def overlay_case() -> OverlayCase:
    truth = np.zeros((3, 4, 5), np.uint8)
    truth[0, 0, 0] = 1
    truth[2, 1:3, 1:3] = 2
    image = np.arange(60, dtype=float).reshape(3, 4, 5)
    return OverlayCase(name="case", image=image, truth=truth, prediction=np.zeros_like(truth))


def test_overlay_shows_the_slice_with_most_foreground(tmp_path: Path) -> None:
    case = overlay_case()
    assert case.slice_index == 2
    empty = OverlayCase(
        name="empty", image=case.image, truth=case.prediction, prediction=case.truth
    )
    assert empty.slice_index == 1
    picture = tmp_path / "overlay.png"
    draw_overlay(picture, [case, empty], labels={"background": 0, "one": 1, "two": 2})
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 5000


def test_overlay_shows_labels_in_their_colours_and_leaves_background_clear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from matplotlib.axes import Axes

    shown: list[tuple[Any, dict[str, Any]]] = []
    draw = Axes.imshow

    def imshow(axis: Axes, values: Any, **style: Any) -> Any:
        shown.append((values, style))
        return draw(axis, values, **style)

    monkeypatch.setattr(Axes, "imshow", imshow)
    draw_overlay(tmp_path / "x.png", [overlay_case()], labels={"none": 0, "one": 1, "two": 2})
    truth, style = shown[2]
    assert truth.mask.tolist() == (overlay_case().truth[2] == 0).tolist()
    scaled = (2 - style["vmin"]) / (style["vmax"] - style["vmin"])
    assert style["cmap"](scaled) == style["cmap"](1)


def test_errors_are_voxels_of_either_mask_that_differ(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    truth = np.array([[[0, 1, 1], [2, 2, 0]]], np.uint8)
    prediction = np.array([[[0, 1, 2], [2, 0, 3]]], np.uint8)
    case = OverlayCase(name="x", image=truth, truth=truth, prediction=prediction)
    marks, share = case.errors()
    assert marks.tolist() == [[0, 1, 2], [1, 2, 2]]
    assert share == 3 / 5
    empty = OverlayCase(name="x", image=truth, truth=truth * 0, prediction=truth * 0)
    assert empty.errors()[1] == 0 and not empty.errors()[0].any()

    from matplotlib.axes import Axes

    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda axis, text, **style: titles.append(text))
    draw_overlay(tmp_path / "x.png", [case], labels={"none": 0, "one": 1, "two": 2, "three": 3})
    assert titles == ["x, slice 0", "truth", "prediction", "errors: 60.0% of structures"]
