"""The shapes that an exported network takes: one window as the plan has it, or others as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dinomed3d.inference.nnunet.slice_feature_cache import halo_of
from dinomed3d.networks import DinoMed3D

AXES = "zyx"
"""Names of a window's axes, in the network's order."""


@dataclass(frozen=True, kw_only=True)
class WindowShapes:
    """The input of an exported network: (batch, channels, *patch with the halo)."""

    channels: int
    """Channels of the input."""
    patch: tuple[int, ...]
    """Shape of the logits of one window: that of the plan."""
    halo: int
    """Planes that the input has before and after the patch, along its first axis."""
    is_dynamic: bool
    """Whether the number of windows is free."""
    multiple: tuple[int, ...] | None
    """What the sides of a patch must be multiples of; None where they are those of the plan."""

    def input_shape(self, batch: int, patch: Sequence[int]) -> tuple[int, ...]:
        """Shape of the input for some windows of a patch size."""
        return (batch, self.channels, patch[0] + 2 * self.halo, *patch[1:])

    @property
    def trials(self) -> list[tuple[int, ...]]:
        """Input shapes with which the exported network is compared; a dynamic one with another batch and patch."""
        shapes = [self.input_shape(1, self.patch)]
        if self.is_dynamic:
            shapes.append(self.input_shape(2, self._other_patch()))
        return shapes

    def _other_patch(self) -> tuple[int, ...]:
        """One multiple less along each axis that can spare it, else one more."""
        if self.multiple is None:
            return self.patch
        pairs = zip(self.patch, self.multiple, strict=True)
        return tuple(side - step if side >= 3 * step else side + step for side, step in pairs)

    def traced(self) -> tuple[Tensor, Any]:
        """An input to trace the network with, and torch.export's description of its free axes.

        Sizes of 1 would be taken as constants, so free axes are larger.
        """
        if not self.is_dynamic:
            return torch.zeros(self.input_shape(1, self.patch)), None
        axes: dict[int, Any] = {0: torch.export.Dim("batch")}
        if self.multiple is None:
            return torch.zeros(self.input_shape(2, self.patch)), (axes,)
        names = AXES[-len(self.patch) :]
        for number, (name, step) in enumerate(zip(names, self.multiple, strict=True)):
            axes[2 + number] = step * torch.export.Dim(name)
        pairs = zip(self.patch, self.multiple, strict=True)
        patch = [max(side, 2 * step) for side, step in pairs]
        return torch.zeros(self.input_shape(2, patch)), (axes,)


def window_shapes(
    network: nn.Module, *, channels: int, patch: tuple[int, ...], dynamic: bool
) -> WindowShapes:
    """The shapes that a network is exported for.

    Args:
        network: as the model's trainer builds it.
        channels: of its input.
        patch: of the plan.
        dynamic: whether the number of windows is free, and the patch where the network allows it: a CNN does,
            the positions of an encoder's tokens belong to one size.
    """
    multiple = _multiple(network) if dynamic else None
    fits = multiple is not None and not any(n % m for n, m in zip(patch, multiple, strict=True))
    return WindowShapes(
        channels=channels,
        patch=patch,
        halo=halo_of(network) if len(patch) == 3 else 0,
        is_dynamic=dynamic,
        multiple=multiple if fits else None,
    )


def _multiple(network: nn.Module) -> tuple[int, ...] | None:
    """The voxels that one cell of a CNN's coarsest level covers; None for networks of other kinds."""
    if isinstance(network, DinoMed3D):
        return network.spec.cnn.cells[-1] if network.encoder is None else None
    if not type(network).__module__.startswith("dynamic_network_architectures."):
        return None
    strides = getattr(getattr(network, "encoder", None), "strides", None)
    if not strides:
        return None
    return tuple(math.prod(along) for along in zip(*strides, strict=True))
