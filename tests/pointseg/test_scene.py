"""One cloud on the CPU: its fields belong to its points, whatever is selected."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg import Scene


def scene(count: int = 4) -> Scene:
    row = np.arange(count)
    return Scene(
        coord=np.stack([row, 10 * row, 100 * row], 1).astype(np.float32),
        fields={"segment": row.astype(np.int32), "row": row},
        origin=np.array([4e5, 5e6, 0.0]),
        name="four",
    )


def test_selecting_by_number_takes_all_fields_and_keeps_the_origin() -> None:
    taken = scene().select(np.array([2, 0, 2]))
    assert taken.coord.tolist() == [[2, 20, 200], [0, 0, 0], [2, 20, 200]]
    assert taken["segment"].tolist() == [2, 0, 2]
    assert taken["row"].tolist() == [2, 0, 2]
    assert taken.origin.tolist() == [4e5, 5e6, 0]


def test_selecting_by_truth() -> None:
    assert scene().select(np.array([True, False, False, True]))["row"].tolist() == [0, 3]


def test_fields_come_and_go() -> None:
    more = scene().with_fields(normal=np.zeros((4, 3), np.float32))
    assert "normal" in more and "normal" not in more.without("normal", "never there")
    assert len(more) == 4


def test_moving_keeps_fields() -> None:
    moved = scene().moved(scene().coord.astype(np.float64) + 1)
    assert moved.coord.dtype == np.float32
    assert moved.coord[1].tolist() == [2, 11, 101]
    assert moved["row"].tolist() == [0, 1, 2, 3]


def test_a_missing_field_is_named() -> None:
    with pytest.raises(KeyError, match="four.*'color'"):
        scene()["color"]


@pytest.mark.parametrize("coord", [np.zeros((4, 2), np.float32), np.zeros((4, 3))])
def test_coordinates_must_be_rows_of_three_in_single_precision(coord) -> None:
    with pytest.raises(ValueError, match="'coord'"):
        Scene(coord=coord)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("segment", np.zeros(3, np.int32)),
        ("segment", np.zeros(4, np.int64)),
        ("color", np.zeros((4, 3), np.uint8)),
        ("color", np.zeros((4, 4), np.float32)),
        ("image_coord", np.zeros((4, 2), np.float32)),
    ],
)
def test_fields_must_be_as_agreed(name: str, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=f"four.*'{name}'"):
        scene().with_fields(**{name: values})


def test_any_number_of_views_is_a_field() -> None:
    seen = scene().with_fields(
        image_coord=np.zeros((4, 7, 2), np.float32), image_mask=np.zeros((4, 7), np.bool_)
    )
    assert seen.select(np.array([1]))["image_coord"].shape == (1, 7, 2)
