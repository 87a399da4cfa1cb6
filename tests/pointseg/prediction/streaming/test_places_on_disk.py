"""Tiles cut from places on disk: those of places in memory."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.evaluation.tiling import tiles, tiles_of
from pointseg.geometry.voxels import voxel_downsample
from pointseg.prediction.streaming import places_on_disk
from pointseg.prediction.streaming.buckets import Buckets, intersecting, spill
from pointseg.prediction.streaming.partition import Partition, columns_of_voxels
from pointseg.prediction.streaming.places_on_disk import EVERYWHERE, PlacesOnDisk, places_within
from pointseg.scene import Scene

VOXEL_M = 0.5


@pytest.fixture
def stored(tmp_path):
    """Points on a raster and off it, outliers beyond wide gaps; their buckets."""
    rng = np.random.default_rng(0)
    coord = rng.normal(size=(3000, 3)) * [30, 20, 1]
    coord[::3] = np.round(coord[::3])
    coord[:3] = [[900, 3, 0], [2, -700, 0], [905, 3, 0]]
    coord = coord.astype(np.float32)
    files = Buckets(tmp_path, 0, len(coord))
    columns = columns_of_voxels(coord, VOXEL_M)
    partition = Partition(columns[::7], len(coord), 200)
    counts = spill(
        iter([(np.arange(k, k + 1000), coord[k : k + 1000]) for k in (0, 1000, 2000)]),
        files,
        partition,
        VOXEL_M,
    )
    held = [files.find_voxels(k, count, VOXEL_M) for k, count in enumerate(counts) if count]
    return coord, files, held


def test_tiles_are_those_of_places_in_memory(stored, monkeypatch):
    monkeypatch.setattr(places_on_disk, "IN_MEMORY", 150)
    coord, files, held = stored
    firsts, inverse = voxel_downsample(Scene(coord=coord), VOXEL_M)
    limits = {"max_points": 200, "margin_m": 1.5, "max_count": 300, "max_side_m": 60}
    expected = tiles(firsts.coord, counts=np.bincount(inverse), **limits)
    places = places_within(files, held, *EVERYWHERE)
    assert isinstance(places, PlacesOnDisk) and len(places) == len(firsts)
    assert tiles_of(places, **limits) == expected and len(expected) > 30


def test_buckets_hold_all_points_and_whole_voxels(stored):
    coord, files, held = stored
    index = np.concatenate([files.index(bucket.number) for bucket in held])
    np.testing.assert_array_equal(np.sort(index), np.arange(len(coord)))
    of_voxels = [set(map(tuple, np.floor(files.rows(b.number) / VOXEL_M))) for b in held]
    assert sum(map(len, of_voxels)) == len(set.union(*of_voxels)) == sum(b.voxels for b in held)
    assert max(b.points for b in held) < 600 and len(held) > 10
    (low, high) = held[3].low, held[3].high
    assert held[3] in intersecting(held, high, high) and held[3] in intersecting(held, low, low)
