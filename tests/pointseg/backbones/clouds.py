"""Small clouds for tests of backbones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pointseg.cloud import Cloud, collate


def cloud(
    counts: Sequence[int] = (120, 50), channels: int = 6, extent: int = 12, seed: int = 0
) -> Cloud:
    """Points in distinct voxels of a cube of ``extent`` voxels, 2 cm each."""
    rng = np.random.default_rng(seed)
    parts = []
    for count in counts:
        cells = rng.choice(extent**3, count, replace=False)
        grid = np.stack(np.unravel_index(cells, (extent,) * 3), 1).astype(np.int64)
        coord = (grid + rng.random((count, 3))) * 0.02
        parts.append(
            Cloud(
                coord=torch.from_numpy(coord.astype(np.float32)),
                grid_coord=torch.from_numpy(grid),
                feat=torch.from_numpy(rng.normal(size=(count, channels)).astype(np.float32)),
                offset=torch.tensor([count]),
            )
        )
    return collate(parts)


def permuted(whole: Cloud, rows: torch.Tensor) -> Cloud:
    """The same points in another order."""
    return Cloud(
        coord=whole.coord[rows],
        grid_coord=whole.grid_coord[rows],
        feat=whole.feat[rows],
        offset=whole.offset,
    )
