"""Stage I's batches: slices drawn from nnU-Net's patches, those with foreground favoured."""

from __future__ import annotations

import torch
from torch import Tensor

from dinomed3d.lifting import stack_slices


def foreground(target: Tensor, *, ignore_label: int | None, regions: bool) -> Tensor:
    """Where nnU-Net's training target shows something to be learned.

    Args:
        target: (B, R, ...) as nnU-Net's loss gets it: one label map, or one channel per region, with
            one more for what is ignored if there is an ignore label.
        ignore_label: its number, or None.
        regions: whether the channels are regions.

    Returns:
        (B, ...) True where any label but background and the ignored one is.
    """
    if ignore_label is not None:
        target = target[:, :-1] if regions else target.where(target != ignore_label, 0)
    return (target > 0).any(dim=1)


def draw_slices(shown: Tensor, *, count: int, foreground_share: float) -> Tensor:
    """Choose slices of a batch of patches.

    Args:
        shown: (B, D, H, W), where there is foreground.
        count: slices to choose; all of them where there are fewer.
        foreground_share: share of `count` drawn from slices with foreground, as far as there are any.

    Returns:
        (count,) numbers into the B * D slices, drawn without repetition with torch's global generator.
    """
    shows = shown.flatten(2).any(dim=2).flatten()  # (B * D,)
    total = shows.numel()
    count = min(count, total)
    order = torch.randperm(total)  # on the CPU: the same draw on every device
    shows = shows.cpu()[order]
    wanted = min(round(foreground_share * count), int(shows.sum()))
    first, rest = order[shows][:wanted], torch.cat([order[shows][wanted:], order[~shows]])
    rest = rest[torch.randperm(rest.numel())][: count - wanted]
    return torch.cat([first, rest]).to(shown.device)


def slice_batch(
    volume: Tensor,
    target: Tensor,
    shown: Tensor,
    *,
    slices: int,
    count: int,
    foreground_share: float,
) -> tuple[Tensor, Tensor]:
    """Stage I's input and target out of stage II's.

    Args:
        volume: (B, C, D, H, W), or (B, C, H, W), where every image is a slice.
        target: (B, R, D, H, W), or (B, R, H, W).
        shown: (B, D, H, W), or (B, H, W): where there is foreground.
        slices: K, odd.
        count: see `draw_slices`.
        foreground_share: likewise.

    Returns:
        (N, K * C, H, W) slices with neighbours; (N, R, H, W) their targets.
    """
    if volume.ndim == 4:
        volume, target, shown = volume.unsqueeze(2), target.unsqueeze(2), shown.unsqueeze(1)
    chosen = draw_slices(shown, count=count, foreground_share=foreground_share)
    stacks = stack_slices(volume, slices=slices)[chosen]
    return stacks, target.transpose(1, 2).flatten(0, 1)[chosen]
