"""Number of connected components of all labels in one pass over the mask.

Consecutive voxels of a row with the same label are a run. Runs are the nodes of a graph, runs that
share a face its edges. The mask is read a few planes at a time, each time with the last plane of the
time before, so that memory does not grow with the volume:

    planes 0 1 2 3          components of these
           3 4 5 6          + components of these, where what is connected above stays connected
                            - components that reach plane 3: they were counted twice
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SLAB_VOXELS = 1_000_000
"""About this many voxels are read at a time, at least two planes."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The labelled runs of some planes, and which of them share a face."""

    values: NDArray[np.unsignedinteger]
    """Label of each run, in the order of voxels."""
    edges: tuple[NDArray[np.intp], NDArray[np.intp]]
    """Pairs of runs that share a face; their labels may differ."""
    first: int
    """Number of runs in the first plane."""
    last: int
    """Number of runs in the last plane."""


def count_components(
    mask: NDArray[np.unsignedinteger], tables: Sequence[NDArray[np.intp]]
) -> list[NDArray[np.int64]]:
    """Count connected components; voxels are connected by faces (6 neighbours).

    Example:
        A row 1 1 2 0 1 with the table [0, 1, 2] gives [0, 2, 1]; with [0, 1, 1], which makes labels 1
        and 2 one region, [0, 2].

    Args:
        mask: (Z, Y, X), 0 is background.
        tables: each (labels,), label -> group; group 0 is not counted. Each table is counted by itself.

    Returns:
        For each table the number of components of each group (groups,), 0 for group 0.
    """
    counts = [np.zeros(int(table.max()) + 1, np.int64) for table in tables]
    above: list[NDArray[np.intp]] = [np.zeros(0, np.intp) for _ in tables]
    for runs in _slabs(mask):
        for number, table in enumerate(tables):
            groups = table[runs.values]
            component = _components(runs, groups, above[number])
            group_of = np.zeros(int(component.max(initial=-1)) + 1, np.intp)
            group_of[component] = groups
            size = len(counts[number])
            counts[number] += np.bincount(group_of, minlength=size)
            shared = np.unique(above[number], return_index=True)[1]  # one run of each
            counts[number] -= np.bincount(groups[shared], minlength=size)
            above[number] = component[len(component) - runs.last :]
    for count in counts:
        count[0] = 0
    return counts


def _slabs(mask: NDArray[np.unsignedinteger]) -> Iterator[Runs]:
    """Runs of successive slabs; the last plane of a slab is the first of the next."""
    planes = 1 + max(1, SLAB_VOXELS // max(1, mask[0].size))
    for start in range(0, max(1, len(mask) - 1), planes - 1):
        yield find_runs(np.ascontiguousarray(mask[start : start + planes]))


def find_runs(slab: NDArray[np.unsignedinteger]) -> Runs:
    """The labelled runs of a few planes.

    Args:
        slab: (Z, Y, X), contiguous.
    """
    begins = np.ones(slab.shape, bool)
    np.not_equal(slab[..., 1:], slab[..., :-1], out=begins[..., 1:])
    labelled = slab != 0
    starts = np.flatnonzero(begins & labelled)
    ones, others = [], []
    # each pair of touching runs once: at the voxel where one of the two begins
    for axis, stride in ((0, slab[0].size), (1, slab.shape[2])):
        lower = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        upper = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        meet = np.zeros(slab.shape, bool)
        meet[lower] = (begins[lower] | begins[upper]) & labelled[lower] & labelled[upper]
        where = np.flatnonzero(meet)
        ones.append(np.searchsorted(starts, where, side="right") - 1)
        others.append(np.searchsorted(starts, where + stride, side="right") - 1)
    adjacent = np.flatnonzero((starts % slab.shape[2] > 0) & labelled.ravel()[starts - 1])
    ones.append(adjacent - 1)  # the run before ends where this one begins
    others.append(adjacent)
    plane = slab[0].size
    return Runs(
        values=slab.ravel()[starts],
        edges=(np.concatenate(ones), np.concatenate(others)),
        first=int(np.searchsorted(starts, plane)),
        last=len(starts) - int(np.searchsorted(starts, slab.size - plane)),
    )


def _components(runs: Runs, groups: NDArray[np.intp], above: NDArray[np.intp]) -> NDArray[np.intp]:
    """The component of each run.

    Args:
        runs: of some planes.
        groups: of each run; runs of different groups are never connected.
        above: for the runs of the first plane, their component in the planes above.
    """
    one, other = runs.edges
    same = groups[one] == groups[other]
    order = np.argsort(above, kind="stable")
    connected = above[order][1:] == above[order][:-1]
    one = np.concatenate([one[same], order[:-1][connected]])
    other = np.concatenate([other[same], order[1:][connected]])
    size = len(groups)
    graph = coo_matrix((np.ones(len(one), np.int8), (one, other)), shape=(size, size))
    found: NDArray[np.intp] = connected_components(graph, directed=False)[1]
    return found
