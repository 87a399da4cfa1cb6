"""Names by which the columns of files are recognised, in any writing."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Names are compared in small letters and without CloudCompare's "scalar_". Of several names the
# first found counts. Single columns that belong together, or one array of three columns.
POSITION = (
    ("x", "y", "z"),
    ("easting", "northing", "height"),
    ("easting", "northing", "elevation"),
    ("easting", "northing", "altitude"),
)
POSITION_ARRAYS = ("coord", "coords", "xyz", "points", "pos")
COLOR = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
    ("rf", "gf", "bf"),
)
COLOR_ARRAYS = ("color", "colors", "colour", "rgb")
HARMONICS = ("f_dc_0", "f_dc_1", "f_dc_2")
"""Colours of 3D Gaussians, as coefficients of spherical harmonics."""
NORMAL = (
    ("nx", "ny", "nz"),
    ("normal_x", "normal_y", "normal_z"),
    ("normalx", "normaly", "normalz"),
)
NORMAL_ARRAYS = ("normal", "normals")
STRENGTH = ("strength", "intensity", "reflectance", "remission")
RETURN_NUMBER, RETURN_COUNT = "return_number", "number_of_returns"
SEGMENT = ("pointseg_class", "class", "label", "segment", "classification")
INSTANCE = ("instance",)
HEIGHT = "height_above_ground"
CLASS_FIELD, SPARE_CLASS_FIELD = "class", "pointseg_class"


def names_labels(name: str) -> bool:
    """Whether readers take a column of this name for the labels."""
    return key_of(name) in SEGMENT


def meaning_of(name: str) -> str | None:
    """What readers take a column of this name for; None: for nothing."""
    key = key_of(name)
    axes = (POSITION[:1], "xyz"), (COLOR, "rgb"), (NORMAL, ("nx", "ny", "nz"))
    for groups, meanings in axes:
        for keys in groups:
            if key in keys:
                return meanings[keys.index(key)]
    for names, meaning in ((STRENGTH, "intensity"), (SEGMENT, "label"), (INSTANCE, "instance")):
        if key in names:
            return meaning
    return key if key in (RETURN_NUMBER, RETURN_COUNT) else None


def tells_positions(names: Sequence[str]) -> bool:
    """Whether columns of these names hold positions."""
    keys = {key_of(name) for name in names}
    return any(keys >= set(of_axes) for of_axes in POSITION)


def key_of(name: str) -> str:
    """A column's name as names are compared: in small letters, without CloudCompare's ``scalar_`` and ``(m)``."""
    return re.sub(r"\s*[(\[]m[)\]]$", "", name.strip().lower().removeprefix("scalar_"))
