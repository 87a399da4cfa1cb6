"""The cell of a position is that of the voxels."""

from __future__ import annotations

import numpy as np

from pointseg.geometry.voxels import voxelize
from pointseg.loading.network_input import cell_of


def test_cells_are_those_of_voxels() -> None:
    coord = np.repeat(np.arange(300) * 0.02, 3).reshape(-1, 3).astype(np.float32)  # on the edges
    voxels = voxelize(coord, 0.02)
    cells = np.stack([cell_of(position, 0.02) for position in coord])
    assert (cells == voxels.grid_coord[voxels.inverse]).all()
