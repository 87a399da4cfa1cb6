"""Ranges of values found from all points of a cloud, fields that nobody filled, and what is said of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointseg.files import ValueRanges, read_scaled
from pointseg.files.columns.fields import fields_in
from pointseg.files.columns.to_scene import scales_of, scene_of

PATH = Path("a.ply")


def understood(stated=None, known=None, **columns):
    """The scene of some columns, and how they were understood."""
    count = len(next(iter(columns.values())))
    columns = {"xyz": np.zeros((count, 3)), **columns}
    found = fields_in(PATH, columns)
    scales = scales_of(found, stated or ValueRanges(), known_intensity_max=known)
    return scene_of(PATH, columns, name="a", scales=scales), scales


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        ([0, 128, 255], "u1", [0, 128, 255]),
        ([0, 1, 1], "u1", [0, 1, 1]),  # whole numbers: 1 is nearly black
        ([0, 257, 65535], "u2", [0, 1, 255]),
        ([0, 128, 255], "u2", [0, 128, 255]),
        ([1, 128, 256], "u2", [1, 128, 255]),  # counted from 1
        ([0, 0.5, 1], "f4", [0, 127.5, 255]),
        ([0, 0.5, 1.2], "f4", [0, 127.5, 255]),  # sharpened
        ([0, 1, 2], "f8", [0, 1, 2]),
        ([0, 128, 255], "f8", [0, 128, 255]),
        ([0, 257, 65535], "f4", [0, 1, 255]),
        ([-5, np.nan, 255], "f4", [0, 0, 255]),
        ([1e300, np.inf, 0.5], "f8", [0, 0, 127.5]),
    ],
)
def test_colours(values, kind, found):
    color = understood(rgb=np.array([values, values], kind))[0]["color"]
    assert color.dtype == np.float32
    np.testing.assert_allclose(color, [found, found], atol=1e-4)


@pytest.mark.parametrize("largest", [1023, 4095, 65535])
def test_colours_of_few_bits_are_said(largest):
    colors = np.random.default_rng(0).integers(0, largest, (2000, 3)).astype(np.uint16)
    notes = understood(rgb=colors)[1].notes["color"]
    assert ("nearly black" in " ".join(notes)) == (largest < 65535)
    scene, scales = understood(ValueRanges(color_max=largest), rgb=colors)
    assert scales.notes["color"] == () and scene["color"].max() > 250


@pytest.mark.parametrize("odd", [[256, 256, 256], [65535, 0, 400]])
@pytest.mark.parametrize("coloured", [1.0, 0.2])
def test_one_point_does_not_change_the_colours_of_the_others(odd, coloured):
    colors = np.random.default_rng(0).integers(3, 250, (2000, 3)).astype(np.uint16)
    colors[int(coloured * 2000) :] = 0  # that no image showed
    alone, more = (understood(rgb=np.r_[colors, extra]) for extra in ([[1, 2, 3]], [odd]))
    for scene, scales in (alone, more):
        np.testing.assert_array_equal(scene["color"][:2000], colors)
        assert "assumed to reach 255" in scales.notes["color"][0]
    assert "lie beyond" in more[1].notes["color"][0]


def test_points_without_a_colour_do_not_decide_the_range_of_colours():
    colors = np.zeros((2000, 3), np.uint16)
    colors[::400] = 30_000  # five that an image showed
    scene, scales = understood(rgb=colors)
    assert scales.color_max == 65535 and not scales.notes["color"]


@pytest.mark.parametrize(
    ("stated", "values", "kind", "factor", "note"),
    [
        (65535, 200, "u2", 1 / 257, "seem to reach 255, not 65535"),
        (4095, 4000, "u2", 255 / 4095, None),
        (255, 3000, "u2", None, "more than 1 % of its colours exceed 255"),
        (255, 0.9, "f4", 1, "seem to reach 1, not 255"),
        (65535, 200, "u1", 1, None),
        (None, 40_000, "u2", 1 / 257, None),
        (None, 40_000, "i4", 1 / 257, "assumed to reach 65535"),
    ],
)
def test_ranges_of_colours_that_are_stated(stated, values, kind, factor, note):
    colors = np.linspace(0, values, 300).reshape(100, 3).astype(kind)
    scene, scales = understood(ValueRanges(color_max=stated), rgb=colors)
    if factor is not None:
        np.testing.assert_allclose(scene["color"], colors * factor, rtol=1e-5, atol=1e-5)
    said = " ".join(scales.notes["color"])
    assert (note in said) if note else not said


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        ([0, 0.25, 1], "f4", [0, 0.25, 1]),
        ([0, 51, 255], "u1", [0, 0.2, 1]),
        ([0, 1, 1], "u2", [0, 1 / 255, 1 / 255]),
        ([0, 819, 4095], "u2", [0, 0.2, 1]),
        ([0, 13107, 65535], "u2", [0, 0.2, 1]),
        ([0, 51, 255], "f8", [0, 0.2, 1]),
        ([-0.01, np.nan, *[1] * 9], "f4", [0, 0, *[1] * 9]),  # noise around 0
        ([-0.01, -0.5, 1], "f4", [0.495, 0.25, 1]),
        ([-2048, 2047, -1], "i2", [0, 1, 2047 / 4095]),  # Leica, Semantic3D
        ([-1791, 1541, np.nan], "f8", [257 / 4095, 3589 / 4095, 0]),
        ([-96.5, -32, -0.5], "f4", [31.5 / 128, 96 / 128, 127.5 / 128]),  # decibels
        ([-0.5, 0.5, 1], "f4", [0.25, 0.75, 1]),
    ],
)
def test_intensities(values, kind, found):
    strength = understood(intensity=np.array(values, kind))[0]["strength"]
    assert strength.dtype == np.float32 and strength.shape == (len(values), 1)
    np.testing.assert_allclose(strength[:, 0], found, atol=1e-6)


def test_a_few_glints_do_not_change_the_range_of_intensities():
    values = np.full(1000, 51, np.int32)
    values[:5], values[5:9] = 3000, -7
    scene, scales = understood(intensity=values)
    np.testing.assert_allclose(scene["strength"][9:], 0.2)
    assert scene["strength"][:9, 0].tolist() == [1] * 5 + [0] * 4
    assert "0.4 % of its intensities are below 0 and became 0" in scales.notes["strength"][1]


@pytest.mark.parametrize(
    ("low", "high", "known", "values", "found", "notes"),
    [
        (None, 500, None, [0, 100, 254], [0, 0.2, 0.508], []),  # that might be taken for 8 bits
        (None, 500, None, [0, 300, 600], [0, 0.6, 1], ["more than 1 % of its intensities exceed"]),
        (None, 500, None, [-250, 0, 500], [0, 0, 1], ["33 % of its intensities are below 0"]),
        (-250, 250, None, [-250, 0, 500], [0, 0.5, 1], ["more than 1 %"]),
        (-150, 0, None, [-75, -30, 0], [0.5, 0.8, 1], []),
        (-100, None, None, [-100, 0, 200], [0, 100 / 355, 300 / 355], ["assumed to reach 255"]),
        (None, None, 1, [0, 0.5, 1], [0, 0.5, 1], []),
        (
            None,
            None,
            1,
            [0, 51, 255],
            [0, 0.2, 1],
            ["assumed to reach 255"],
        ),  # KITTI's by its ending
        (None, None, None, [-2e3, 0, 9], [48 / 4095, 2048 / 4095, 2057 / 4095], ["-2048 and 2047"]),
        (None, 1, None, [0, np.nan, 1], [0, 0, 1], ["33 % of its intensities are not numbers"]),
    ],
)
def test_ranges_of_intensities_that_are_stated_or_known(low, high, known, values, found, notes):
    stated = ValueRanges(intensity_min=low, intensity_max=high)
    scene, scales = understood(stated, known, intensity=np.array(values, np.float64))
    np.testing.assert_allclose(scene["strength"][:, 0], found, rtol=1e-6, atol=1e-7)
    said = scales.notes["strength"]
    assert len(said) == len(notes) and all(n in s for n, s in zip(notes, said, strict=True))


@pytest.mark.parametrize(
    ("name", "stated", "values", "option"),
    [
        ("intensity", {"intensity_max": 500}, [-90, -60, 3], "--intensity-min"),
        ("intensity", {"intensity_max": 500}, [-90, 60, 3, 700], None),  # half of them
        ("intensity", {"intensity_min": -9, "intensity_max": 5}, [7, 8, 3], "--intensity-max"),
        ("rgb", {"color_max": 255}, [[300, 400, 2]], "--color-max"),
        ("rgb", {"color_max": 255}, [[3, 400, 2]], None),
        ("rgb", {}, [[-9, -8, 4]], "--columns"),
    ],
)
def test_ranges_that_most_values_lie_outside_of(name, stated, values, option):
    clipped = understood(ValueRanges(**stated), **{name: np.array(values, np.int32)})[1].clipped
    assert list(clipped) == ([] if option is None else ["color" if name == "rgb" else "strength"])
    assert all(option in why.option for why in clipped.values())


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("rgb", np.zeros((9, 3), np.uint16), "its red, green and blue are 0 at every point"),
        ("rgb", np.full((2000, 3), (255, 255, 9)), "its red, green and blue are 255, 255, 9 at every"),
        ("rgb", np.full((9, 3), 7), None),  # which so few points may have
        ("rgb", np.zeros((1, 3)), None),
        ("intensity", np.zeros(9, np.uint8), "its intensity is 0 at every point"),
        ("intensity", np.full(9, np.nan), "its intensity is not a number at every point"),
        ("intensity", np.full(2000, 1), "its intensity is 1 at every point"),
        ("normals", np.zeros((9, 3)), "its normals are 0 at every point"),
        ("normals", np.full((2000, 3), (0, 0, 1.0)), None),  # a plane
    ],
)  # fmt: skip
def test_fields_that_nobody_filled_are_missing(name, values, why):
    field = {"rgb": "color", "intensity": "strength", "normals": "normal"}[name]
    scene, scales = understood(**{name: values})
    assert (field in scene) == (why is None)
    assert scales.unfilled.keys() == ({field} if why else set())
    assert why is None or why in scales.unfilled[field]


def test_return_numbers_that_nobody_wrote_are_said():
    echoes = {"return_number": np.zeros(9, "u1"), "number_of_returns": np.zeros(9, "u1")}
    scene, scales = understood(**echoes)
    assert (scene["returns"] == 1).all() and "0 at every point" in scales.notes["returns"][0]


def test_colours_of_gaussians():
    root = 0.28209479177387814
    values = np.array([[0, -0.499 / root, 0.25 / root], [9, 0.499 / root, 0]]).T
    scene, scales = understood(f_dc_0=values[:, 0], f_dc_1=values[:, 1], f_dc_2=np.zeros(3))
    np.testing.assert_allclose(scene["color"][:, 0], [127.5, 0.255, 191.25], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scene["color"][:, 1], [255, 254.745, 127.5], rtol=1e-5)
    assert "f_dc_0" in scene and "11 % of their values were clipped" in scales.notes["color"][0]
    rgb = np.arange(9.0).reshape(3, 3)
    assert understood(rgb=rgb, f_dc_0=rgb[0], f_dc_1=rgb[0], f_dc_2=rgb[0])[1].color_max == 255


@pytest.mark.parametrize(
    ("file", "color", "strength", "unfilled", "notes"),
    [
        ("points/las_rgb8_one_256/rgb8.las", 109, 0.4008, (), ("reach 255;",)),
        ("points/las_rgb8_one_256/rgb8_one_256.las", 109, 0.4008, (), ("255 (less than 0.1 %",)),
        ("points/las_rgb_all_zero/rgb_all_zero.las", None, 0.4008, ("color",), ()),
        ("points/las_rgb_all_zero/no_intensity.laz", 109, None, ("strength",), ()),
        ("files/dark16.las", None, None, ("strength",), ("reach 255;",)),
        ("files/dark16_plus_one.las", None, None, ("strength",), ("255 (0.2 %",)),
        ("points/negative_intensity/semantic3d.txt", 109, 0.3994, (), ("-2048 and 2047",)),
        ("points/gaussian_splat/gaussian_splat.ply", 109, None, ("normal",), ("its Gaussians",)),
    ],
)
def test_files_that_went_wrong(shared, file, color, strength, unfilled, notes):
    scene, scales = read_scaled(shared / "cases" / file)
    assert set(scales.unfilled) == set(unfilled) and not set(unfilled) & set(scene.fields)
    if color is not None:  # the same cloud throughout
        np.testing.assert_allclose(np.median(scene["color"][:, 0]), color, atol=1)
    if strength is not None:
        np.testing.assert_allclose(scene["strength"].mean(), strength, atol=1e-3)
    said = " ".join(n for found in scales.notes.values() for n in found)
    assert all(note in said for note in notes)
