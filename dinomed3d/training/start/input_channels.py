"""Input channels of a trained model and of the data it is trained further on: which kernel reads which."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def channel_matrix(source: Sequence[str], target: Sequence[str]) -> Tensor:
    """From which of a model's channels each channel of other data takes its kernels.

    A channel that the model knows by name takes that channel's kernels, another one the mean of them
    all. If no name says anything (none is shared, or one stands twice), channels are taken by
    position where there are as many. Kernels are scaled by the ratio of the numbers of channels, so
    that data whose channels all show the same have the same response before and after.

    Args:
        source: names of the model's channels, in order; upper and lower case are the same.
        target: names of the data's channels, in order.

    Returns:
        (target, source) factors. The identity for the same channels.
    """
    before, after = ([name.strip().lower() for name in names] for names in (source, target))
    unique = all(len(set(names)) == len(names) for names in (before, after))
    if not unique or set(before).isdisjoint(after):
        if len(before) == len(after):
            return torch.eye(len(before))
        before = [""] * len(before)  # no name says anything
    matrix = torch.full((len(after), len(before)), 1 / len(before))
    for row, name in enumerate(after):
        if name in before:
            matrix[row] = torch.tensor([float(other == name) for other in before])
    return matrix * len(before) / len(after)


def with_channels(kernel: Tensor, matrix: Tensor, *, slices: int, cascade: Tensor) -> Tensor:
    """The kernel of an input layer for other channels.

    Args:
        kernel: (E, K * S + P, ...): slices outside, S channels inside; last P for the cascade.
        matrix: (T, S) of `channel_matrix`.
        slices: K, slices that the layer reads as channels.
        cascade: (P', P) which of the previous configuration's labels each one takes its kernels from.

    Returns:
        (E, K * T + P', ...).
    """
    channels = slices * matrix.shape[1]
    image, labels = kernel[:, :channels], kernel[:, channels:]
    image = image.unflatten(1, (slices, matrix.shape[1]))
    image = torch.einsum("ts,eks...->ekt...", matrix.to(image), image).flatten(1, 2)
    labels = torch.einsum("ts,es...->et...", cascade.to(labels), labels)
    return torch.cat([image, labels], dim=1)


def describe_channels(source: Sequence[str], target: Sequence[str]) -> str:
    """Where the kernels of each channel come from, for the log; empty for the same channels."""
    matrix = channel_matrix(source, target)
    if matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, torch.eye(len(target))):
        return ""
    origins = []
    for name, row in zip(target, matrix, strict=True):
        used = [other for other, factor in zip(source, row, strict=True) if factor]
        origins.append(f"{name} from {used[0] if len(used) == 1 else 'the mean of all'}")
    factor = f", times {len(source)}/{len(target)}" if len(source) != len(target) else ""
    return f"input channels {', '.join(origins)}{factor}"
