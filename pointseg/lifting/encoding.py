"""Feature maps of posed images of any size, kept for as many passes over the points as are made."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dinomed3d.lifting import Encoder, FeatureMap
from pointseg.ditr import PointImages
from pointseg.images.config import whole_patches
from pointseg.images.preprocess import load_images
from pointseg.images.readers.frame import Frame
from pointseg.lifting.kept_arrays import KeptArrays
from pointseg.lifting.views import Step, Views

PIXELS = 480_000
"""Larger images are reduced to about this area before they are encoded; smaller ones are not enlarged."""


def encoded_size(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Height and width to which an image is resized unless somebody asks for others.

    Args:
        size: of the image, pixels; its aspect ratio is kept, as far as whole patches allow.
        patch: side of a patch of the encoder, pixels.
    """
    scale = min(1.0, (PIXELS / (size[0] * size[1])) ** 0.5)
    return whole_patches((round(size[0] * scale), round(size[1] * scale)), patch)


def encode_frame(
    frame: Frame, size: tuple[int, int], encoder: Encoder, device: torch.device | str
) -> NDArray[np.float32]:
    """(h, w, C) features of one image.

    Args:
        frame: the image.
        size: height and width to which it is resized, pixels.
        encoder: on ``device``; its last tap is read.
        device: where it computes.

    Raises:
        UserError: the image is missing, damaged or of another size than its camera.
    """
    images, _ = load_images([frame], size)
    module = PointImages(encoder, channels=encoder.channels, stride=encoder.stride, image_size=size)
    values = module.encode(torch.from_numpy(images).to(device))
    return np.asarray(values[0].permute(1, 2, 0).float().cpu().contiguous().numpy())


class EncodedViews:
    """The feature maps of all views, by their number."""

    def __init__(
        self,
        views: Views,
        encoder: Encoder,
        kept: KeptArrays,
        *,
        device: torch.device | str = "cpu",
        step: Step = lambda done, total: None,
    ) -> None:
        """Encode every image once.

        Args:
            views: whose images are encoded.
            encoder: the encoder; it is frozen and moved to ``device``.
            kept: keeps the maps.
            device: where it computes.
            step: reports progress.

        Raises:
            UserError: see ``encode_frame``.
        """
        self._views, self._kept, self._device = views, kept, device
        self._stride, self.channels = encoder.stride, encoder.channels
        encoder = encoder.freeze().to(device)
        for number, (frame, size) in enumerate(zip(views.frames, views.sizes, strict=True)):
            step(number, len(views))
            kept.append(encode_frame(frame, size, encoder, device))
        step(len(views), len(views))

    def __call__(self, view: int) -> FeatureMap:
        """The map of a view."""
        values = torch.from_numpy(self._kept[view]).to(self._device)
        return FeatureMap(values.permute(2, 0, 1)[None], self._stride, self._views.sizes[view])


class PixelViews:
    """The images themselves as maps of three channels, read again for each pass."""

    channels = 3

    def __init__(self, views: Views) -> None:
        self._views = views

    def __call__(self, view: int) -> FeatureMap:
        """Red, green and blue of a view, 0 to 255."""
        size = self._views.sizes[view]
        images, _ = load_images([self._views.frames[view]], size)
        return FeatureMap(torch.from_numpy(images).float(), 1, size)
