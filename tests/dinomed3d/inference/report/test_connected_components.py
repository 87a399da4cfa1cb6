"""Connected components of all labels in one pass, against scipy one label at a time."""

import numpy as np
import pytest
from scipy import ndimage

from dinomed3d.inference.report import connected_components as module
from dinomed3d.inference.report.connected_components import count_components, find_runs


def test_a_row_by_hand():
    row = np.array([[[1, 1, 2, 0, 1]]], np.uint8)
    labels, region = count_components(row, [np.array([0, 1, 2]), np.array([0, 1, 1])])
    assert labels.tolist() == [0, 2, 1] and region.tolist() == [0, 2]


def test_runs_by_hand():
    runs = find_runs(np.array([[[1, 1, 0], [2, 1, 1]], [[0, 0, 0], [2, 2, 0]]], np.uint8))
    assert runs.values.tolist() == [1, 2, 1, 2] and (runs.first, runs.last) == (3, 1)
    edges = sorted(zip(*(side.tolist() for side in runs.edges), strict=True))
    assert edges == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]


def test_joined_only_in_a_later_slab(monkeypatch):
    monkeypatch.setattr(module, "SLAB_VOXELS", 1)  # two planes at a time
    legs = np.zeros((5, 1, 5), np.uint8)
    legs[:4, 0, [0, 2, 4]] = 1
    assert count_components(legs, [np.array([0, 1])])[0].tolist() == [0, 3]
    legs[4] = 1  # the seat
    assert count_components(legs, [np.array([0, 1])])[0].tolist() == [0, 1]


@pytest.mark.parametrize("slab_voxels", [1, 60, 10_000])
@pytest.mark.parametrize("seed", range(10))
def test_as_scipy_counts(monkeypatch, slab_voxels, seed):
    monkeypatch.setattr(module, "SLAB_VOXELS", slab_voxels)
    random = np.random.default_rng(seed)
    noise = (random.random(random.integers(1, 9, 3)) * 5).astype(np.uint16) * 100
    mask = np.repeat(noise, 2, axis=1).transpose(random.permutation(3))
    labels, regions = np.zeros(401, int), np.zeros(401, int)
    labels[100::100], regions[100::100] = (1, 2, 3, 4), (1, 2, 2, 0)
    for table, counted in zip(
        (labels, regions), count_components(mask, [labels, regions]), strict=True
    ):
        expected = [ndimage.label(table[mask] == group)[1] for group in range(1, len(counted))]
        assert counted.tolist() == [0, *expected]


def test_nothing_there():
    assert count_components(np.zeros((3, 4, 5), np.uint8), [np.array([0, 1])])[0].tolist() == [0, 0]
