"""The labels of a cascade's first model as input of the second, as nnU-Net makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.inference.nnunet.sliding_window import Batch

OUTSIDE = -1
"""nnU-Net's label of background where all channels are zero."""


@dataclass(frozen=True, kw_only=True)
class PreviousStage:
    """How the labels of the first model become input."""

    labels: tuple[int, ...]
    """Values of the labels, each a channel of 0 and 1."""
    resample: Callable[..., Any]
    """nnU-Net's resampling of label images: (1, Z, Y, X), new shape, spacing, new spacing."""


def on_input_grid(
    labels: NDArray[np.generic],
    inside: NDArray[np.bool_],
    stage: PreviousStage,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
) -> Tensor:
    """Labels on the grid of the network's input.

    Args:
        labels: (Z, Y, X) of the crop, in the network's order of axes.
        inside: the voxels of the crop that are not zero in all channels, holes filled.
        stage: of the plan.
        shape: of the input grid.
        spacing_mm: of the crop.
        new_spacing_mm: of the input grid.

    Returns:
        (Z', Y', X') float32, 0 where there is no label.

    Source: nnunetv2 DefaultPreprocessor.run_case_npy, crop_to_nonzero.
    """
    stored = labels.astype(np.float32)  # as nnU-Net reads them from a file
    stored[(labels == 0) & ~inside] = OUTSIDE
    resampled = stage.resample(
        stored[None], np.array(shape), list(spacing_mm), list(new_spacing_mm)
    )
    result = torch.from_numpy(np.ascontiguousarray(np.asarray(resampled)[0], np.float32))
    return result.clamp_(min=0)


def with_one_hot(batches: Iterable[Batch], stage: PreviousStage) -> Iterator[Batch]:
    """Windows whose last channel, of labels, is replaced by a channel of 0 and 1 for each label.

    So the whole volume keeps one channel of labels, however many there are.

    Args:
        batches: windows (B, C + 1, ...) with their places and halo.
        stage: of the plan.
    """
    for windows, places, halo in batches:
        values = torch.tensor(stage.labels, device=windows.device, dtype=windows.dtype)
        values = values.view(1, -1, *[1] * (windows.ndim - 2))
        channels = (windows[:, -1:] == values).to(windows.dtype)
        yield torch.cat([windows[:, :-1], channels], 1), places, halo
