"""The interface of image encoders: one feature map per tap, each with its stride."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureMap:
    """One tap's features of a set of images.

    Cell (i, j) covers the pixels [i * stride, (i + 1) * stride) x [j * stride, (j + 1) * stride) of
    the image; the last row and column may reach past an image whose size is no multiple of
    `stride`.
    """

    values: Tensor
    """(V, C, h, w), h = ceil(H / stride), w = ceil(W / stride)."""
    stride: int
    """Side of one cell, pixels."""
    image_size: tuple[int, int]
    """(H, W) of the images before padding, pixels."""


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of `multiple`.

    Args:
        images: (V, C, H, W), H and W at least 1.
        multiple: pixels, >= 1.

    Returns:
        (V, C, H', W') with the images in the upper left corner; `images` itself where they fit.
    """
    height, width = images.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images


class Encoder(nn.Module, ABC):
    """Images in, feature maps out. A frozen encoder stays in eval mode and records no gradients.

    Subclasses hold the network and define how padded images become maps.
    """

    stride: int
    """Side of one feature cell, pixels."""
    channels: int
    """Channels of every feature map."""
    in_channels: int = 3
    """Channels of the images; other than 3 only where a patch embedding was inflated."""
    taps: tuple[int, ...]
    """Blocks whose output is given, 0-based, increasing."""

    def __init__(self, *, chunk_mib: float = 1024.0, precision: torch.dtype | None = None) -> None:
        """Set how much is encoded at a time and in which precision.

        Args:
            chunk_mib: activations that one chunk of images may hold by estimate, MiB. Chunks bound
                memory only where no gradient is recorded, so they are used only there.
            precision: None (that of the weights), or torch.bfloat16 / torch.float16 for autocast.
        """
        super().__init__()
        if chunk_mib <= 0:
            raise ValueError(f"Encoder: 'chunk_mib' must be positive, got {chunk_mib}")
        if precision not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"Encoder: 'precision' must be a float type, got {precision}")
        self.chunk_mib = chunk_mib
        self.precision = None if precision == torch.float32 else precision
        self.frozen = False

    @property
    def all_channels(self) -> int:
        """Channels of the maps of all taps together."""
        return self.channels * len(self.taps)

    def freeze(self) -> Encoder:
        """Stop gradients into every parameter and stay in eval mode from now on."""
        self.frozen = True
        self.requires_grad_(False)
        return self.train(False)

    def unfreeze(self) -> Encoder:
        """Let every parameter be trained again; the mode is left to `.train()`."""
        self.frozen = False
        self.requires_grad_(True)
        return self

    def train(self, mode: bool = True) -> Encoder:
        """As nn.Module.train, but a frozen encoder stays in eval mode."""
        super().train(mode and not self.frozen)
        return self

    @abstractmethod
    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """One (V, C, H / stride, W / stride) per tap, of images whose sides are multiples of it."""

    def maps_and_cls_token(self, images: Tensor) -> tuple[Tensor, ...]:
        """As `maps`, followed by the (V, C) class tokens, which describe each image as a whole."""
        raise NotImplementedError(f"{type(self).__name__} has no class token")

    @abstractmethod
    def bytes_per_image(self, height: int, width: int) -> int:
        """Estimate of the activations that one image needs without gradients."""

    def forward(self, images: Tensor) -> tuple[FeatureMap, ...]:
        """Encode images of any size.

        Args:
            images: (V, 3, H, W), normalised as for the encoder's weights.

        Returns:
            One FeatureMap per tap; values in the type of `images`.

        Raises:
            ValueError: `images` is not (V, 3, H, W) or is empty.
        """
        maps = self._encoded(images, self.maps)
        size = (images.shape[-2], images.shape[-1])
        return tuple(FeatureMap(tap, self.stride, size) for tap in maps)

    def forward_with_cls(self, images: Tensor) -> tuple[tuple[FeatureMap, ...], Tensor]:
        """As `forward`, and the (V, C) class tokens from the same pass."""
        *maps, cls_token = self._encoded(images, self.maps_and_cls_token)
        size = (images.shape[-2], images.shape[-1])
        return tuple(FeatureMap(tap, self.stride, size) for tap in maps), cls_token

    def _encoded(
        self, images: Tensor, run: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Apply `run` to padded images, chunk by chunk; results in the type of `images`."""
        if images.ndim != 4 or images.shape[1] != self.in_channels or 0 in images.shape:
            raise ValueError(
                f"Encoder: 'images' must be (V, {self.in_channels}, H, W) and not empty, "
                f"got {tuple(images.shape)}"
            )
        padded = pad_to_multiple(images, self.stride)
        with self._autocast(images.device), torch.set_grad_enabled(self._records_gradients(images)):
            parts = [run(chunk) for chunk in self._chunks(padded)]
        return tuple(torch.cat(tap).to(images.dtype) for tap in zip(*parts, strict=True))

    def _records_gradients(self, images: Tensor) -> bool:
        trained = not self.frozen and any(p.requires_grad for p in self.parameters())
        return torch.is_grad_enabled() and (trained or images.requires_grad)

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(device.type, self.precision)

    def _chunks(self, images: Tensor) -> Iterator[Tensor]:
        if torch.is_grad_enabled():
            return iter((images,))
        size = self.bytes_per_image(images.shape[-2], images.shape[-1])
        return iter(images.split(max(1, int(self.chunk_mib * 2**20 // size))))
