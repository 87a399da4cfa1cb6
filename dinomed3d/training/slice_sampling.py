"""Stage I's batches: slices sampled from nnU-Net's patches, with a share of foreground."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dinomed3d.lifting import neighbour_slices


def foreground(target: Tensor, *, ignore_label: int | None, regions: bool) -> Tensor:
    """Where nnU-Net's training target has foreground.

    Args:
        target: (B, R, ...) as nnU-Net's loss takes it: one label map, or one channel per region, plus one for
            ignored voxels if there is an ignore label.
        ignore_label: its number, or None.
        regions: whether the channels are regions.

    Returns:
        (B, ...) True at labels other than background and the ignore label.
    """
    if ignore_label is not None:
        target = target[:, :-1] if regions else target.where(target != ignore_label, 0)
    return (target > 0).any(dim=1)


def draw_slices(shown: Tensor, *, count: int, foreground_share: float) -> Tensor:
    """Sample slices of a batch of patches.

    Args:
        shown: (B, D, H, W) bool `foreground`, or (B, H, W) of single slices; on the CPU, so that no
            device is waited for.
        count: slices to sample; all of them if there are fewer.
        foreground_share: share of `count` taken from slices with foreground, as far as there are any.

    Returns:
        (count,) indices into the B * D slices, without repetition, from torch's global generator.
    """
    shows = shown.flatten(-2).any(dim=-1).flatten().numpy()  # (B * D,)
    count = min(count, shows.size)
    order = torch.randperm(shows.size).numpy()
    wanted = min(round(foreground_share * count), int(shows.sum()))
    showing, others = order[shows[order]], order[~shows[order]]
    first, rest = showing[:wanted], np.concatenate([showing[wanted:], others])
    rest = rest[torch.randperm(rest.size).numpy()][: count - wanted]
    return torch.from_numpy(np.concatenate([first, rest]))


def slice_batch(
    volume: Tensor, target: Tensor, chosen: Tensor, *, slices: int
) -> tuple[Tensor, Tensor]:
    """Stage I's input and target out of stage II's.

    Args:
        volume: (B, C, D, H, W), or (B, C, H, W) of single slices.
        target: (B, R, D, H, W), or (B, R, H, W).
        chosen: (N,) indices into the B * D slices, on the CPU.
        slices: slices per embedding (K, odd), the slice itself included.

    Returns:
        (N, K * C, H, W) slices with neighbours; (N, R, H, W) their targets.
    """
    if volume.ndim == 4:
        volume, target = volume.unsqueeze(2), target.unsqueeze(2)
    chosen = chosen.to(volume.device, non_blocking=True)
    depth = volume.shape[2]
    case, place = chosen // depth, chosen % depth
    neighbours = neighbour_slices(place, slices=slices, depth=depth)
    stacks = volume.transpose(1, 2)[case[:, None], neighbours].flatten(1, 2)
    return stacks, target.transpose(1, 2)[case, place]
