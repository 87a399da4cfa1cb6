"""Extra dimensions of LAS files: set and replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import laspy
import numpy as np
from numpy.typing import NDArray

from pointseg.files.labelling.certainty import MEASURES, STEPS


def set_extra(
    las: laspy.LasData, name: str, values: NDArray[Any], *, description: str = ""
) -> None:
    """Set an extra dimension, which replaces one of the same name."""
    if name in las.point_format.extra_dimension_names:
        las.remove_extra_dim(name)
    las.add_extra_dim(laspy.ExtraBytesParams(name, values.dtype, description))
    las[name] = values


def set_measures(las: laspy.LasData, names: Sequence[str], certainty: NDArray[np.uint16]) -> None:
    """Set the dimensions of ``MEASURES``: whole numbers of 16 bits with a scale, which readers see from 0 to 1."""
    for name, measure, values in zip(names, MEASURES, certainty.T, strict=False):
        if name in las.point_format.extra_dimension_names:
            las.remove_extra_dim(name)
        scaled = {"scales": np.array([1 / STEPS]), "offsets": np.array([0.0])}
        las.add_extra_dim(laspy.ExtraBytesParams(name, np.uint16, measure.description, **scaled))
        las.points.array[name] = values
