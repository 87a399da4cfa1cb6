"""Features of some points of a cloud."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.images.visibility import VisibilityConfig
from pointseg.lifting.encoding import EncodedViews
from pointseg.lifting.kept_arrays import KeptArrays
from pointseg.lifting.views import find_views, lift_rows
from pointseg.scene import Scene
from tests.pointseg.lifting.floor import GREEN, POINTS, RED, Colours, frame

UNSEEN = [0.0] * 4


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [([0, 4], [RED, RED]), ([0, 2, 3], [RED, UNSEEN, GREEN]), ([2], [UNSEEN])],
)
def test_rows_with_gaps_get_their_own_features_alone(rows, wanted):
    """The view shows points between them, too, of the other colour."""
    measured = POINTS[np.isfinite(POINTS).all(1)]  # red, green, outside, green, red
    cloud = Scene(coord=measured.astype(np.float32))
    visibility = VisibilityConfig(occlusion="none")
    with KeptArrays(1 << 20) as shown, KeptArrays(1 << 20) as maps:
        views = find_views(cloud, [frame()], visibility, lambda size: size, shown)
        encoded = EncodedViews(views, Colours(), maps)
        found = lift_rows(views, encoded, np.array(rows), fuse="mean", sample="nearest")
    np.testing.assert_allclose(found, wanted, atol=1e-6)
