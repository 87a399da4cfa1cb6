"""From the network's input to a mask on the grid of the scan."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
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
from dinomed3d.inference.nnunet.previous_stage import PreviousStage, with_one_hot
from dinomed3d.inference.nnunet.region import Region, keep_inside, on_network_grid
from dinomed3d.inference.nnunet.sliding_window import Batch, WindowGrid, predict_windows


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """The result of one volume."""

    mask: NDArray[Any]
    """(Z, Y, X) labels of the whole volume in its own order of axes, background outside the crop."""
    certainty: float | None
    """Mean probability of the predicted label over the foreground; None without foreground."""


def segment(
    prepared: Prepared,
    plan: Plan,
    predictor: Predictor,
    *,
    step: float,
    splits: int,
    batch: int,
    probabilities: Callable[[int, int, Tensor], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    region: Region | None = None,
) -> Segmentation:
    """Segment a volume.

    Args:
        prepared: the network's input.
        plan: of the model.
        predictor: its networks.
        step: distance between windows as a fraction of the patch, at most.
        splits: number of row ranges that are predicted one after the other: more need less memory, but
            windows across two of them are predicted twice.
        batch: windows that go through the network together.
        probabilities: receives every plane of the crop in the network's order of axes: its first row,
            its number, logits (heads, rows, X).
        progress: receives how many windows are done, of how many, after each batch.
        region: the part to segment, with exactly the windows that the whole volume would have there; background
            elsewhere.

    Raises:
        CaseError: logits that are not finite.
    """
    dtype = np.uint8 if plan.largest_label < 256 else np.uint16
    whole = np.zeros(prepared.shape, dtype)
    labels = whole[prepared.box]
    size = prepared.data.shape[1:]
    data, before = _pad(prepared.data, plan.patch)
    grid = WindowGrid.over(data.shape[1:], plan.patch, step)
    box = None
    if region is not None:
        first, second, third = plan.transpose
        box = (region.box[first], region.box[second], region.box[third])
        spans = on_network_grid(box, prepared, before)
        if spans is None:  # where all channels are zero
            return Segmentation(mask=whole.transpose(np.argsort(plan.transpose)), certainty=None)
        grid = grid.within(spans)
    resampling = plan.logits.between(
        size, prepared.crop_shape, prepared.network_spacing_mm, prepared.spacing_mm
    )
    decide = Labels() if plan.regions is None else Regions(plan.regions)
    certainty = Certainty()
    predict = predictor.predict
    if plan.previous is not None:
        predict = partial(_predict_cascade, predictor, plan.previous)
    data = data.to(predictor.device)
    row_ranges = _row_ranges(labels.shape[1], splits)
    exporters = [
        Exporter(
            labels,
            resampling,
            rows,
            decide,
            padding=before,
            certainty=certainty,
            device=predictor.device,
            probabilities=None if probabilities is None else partial(probabilities, rows[0]),
        )
        for rows in row_ranges
    ]
    if progress is not None:
        windows = sum(grid.count_reaching(exporter.row_range) for exporter in exporters)
        predict = partial(_counted, predict, _Count(windows, progress))
    while exporters:
        exporter = exporters.pop(0)
        predictor.clear_cache()
        chunks = predict_windows(
            data,
            grid,
            exporter.row_range,
            predict,
            heads=plan.heads,
            batch=batch,
            halo=predictor.halo,
        )
        with closing(chunks):
            for chunk in chunks:
                exporter.add(chunk)
    if box is not None:
        whole = keep_inside(whole, box)
    return Segmentation(mask=whole.transpose(np.argsort(plan.transpose)), certainty=certainty.mean)


@dataclass
class _Count:
    """How many windows are done."""

    windows: int
    """All of the volume, in all row ranges."""
    tell: Callable[[int, int], None]
    """Receives the windows that are done, and all."""
    done: int = 0
    """Windows that are done."""


def _counted(
    predict: Callable[[Iterable[Batch]], Generator[Tensor, None, None]],
    count: _Count,
    batches: Iterable[Batch],
) -> Generator[Tensor, None, None]:
    """Predict batches, and tell after each how many windows are done."""
    for logits in predict(batches):
        count.done += len(logits)
        count.tell(count.done, count.windows)
        yield logits  # nothing is asked for after the last one


def _predict_cascade(
    predictor: Predictor, stage: PreviousStage, batches: Iterable[Batch]
) -> Generator[Tensor, None, None]:
    """As `Predictor.predict`, for windows whose last channel holds labels."""
    return predictor.predict(with_one_hot(batches, stage))


def _row_ranges(rows: int, splits: int) -> list[tuple[int, int]]:
    """Divide rows into ranges [start, stop) of about equal size."""
    edges = np.linspace(0, rows, min(splits, rows) + 1).round().astype(int).tolist()
    return list(zip(edges[:-1], edges[1:], strict=True))


def _pad(data: Tensor, patch: tuple[int, ...]) -> tuple[Tensor, tuple[int, int, int]]:
    """Pad (C, Z, Y, X) with zeros to the size of a patch, as nnU-Net does; also the padding before."""
    short = [0] * (3 - len(patch)) + list(patch)
    missing = [max(0, p - n) for p, n in zip(short, data.shape[1:], strict=True)]
    before = (missing[0] // 2, missing[1] // 2, missing[2] // 2)
    sides = [side for m, b in zip(missing[::-1], before[::-1], strict=True) for side in (b, m - b)]
    return (F.pad(data, sides) if any(missing) else data), before
