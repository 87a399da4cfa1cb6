"""Maps the ids in a dataset's label files to training indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.scene import IGNORE

_UNKNOWN = -2


class LabelMap:
    """Training index of each raw id of a dataset; others are refused."""

    def __init__(self, dataset: str, table: Mapping[int, int]) -> None:
        if not table or min(table) < 0 or min(table.values()) < IGNORE:
            raise ValueError(
                f"LabelMap: 'table' must map ids >= 0 to indices >= {IGNORE}, got {table}"
            )
        self.dataset = dataset
        self.table = dict(table)
        self._lookup = np.full(
            max(table) + 2, _UNKNOWN, np.int32
        )  # the last row: everything beyond
        self._lookup[list(table)] = list(table.values())

    def __call__(self, raw: NDArray[np.integer[Any]], where: str) -> NDArray[np.int32]:
        """Map raw ids.

        Args:
            raw: (N,) unsigned ids.
            where: the file, for messages.

        Raises:
            DatasetError: there are unknown ids; the message counts them.
        """
        index = self._lookup[np.minimum(raw.astype(np.int64), len(self._lookup) - 1)]
        unknown = index == _UNKNOWN
        if unknown.any():
            ids, counts = np.unique(raw[unknown], return_counts=True)
            shown = ", ".join(
                f"{id_} ({count})" for id_, count in list(zip(ids, counts, strict=True))[:10]
            )
            raise DatasetError(
                f"{where}: {int(unknown.sum())} points have unknown ids ({self.dataset}): {shown}"
                + (", ..." if len(ids) > 10 else "")
            )
        return index
