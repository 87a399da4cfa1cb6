"""Whether the weights of a file are those of a network: names and shapes, before any memory is taken for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def misfits(planned: Mapping[str, Any], weights: Mapping[str, Any]) -> list[str]:
    """What differs between a network and weights for it; empty if they fit.

    Args:
        planned: the network's state dict; on PyTorch's device `meta` it takes no memory.
        weights: name -> tensor, of a file.

    Returns:
        A phrase each for missing, unexpected and differently shaped tensors, with the first of each.
    """
    missing = [name for name in planned if name not in weights]
    unexpected = [name for name in weights if name not in planned]
    shapes = [
        f"{name} is {list(weights[name].shape)}, the network's {list(planned[name].shape)}"
        for name in planned
        if name in weights and weights[name].shape != planned[name].shape
    ]
    return [
        *([f"{len(missing)} are missing, such as {missing[0]}"] if missing else []),
        *([f"{len(unexpected)} are unexpected, such as {unexpected[0]}"] if unexpected else []),
        *shapes[:1],
    ]
