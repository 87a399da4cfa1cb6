"""One prepared volume through the network and back to the scan's grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dinomed3d.inference.nnunet.label_export import Certainty, Exporter, Labels, Regions
from dinomed3d.inference.nnunet.plan import Plan
from dinomed3d.inference.nnunet.predictor import Predictor
from dinomed3d.inference.nnunet.preprocess import Prepared
from dinomed3d.inference.nnunet.sliding_window import WindowGrid, sweep


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What came of a volume."""

    mask: NDArray[Any]
    """(Z, Y, X) in the volume's own order of axes."""
    certainty: float | None
    """Mean probability of what was chosen, over the foreground; None without foreground."""


def segment(
    prepared: Prepared,
    plan: Plan,
    predictor: Predictor,
    *,
    step: float,
    bands: int,
    batch: int,
    probabilities: Callable[[int, int, Tensor], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Segmentation:
    """Segment a volume.

    Args:
        prepared: the network's input.
        plan: the model's.
        predictor: its networks.
        step: share of a patch from one window to the next, at most.
        bands: parts of the volume that are swept one after the other: less memory, but windows
            between two of them are predicted twice.
        batch: windows that go through the network together.
        probabilities: given every plane of the crop in the network's order of axes: its first row,
            its number, logits (heads, rows, X).
        progress: told the share that is done.

    Returns:
        The mask on the volume's whole grid, background outside the crop.

    Raises:
        CaseError: logits that are not finite.
    """
    largest = np.uint8 if plan.largest_label < 256 else np.uint16
    whole = np.zeros(prepared.shape, largest)
    labels = whole[prepared.box]
    size = prepared.data.shape[1:]
    data, before = _pad(prepared.data, plan.patch)
    layers = WindowGrid.over(data.shape[1:], plan.patch, step)
    resampling = plan.logits.between(
        size, prepared.crop_shape, prepared.network_spacing_mm, prepared.spacing_mm
    )
    decide = Labels() if plan.regions is None else Regions(plan.regions)
    certainty = Certainty()
    data = data.to(predictor.device)
    edges = np.linspace(0, labels.shape[1], min(bands, labels.shape[1]) + 1).round().astype(int)
    spans = [(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    for number, rows in enumerate(spans):
        exporter = Exporter(
            labels,
            resampling,
            rows,
            decide,
            padding=before,
            certainty=certainty,
            device=predictor.device,
            probabilities=None if probabilities is None else partial(probabilities, rows[0]),
        )
        predictor.begin()
        for slab in sweep(
            data, layers, exporter.band, predictor.stream, heads=plan.heads, batch=batch
        ):
            exporter.add(slab)
            if progress is not None:
                done = (slab.first + slab.logits.shape[1]) / layers.size[0]
                progress((number + done) / len(spans))
    return Segmentation(mask=whole.transpose(np.argsort(plan.transpose)), certainty=certainty.mean)


def _pad(data: Tensor, patch: tuple[int, ...]) -> tuple[Tensor, tuple[int, int, int]]:
    """Zeros around (C, Z, Y, X) up to the size of a patch, as nnU-Net pads; and how many are before."""
    short = [0] * (3 - len(patch)) + list(patch)
    missing = [max(0, p - n) for p, n in zip(short, data.shape[1:], strict=True)]
    before = (missing[0] // 2, missing[1] // 2, missing[2] // 2)
    sides = [side for m, b in zip(missing[::-1], before[::-1], strict=True) for side in (b, m - b)]
    return (F.pad(data, sides) if any(missing) else data), before
