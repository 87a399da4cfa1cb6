"""How many connected parts labels have, all labels in one pass over the mask.

Voxels of one row that follow each other with the same label are a run. Runs are the nodes of a graph,
runs that touch by a face its edges, and parts its connected components. The mask is taken a few planes
at a time, each with the last plane before, so that memory does not grow with the volume:

    planes 0 1 2 3          parts of these
           3 4 5 6          + parts of these, those joined in plane 3 joined here too
                            - parts that plane 3 shows: they were counted twice
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SLAB_VOXELS = 1_000_000
"""Voxels looked at together, about; at least one plane more than the last one before."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The labelled runs of some planes, and which of them touch."""

    values: NDArray[np.unsignedinteger]
    """Label of each, in the order of voxels."""
    edges: tuple[NDArray[np.intp], NDArray[np.intp]]
    """Numbers of two runs that share a face; the labels may differ."""
    first: int
    """How many lie in the first plane."""
    last: int
    """How many lie in the last plane."""


def count_parts(
    mask: NDArray[np.unsignedinteger], tables: Sequence[NDArray[np.intp]]
) -> list[NDArray[np.int64]]:
    """Count connected parts; voxels are connected by faces (6 neighbours).

    Example:
        A row 1 1 2 0 1 with the table [0, 1, 2] gives [0, 2, 1]; with [0, 1, 1], which makes labels 1
        and 2 one region, [0, 2].

    Args:
        mask: (Z, Y, X), 0 is background.
        tables: each (labels,), label -> group; group 0 is not counted. Every table is a count of its own.

    Returns:
        For each table the parts of each group (groups,), 0 for group 0.
    """
    counts = [np.zeros(int(table.max()) + 1, np.int64) for table in tables]
    joined: list[NDArray[np.intp]] = [np.zeros(0, np.intp) for _ in tables]
    for runs in _slabs(mask):
        for number, table in enumerate(tables):
            groups = table[runs.values]
            parts = _parts(runs, groups, joined[number])
            of_part = np.zeros(int(parts.max(initial=-1)) + 1, np.intp)
            of_part[parts] = groups
            size = len(counts[number])
            counts[number] += np.bincount(of_part, minlength=size)
            shown = np.unique(joined[number], return_index=True)[1]  # a run of each part so far
            counts[number] -= np.bincount(groups[shown], minlength=size)
            joined[number] = parts[len(parts) - runs.last :]
    for count in counts:
        count[0] = 0
    return counts


def _slabs(mask: NDArray[np.unsignedinteger]) -> Iterator[Runs]:
    """The runs of some planes after the other; the last plane of one is the first of the next."""
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
    # Each pair of touching runs once: where they both lie, and one of them begins.
    for axis, stride in ((0, slab[0].size), (1, slab.shape[2])):
        lower = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        upper = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        meet = np.zeros(slab.shape, bool)
        meet[lower] = (begins[lower] | begins[upper]) & labelled[lower] & labelled[upper]
        where = np.flatnonzero(meet)
        ones.append(np.searchsorted(starts, where, side="right") - 1)
        others.append(np.searchsorted(starts, where + stride, side="right") - 1)
    beside = np.flatnonzero((starts % slab.shape[2] > 0) & labelled.ravel()[starts - 1])
    ones.append(beside - 1)  # the run before ends where this one begins
    others.append(beside)
    plane = slab[0].size
    return Runs(
        values=slab.ravel()[starts],
        edges=(np.concatenate(ones), np.concatenate(others)),
        first=int(np.searchsorted(starts, plane)),
        last=len(starts) - int(np.searchsorted(starts, slab.size - plane)),
    )


def _parts(runs: Runs, groups: NDArray[np.intp], joined: NDArray[np.intp]) -> NDArray[np.intp]:
    """The part each run belongs to.

    Args:
        runs: of some planes.
        groups: of each run; runs of different groups are never one part.
        joined: for the runs of the first plane the part that they have in the planes before.
    """
    one, other = runs.edges
    same = groups[one] == groups[other]
    order = np.argsort(joined, kind="stable")
    again = joined[order][1:] == joined[order][:-1]
    one = np.concatenate([one[same], order[:-1][again]])
    other = np.concatenate([other[same], order[1:][again]])
    size = len(groups)
    graph = coo_matrix((np.ones(len(one), np.int8), (one, other)), shape=(size, size))
    found: NDArray[np.intp] = connected_components(graph, directed=False)[1]
    return found
