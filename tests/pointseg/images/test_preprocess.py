"""Images for the encoder: size, colours, mirroring, and the positions that go with them."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image

from pointseg.images.preprocess import flip_coordinates, load_images, turn_hue
from pointseg.images.projection import compute_visibility
from pointseg.images.readers.frame import ImagesError
from pointseg.images.visibility import VisibilityConfig
from tests.pointseg.images.given import SIZE, frame, wall


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def test_images_at_their_own_size_are_what_they_are() -> None:
    images, flipped = load_images([frame(image=picture(0)), frame(image=picture(1))], SIZE)
    assert images.shape == (2, 3, 40, 60) and images.dtype == np.uint8 and not flipped.any()
    assert (images[1].transpose(1, 2, 0) == picture(1)).all()
    assert load_images([], SIZE)[0].shape == (0, 3, 40, 60)


def test_shrinking_averages_and_enlarging_interpolates() -> None:
    stripes = np.zeros((*SIZE, 3), np.uint8)
    stripes[:, ::2] = 200
    images, _ = load_images([frame(image=stripes)], (20, 30))
    assert abs(images[0, :, :, 2:-2].astype(int) - 100).max() <= 1
    half = np.zeros((*SIZE, 3), np.uint8)
    half[:, 30:] = 200
    images, _ = load_images([frame(image=half)], (40, 120))
    assert images[0, 0, 0, 58:62].tolist() == [0, 50, 150, 200]


def test_mirrored_images_and_positions_agree() -> None:
    """A point keeps the colour of its pixel, however its image was mirrored."""
    frames = [frame(image=picture(seed)) for seed in range(12)]
    scene = compute_visibility(wall(), frames, VisibilityConfig(), SIZE)
    plain, _ = load_images(frames, SIZE)
    rng = np.random.default_rng(1)
    images, flipped = load_images(frames, SIZE, rng=rng)
    assert 0 < flipped.sum() < 12
    found = flip_coordinates(scene, flipped, SIZE[1])
    # On the very border of a pixel the mirrored position falls into its other neighbour.
    inner = scene.with_fields(image_coord=scene["image_coord"] + np.float32(0.25))
    moved = flip_coordinates(inner, flipped, SIZE[1])
    mirrored = np.where(flipped[:, None, None, None], plain[:, :, :, ::-1], plain)
    for view in range(12):
        u, v = inner["image_coord"][:, view].T.astype(int)
        a, b = moved["image_coord"][:, view].T.astype(int)
        assert (mirrored[view][:, b, a] == plain[view][:, v, u]).all()
    unchanged = flip_coordinates(scene, np.zeros(12, bool), SIZE[1])
    assert unchanged is scene and found["image_mask"].all()
    assert (flip_coordinates(found, flipped, SIZE[1])["image_coord"] == scene["image_coord"]).all()


def test_colours_are_varied_for_about_half_of_the_images_and_by_bounded_amounts() -> None:
    grey = frame(image=np.full((*SIZE, 3), 100, np.uint8))
    images, _ = load_images([grey] * 200, SIZE, rng=np.random.default_rng(0))
    levels = images[:, :, 0, 0].astype(int)
    same = (levels == 100).all(1).mean()
    assert 0.4 < same < 0.62
    assert 59 <= levels.min() < 70 and 130 < levels.max() <= 141  # brightness 0.6 to 1.4
    one, _ = load_images([frame(image=picture())], SIZE, rng=np.random.default_rng(3))
    two, _ = load_images([frame(image=picture())], SIZE, rng=np.random.default_rng(3))
    assert (one == two).all()


def test_hues_turn() -> None:
    red = Image.new("RGB", (2, 2), (200, 20, 20))
    for turns in (0.1, -0.1, 1 / 3):
        pixel = np.array(turn_hue(red, turns).getpixel((0, 0))) / 255
        hue = colorsys.rgb_to_hsv(*pixel)[0]
        assert min(abs(hue - turns % 1), 1 - abs(hue - turns % 1)) < 0.01
    assert turn_hue(red, 0.0).getpixel((1, 1)) == (200, 20, 20)


def test_a_point_on_the_left_edge_stays_in_its_pixel_when_it_is_mirrored() -> None:
    scene = compute_visibility(wall(), [frame()], VisibilityConfig(), SIZE)
    edge = scene.with_fields(image_coord=np.zeros((9, 1, 2), np.float32))
    moved = flip_coordinates(edge, np.ones(1, bool), 60)
    assert moved["image_mask"].all() and (np.floor(moved["image_coord"][:, 0, 0]) == 59).all()


def test_what_does_not_fit_is_refused() -> None:
    scene = compute_visibility(wall(), [frame()], VisibilityConfig(), SIZE)
    with pytest.raises(ValueError, match=r"'flipped' must be \(1,\), one per view of scene room"):
        flip_coordinates(scene, np.ones(2, bool), 60)
    with pytest.raises(ImagesError, match=r"given.png: is 8 x 4 pixels .*for 60 x 40"):
        load_images([frame(image=np.zeros((4, 8, 3), np.uint8))], SIZE)
