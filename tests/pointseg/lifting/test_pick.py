"""The picked point, and the one that is named in its place."""

from __future__ import annotations

import numpy as np
import pytest

from dinomed3d.runtime.errors import UserError
from pointseg.lifting.pick import find_picked, require_seen
from pointseg.scene import Scene
from tests.pointseg.lifting.floor import POINTS, SEEN


@pytest.mark.parametrize("origin", [(0, 0, 0), (700_000, 6_000_000, 0)])
def test_the_nearest_shown_point_and_its_distance(origin):
    """From (9, 9, 0) to (1.75, 1.5, 0) it is the root of 7.25^2 + 7.5^2."""
    scene = Scene(coord=POINTS.astype(np.float32), origin=np.array(origin, float))
    with pytest.raises(UserError, match=r"shows point 3; .* point 5, 10\.4 away"):
        require_seen(scene, find_picked(scene, (3,)), SEEN)
    require_seen(scene, find_picked(scene, (5,)), SEEN)
