"""nnU-Net's postprocessing: of certain labels only the largest connected component stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def keep_largest(mask: NDArray[Any], values: Sequence[int]) -> int:
    """Set to background what is not in the largest component of the voxels with these labels.

    Voxels are connected by faces, edges and corners; of several largest components all stay.

    Args:
        mask: (Z, Y, X) of unsigned integers; changed in place.
        values: the labels that together are one mask.

    Returns:
        How many voxels were set to background.

    Source: nnunetv2 remove_all_but_largest_component_from_segmentation.
    """
    table = np.zeros(1 + max(int(mask.max()), *values), bool)
    table[list(values)] = True
    inside = np.empty(mask.shape, bool)
    for target, plane in zip(inside, mask, strict=True):
        np.take(table, plane, out=target)
    pieces, count = ndimage.label(inside, np.ones((3, 3, 3)))
    if count < 2:
        return 0
    del inside
    sizes = np.zeros(count + 1, np.int64)
    for plane in pieces:  # plane by plane: counting takes eight bytes a voxel
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    sizes[0] = sizes[1:].max()  # background of this mask stays what it is
    goes = sizes < sizes[0]
    for plane, labels in zip(pieces, mask, strict=True):
        labels[goes[plane]] = 0
    return int(sizes[1:][goes[1:]].sum())
