"""The probabilities of all classes on the grid of the scan, compressed plane by plane."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinomed3d.inference.io.orientation import Reorientation
from dinomed3d.inference.nnunet.plan import Plan
from dinomed3d.inference.nnunet.preprocess import Prepared
from dinomed3d.runtime.files.atomic_files import move_into_place, temp_path


class ProbabilityFile:
    """A blosc2 array (heads, Z, Y, X) of float16 in the scan's stored order of voxels.

    Softmax over the classes, or a sigmoid for each region. Outside the crop that the network sees
    the background has probability 1. Read it with `blosc2.open(path)[:, z]`.
    """

    def __init__(
        self,
        path: Path,
        plan: Plan,
        prepared: Prepared,
        reorientation: Reorientation | None,
        *,
        dtype: type[np.floating[Any]] = np.float16,
    ) -> None:
        """Begin the file, under a temporary name.

        Args:
            path: ends in `.b2nd`; its folder is created.
            plan: of the model.
            prepared: the volume, for its crop.
            reorientation: of the stored volume before it was prepared.
            dtype: of the probabilities.
        """
        import blosc2

        self.path, self.plan, self.box = path, plan, prepared.box
        self.dtype = dtype
        axes = reorientation.axes if reorientation is not None else (0, 1, 2)
        flipped = reorientation.flipped if reorientation is not None else (False, False, False)
        self.axes = [axes[axis] for axis in plan.transpose]  # stored axis of each network axis
        self.flipped = [flipped[axis] for axis in plan.transpose]
        self.sizes = prepared.shape
        shape = [0, 0, 0]
        for axis, size in zip(self.axes, self.sizes, strict=True):
            shape[axis] = size
        chunk = list(shape)
        chunk[self.axes[0]] = 1
        path.parent.mkdir(parents=True, exist_ok=True)
        self.part = temp_path(path)
        self.array: Any = blosc2.zeros(
            (plan.heads, *shape),
            dtype=dtype,
            chunks=(min(16, plan.heads), *chunk),
            urlpath=str(self.part),
            mode="w",
        )
        if plan.regions is None:
            planes = [slice(None)] * 3
            for number in range(shape[self.axes[0]]):
                planes[self.axes[0]] = slice(number, number + 1)
                sizes = [1 if axis == self.axes[0] else n for axis, n in enumerate(shape)]
                self.array[(slice(0, 1), *planes)] = np.ones((1, *sizes), dtype)

    def add(self, row: int, plane: int, logits: Tensor) -> None:
        """Write rows of one plane of the crop, in the network's order of axes.

        Args:
            row: number of the first row.
            plane: number of the plane.
            logits: (heads, rows, X).
        """
        rule = torch.softmax(logits, 0) if self.plan.regions is None else torch.sigmoid(logits)
        values = rule.cpu().numpy().astype(self.dtype)[:, None]  # (heads, 1, rows, X)
        starts = (plane, row, 0)
        place: list[slice] = [slice(0)] * 3
        for k in range(3):
            start = self.box[k].start + starts[k]
            stop = start + values.shape[k + 1]
            if self.flipped[k]:
                start, stop = self.sizes[k] - stop, self.sizes[k] - start
                values = np.flip(values, k + 1)
            place[self.axes[k]] = slice(start, stop)
        order = [1 + self.axes.index(axis) for axis in range(3)]
        self.array[(slice(None), *place)] = np.ascontiguousarray(values.transpose(0, *order))

    def finish(self, on_sign: Callable[[], None] = lambda: None) -> None:
        """Complete the file under its final name.

        Args:
            on_sign: is called now and then where that takes long.
        """
        self.array = None
        move_into_place(self.part, self.path)

    def discard(self) -> None:
        """Remove the temporary file, if there still is one."""
        self.array = None
        self.part.unlink(missing_ok=True)
