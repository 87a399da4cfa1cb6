"""The one view of each point that the loader keeps: by hand, and against all views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dinomed3d.lifting import Last, Nearest, Random, SelectView
from pointseg.images.preprocess import flip_coordinates
from pointseg.images.projected import ChosenView, EveryView
from pointseg.scene import Scene

# Points 0 to 3 in three views: seen by 0 and 1; by 2 alone; by none; by all.
VISIBLE = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]], bool)
DISTANCE = np.array([[2.0, 5, 1], [1, 1, 9], [1, 1, 1], [4, 3, 3]])
SCENE = Scene(coord=np.zeros((4, 3), np.float32))


def uv_of(view: int) -> torch.Tensor:
    return torch.tensor([[10.0 * view + point, view] for point in range(4)])


def kept(projected: ChosenView | EveryView, *, chunk: int = 4) -> Scene:
    for view in range(3):
        for start in range(0, 4, chunk):
            rows = slice(start, start + chunk)
            projected.add(
                view,
                start,
                uv_of(view)[rows],
                torch.from_numpy(VISIBLE[rows, view]),
                torch.from_numpy(DISTANCE[rows, view]),
            )
    return projected.add_to(SCENE)


@pytest.mark.parametrize("chunk", [4, 3])
@pytest.mark.parametrize(("choose", "views"), [(Last(), [1, 2, -1, 2]), (Nearest(), [0, 2, -1, 1])])
def test_by_hand(choose: SelectView, views: list[int], chunk: int) -> None:
    scene = kept(ChosenView(4, 3, choose), chunk=chunk)
    assert scene["image_view"].tolist() == views
    assert scene["image_mask"].tolist() == [[True], [True], [False], [True]]
    expected = [[10.0 * v + p, v] if v >= 0 else [0, 0] for p, v in enumerate(views)]
    assert scene["image_coord"][:, 0].tolist() == expected
    assert "image_shown" not in scene


def test_what_is_shown_is_that_of_all_views() -> None:
    every = kept(EveryView(4, 3))
    assert (every["image_mask"] == VISIBLE).all()
    assert not every["image_coord"][~VISIBLE].any()
    for random in (0, 1):  # of the views that see a point, whichever
        choose = Random(torch.Generator().manual_seed(random))
        scene = kept(ChosenView(4, 3, choose, shown=True))
        assert (scene["image_shown"] == VISIBLE).all()
        view = scene["image_view"]
        seen = view >= 0
        assert VISIBLE[seen, view[seen]].all() and (seen == VISIBLE.any(1)).all()
        assert (scene["image_coord"][seen, 0] == every["image_coord"][seen, view[seen]]).all()


def test_a_random_view_is_each_with_equal_probability() -> None:
    count = 3000
    chosen = ChosenView(count, 3, Random(torch.Generator().manual_seed(0)))
    for view in (0, 2):
        chosen.add(
            view, 0, torch.zeros(count, 2), torch.ones(count, dtype=torch.bool), torch.ones(count)
        )
    view = chosen.add_to(Scene(coord=np.zeros((count, 3), np.float32)))["image_view"]
    assert set(view.tolist()) == {0, 2} and abs((view == 0).mean() - 0.5) < 0.05


def test_positions_are_mirrored_with_the_image_of_their_own_view() -> None:
    scene = kept(ChosenView(4, 3, Last()))
    moved = flip_coordinates(scene, np.array([False, True, False]), 40)
    assert moved["image_coord"][:, 0, 0].tolist() == [40 - 10, 21, 0, 23]
    assert (moved["image_mask"] == scene["image_mask"]).all()
    moved = flip_coordinates(scene, np.array([False, False, True]), 40)
    assert moved["image_coord"][:, 0, 0].tolist() == [10, 40 - 21, 0, 40 - 23]
    with pytest.raises(ValueError, match="'flipped'"):
        flip_coordinates(scene, np.ones(2, bool), 40)


def test_more_views_than_are_counted_are_refused() -> None:
    with pytest.raises(ValueError, match="'views'"):
        ChosenView(0, 2**15, Last())
