"""From a stored volume to the network's input: transpose, crop, normalise, resample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.nnunet.plan import Channel, Plan
from dinomed3d.inference.nnunet.previous_stage import on_input_grid
from dinomed3d.inference.nnunet.resample import SLAB_VOXELS, new_shape, resample_array
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A volume on the network's grid, and what is needed to go back."""

    data: Tensor
    """(C, Z, Y, X) float32, in the network's order of axes; of a cascade the last channel holds labels."""
    shape: tuple[int, int, int]
    """Shape of the whole volume, in the network's order of axes."""
    box: Box
    """Position of the crop in it."""
    spacing_mm: tuple[float, float, float]
    """Spacing of the volume, in the network's order of axes."""
    network_spacing_mm: tuple[float, float, float]
    """Spacing of the network's grid."""

    @property
    def crop_shape(self) -> tuple[int, int, int]:
        """Shape of the crop."""
        a, b, c = (s.stop - s.start for s in self.box)
        return (a, b, c)


CPU = torch.device("cpu")


def prepare(
    channels: Sequence[NDArray[np.generic]],
    spacing_mm: Sequence[float],
    plan: Plan,
    *,
    previous: NDArray[np.generic] | None = None,
    device: torch.device = CPU,
) -> Prepared:
    """Preprocess like nnU-Net's DefaultPreprocessor, a few planes at a time.

    Args:
        channels: one (Z, Y, X) each, of any real type.
        spacing_mm: (z, y, x).
        plan: of the model.
        previous: (Z, Y, X) labels of a cascade's first model; needed if the plan is of its second.
        device: that normalises and resamples; where its memory is too small, the CPU does.

    Raises:
        CaseError: intensities that the model's normalisation does not accept, or an empty grid.

    Source: nnunetv2 DefaultPreprocessor.run_case_npy.
    """
    transposed = [np.transpose(channel, plan.transpose) for channel in channels]
    a, b, c = (float(spacing_mm[axis]) for axis in plan.transpose)
    spacing = (a, b, c)
    box = nonzero_box(transposed)
    cropped = [channel[box] for channel in transposed]
    shape = cropped[0].shape
    target = plan.spacing_mm if len(plan.spacing_mm) == 3 else (a, *plan.spacing_mm)
    grid = new_shape(shape, spacing, target)
    if min(grid) < 1:
        raise CaseError(
            f"at the model's spacing of {_by(target)} mm this volume of {_by(shape)} voxels of {_by(spacing)} mm "
            "(in the network's order of axes) is less than one voxel thick, which this model cannot "
            "segment; is the unit of the voxel size in its header right?"
        )
    labels = None if previous is None else np.transpose(previous, plan.transpose)[box]
    return Prepared(
        data=_on_grid(cropped, labels, plan, grid, (spacing, target), device),
        shape=transposed[0].shape,  # type: ignore[arg-type]
        box=box,
        spacing_mm=spacing,
        network_spacing_mm=(float(target[0]), float(target[1]), float(target[2])),
    )


def _on_grid(
    cropped: Sequence[NDArray[np.generic]],
    labels: NDArray[np.generic] | None,
    plan: Plan,
    grid: tuple[int, int, int],
    spacings_mm: tuple[Sequence[float], Sequence[float]],
    device: torch.device,
) -> Tensor:
    """Normalise and resample the crop; of a cascade, the labels follow as the last channel."""
    resampling = plan.data.between(cropped[0].shape, grid, *spacings_mm)
    inside = None
    if any(channel.masked for channel in plan.channels) or plan.previous is not None:
        inside = filled(cropped)
    extra = 0 if plan.previous is None else 1
    data = torch.empty((len(cropped) + extra, *resampling.new_shape))
    if plan.previous is not None:
        assert labels is not None and inside is not None
        data[-1] = on_input_grid(labels, inside, plan.previous, resampling.new_shape, *spacings_mm)
        inside = inside | np.greater(labels, 0)  # nnU-Net normalises these voxels, too
    for i, (array, channel) in enumerate(zip(cropped, plan.channels, strict=True)):
        mask = inside if channel.masked else None
        axis = resampling.separate or 0
        try:
            read = normalised(array, channel, mask, axis=axis, device=device)
            data[i] = resample_array(read, resampling, resampling.separate, device=device)
        except RuntimeError as error:  # another case is being predicted at the same time
            if not ran_out_of_memory(error):
                raise
            read = normalised(array, channel, mask, axis=axis)
            data[i] = resample_array(read, resampling, resampling.separate)
    return data


def nonzero_box(channels: Sequence[NDArray[np.generic]]) -> Box:
    """The smallest box around the voxels that are not zero in all channels; everything if all are."""
    spans = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        seen = np.zeros(channels[0].shape[axis], bool)
        for channel in channels:
            step = max(1, SLAB_VOXELS // (channel.size // channel.shape[axis]))
            for start in range(0, channel.shape[axis], step):
                part: list[slice] = [slice(None)] * 3
                part[axis] = slice(start, start + step)
                seen[part[axis]] |= (channel[tuple(part)] != 0).any(others)
        places = np.flatnonzero(seen)
        if not len(places):
            a, b, c = channels[0].shape
            return (slice(0, a), slice(0, b), slice(0, c))
        spans.append(slice(int(places[0]), int(places[-1]) + 1))
    return (spans[0], spans[1], spans[2])


def filled(channels: Sequence[NDArray[np.generic]]) -> NDArray[np.bool_]:
    """Mask of the voxels that are not zero in all channels, with its holes filled."""
    inside = np.zeros(channels[0].shape, bool)
    for channel in channels:
        inside |= channel != 0
    if inside.all():
        return inside
    regions, count = ndimage.label(~inside)
    outside = np.zeros(count + 1, bool)
    for axis in range(3):
        for end in (0, -1):
            outside[np.unique(np.take(regions, end, axis))] = True
    outside[0] = False
    return ~outside[regions]


def normalised(
    array: NDArray[np.generic],
    channel: Channel,
    mask: NDArray[np.bool_] | None,
    *,
    axis: int,
    device: torch.device = CPU,
) -> Callable[[slice], Tensor]:
    """Make a reader of normalised planes.

    Args:
        array: (Z, Y, X).
        channel: how to normalise.
        mask: the voxels that are normalised and whose statistics count; None for all.
        axis: planes are read across this axis, which becomes the first.
        device: that normalises.

    Returns:
        Function from a slice along the axis to float32 planes on the device.

    Raises:
        CaseError: RGB values outside 0 to 255.

    Source: nnunetv2 default_normalization_schemes; statistics are summed in float64 here.
    """
    planes = np.moveaxis(array, axis, 0)
    inside = None if mask is None else np.moveaxis(mask, axis, 0)
    low, high, shift, scale = _constants(planes, channel, inside)
    # a tensor, because GPUs multiply by the reciprocal of a number
    divisor = torch.tensor(scale, dtype=torch.float32, device=device)

    def read(part: slice) -> Tensor:
        slab = torch.from_numpy(np.array(planes[part], np.float32, order="C")).to(device)
        if low is not None or high is not None:
            slab.clamp_(low, high)
        change = (slab - float(np.float32(shift))).div_(divisor)
        if inside is not None and channel.scheme == "ZScoreNormalization":
            kept = torch.from_numpy(np.ascontiguousarray(inside[part])).to(device)
            change = torch.where(kept, change, slab)
        return change

    return read


def _constants(
    planes: NDArray[np.generic], channel: Channel, inside: NDArray[np.bool_] | None
) -> tuple[float | None, float | None, float, float]:
    """Lower and upper bound, shift and scale: (clip(x) - shift) / scale."""
    known = channel.intensities
    if channel.scheme == "CTNormalization":
        low, high = known["percentile_00_5"], known["percentile_99_5"]
        return low, high, known["mean"], max(known["std"], 1e-8)
    if channel.scheme == "NoNormalization":
        return None, None, 0.0, 1.0
    if channel.scheme == "ZScoreNormalization":
        return (None, None, *_mean_and_std(planes, inside))
    least, most = float(planes.min()), float(planes.max())
    if channel.scheme == "RGBTo01Normalization":
        if least < 0 or most > 255:
            raise CaseError(
                f"the model was trained on colour values of 0 to 255; this image has {least:g} to {most:g}"
            )
        return None, None, 0.0, 255.0
    return None, None, least, max(most - least, 1e-8)


def _mean_and_std(
    planes: NDArray[np.generic], inside: NDArray[np.bool_] | None
) -> tuple[float, float]:
    step = max(1, SLAB_VOXELS // (planes.size // len(planes)))
    parts = [slice(start, start + step) for start in range(0, len(planes), step)]

    def values(part: slice) -> NDArray[np.float64]:
        slab = planes[part] if inside is None else planes[part][inside[part]]
        return slab.astype(np.float64)

    count = planes.size if inside is None else int(inside.sum())
    if count == 0:  # an empty volume stays as it is
        return 0.0, 1.0
    mean = sum(values(part).sum() for part in parts) / count
    variance = sum(np.square(values(part) - mean).sum() for part in parts) / count
    return float(mean), max(float(np.sqrt(variance)), 1e-8)


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{v:.4g}" for v in values)
