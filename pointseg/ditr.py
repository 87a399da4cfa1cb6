"""DITR: what a frozen 2D foundation encoder sees at each point of a cloud.

    images -> encoder -> maps \
                               sample (and fuse) -> (N, C) features on points, (N,) seen -> backbone
    pixels of points, visible /

Where one view per point is fused the loader has chosen it (``Cloud.image_view``), and each point is read once.

Source: Knaebel et al. 2025, "DINO in the Room" (DITR), arXiv:2503.18944, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dinomed3d.lifting import (
    Encoder,
    FeatureMap,
    Last,
    Max,
    Mean,
    ViewFusion,
    in_image,
    sample_and_fuse,
    sample_bilinear,
    sample_chosen,
    sample_nearest,
)
from dinomed3d.lifting.dino import LVD_MEAN, LVD_STD
from dinomed3d.lifting.fusion import Random
from dinomed3d.lifting.on_devices import sample_every
from dinomed3d.lifting.tiles import encode_in_tiles
from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.conventions import CHOOSING_FUSES, FUSES
from pointseg.ops.grouping.offsets import batch_of
from pointseg.ops.hardware.pieces import is_cpu

_FUSES: dict[str, Callable[[], ViewFusion]] = {
    "last": Last,
    "random": Last,
    "mean": Mean,
    "max": Max,
}
"""Fusions of clouds that come with all views; the nearest of them takes distances, which clouds lack."""
_SAMPLES: dict[str, Callable[[FeatureMap, int | Tensor, Tensor], Tensor]] = {
    "nearest": sample_nearest,
    "bilinear": sample_bilinear,
}
_IMAGES = 32
"""Number of images normalised and encoded at a time; only their maps are kept."""


class PointImages(nn.Module):
    """Images of a batch in, features on its points out.

    The encoder is frozen and not part of the state dict, so that checkpoints stay small and are the
    same whether features are computed here or cached; ``.to()`` moves it along. The only learned
    parameter is the missing token.
    """

    encoder: Encoder | None
    """The frozen image encoder; None if clouds come with feature maps."""

    def __init__(
        self,
        encoder: Encoder | None,
        *,
        channels: int,
        stride: int,
        image_size: tuple[int, int],
        fuse: str = "last",
        sample: str = "nearest",
        missing_token: bool = False,
        tile: int | None = None,
    ) -> None:
        """Freeze the encoder and check its sizes.

        Args:
            encoder: its last taps are read, as many as ``channels`` needs; usually one, the last block after the
                final norm. None if clouds come with ``image_maps``.
            channels: of the encoder's features, of the taps one after the other.
            stride: side of a patch, pixels.
            image_size: (H, W) of all images, pixels.
            fuse: how the features of the views that see a point become one: mean or max; last, random and
                nearest read the view that the cloud says. Of a cloud with all views they take the last one,
                random in training one at random, and nearest refuses.
            sample: how a feature map is read: nearest patch, or bilinear.
            missing_token: whether points that no view sees get a learned vector instead of zeros.
            tile: side of the tiles in which larger images are encoded, pixels, a multiple of ``stride``, as the
                sides of the images then must be; None: they are encoded as a whole.

        Raises:
            ValueError: an argument is out of range.
            UserError: the encoder's features differ from ``channels`` and ``stride``.
        """
        super().__init__()
        if fuse not in FUSES:
            raise ValueError(f"PointImages: 'fuse' must be one of {', '.join(FUSES)}, got {fuse!r}")
        if sample not in _SAMPLES:
            raise ValueError(
                f"PointImages: 'sample' must be one of {', '.join(_SAMPLES)}, got {sample!r}"
            )
        if min(channels, stride, *image_size) < 1:
            raise ValueError(
                "PointImages: 'channels', 'stride' and 'image_size' must be >= 1, got "
                f"{channels}, {stride} and {tuple(image_size)}"
            )
        if tile is not None and (tile < 1 or any(x % stride for x in (tile, *image_size))):
            raise ValueError(
                f"PointImages: 'tile' and 'image_size' must be multiples of {stride}, got {tile} and "
                f"{tuple(image_size)}"
            )
        taps = 1 if encoder is None else channels // encoder.channels
        if encoder is not None and (
            not 1 <= taps <= len(encoder.taps)
            or (encoder.channels * taps, encoder.stride) != (channels, stride)
        ):
            raise UserError(
                f"the model reads {channels} channels of images in patches of {stride} pixels, the encoder "
                f"has {encoder.all_channels} in patches of {encoder.stride}; give the encoder that the model was "
                "trained with"
            )
        height, width = image_size
        self.channels, self.stride, self.image_size = channels, stride, (height, width)
        self.fuse, self.sample, self.tile, self.taps = fuse, sample, tile, taps
        # bypasses nn.Module, so that its weights are neither saved nor trained
        self.__dict__["encoder"] = None if encoder is None else encoder.freeze()
        self.missing_token = None
        if missing_token:
            self.missing_token = nn.Parameter(torch.empty(channels))
            nn.init.trunc_normal_(self.missing_token, std=0.02)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PointImages:
        """As nn.Module, and the encoder with it."""
        if self.encoder is not None:
            self.encoder._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, cloud: Cloud) -> tuple[Tensor, Tensor]:
        """Features of a batch's points.

        Only views that see a point are encoded, each once.

        Args:
            cloud: N points with ``image_coord``, ``image_mask``, ``image_view`` where one view was chosen, and
                either ``images`` (S, V, 3, H, W) or ``image_maps`` (S, V, C, h, w).

        Returns:
            (N, C) in autocast's type, else that of ``cloud.feat``; 0 or the missing token where unseen.
            (N,) bool, whether a view sees the point.

        Raises:
            UserError: the cloud has no images, images of another size, or maps of another encoder; or there
                is no encoder.
        """
        coord, mask = self._check(cloud)
        mask = mask & self._on_map(coord)
        if cloud.image_view is None:
            feat, seen = self._of_all_views(cloud, coord, mask)
        else:
            feat, seen = self._of_chosen_view(cloud, cloud.image_view, coord[:, 0], mask[:, 0])
        if self.missing_token is not None:
            token = self.missing_token.to(feat.dtype)
            if is_cpu(feat):
                feat[~seen] = token
            else:  # to find the rows would be to wait for the device
                feat = torch.where(seen[:, None], feat, token)
        return feat, seen

    def _of_chosen_view(
        self, cloud: Cloud, view: Tensor, coord: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, C) features and (N,) seen, each point read from one view.

        Args:
            cloud: the batch.
            view: (N,) views of each sample, -1 where none.
            coord: (N, 2) pixels there.
            mask: (N,) visible there.
        """
        given = cloud.images if cloud.image_maps is None else cloud.image_maps
        assert given is not None
        seen = mask & (view >= 0)
        # of all samples' views, one after the other; the last place is of points without a view
        views = given.shape[0] * given.shape[1]
        number = view.long() + given.shape[1] * batch_of(cloud.sample_ends, len(cloud))
        number = torch.where(seen, number, views)
        used = torch.zeros(views + 1, dtype=torch.bool, device=mask.device)
        used.index_fill_(0, number, True)
        used[-1] = False
        maps = self._maps(cloud, _numbers(used[:-1]))
        if not len(maps):
            return maps.new_zeros(len(cloud), self.channels), seen
        row = (used.cumsum(0) - 1).masked_fill_(~used, -1)  # of a view's map
        found, row = FeatureMap(maps, self.stride, self.image_size), row[number]
        if is_cpu(maps):
            return sample_chosen(found, row, coord, sample=_SAMPLES[self.sample])
        laid_out = replace(found, values=maps.contiguous(memory_format=torch.channels_last))
        return sample_every(laid_out, row, coord, sample=_SAMPLES[self.sample]), seen

    def _of_all_views(self, cloud: Cloud, coord: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) features and (N,) seen, fused sample by sample.

        Args:
            cloud: the batch.
            coord: (N, V, 2) pixels.
            mask: (N, V) visible.
        """
        ends = cloud.sample_ends.tolist()
        samples = list(zip([0, *ends[:-1]], ends, strict=True))
        used = torch.stack([mask[start:end].any(0) for start, end in samples])  # (S, V)
        numbers = _numbers(used.flatten())
        views = mask.shape[1]
        shown = [
            [n % views for n in numbers if n // views == sample] for sample in range(len(ends))
        ]
        maps = self._maps(cloud, numbers)

        each = (
            self._lifted(some, coord[start:end], mask[start:end], of_sample)
            for some, (start, end), of_sample in zip(
                maps.split([len(of_sample) for of_sample in shown]), samples, shown, strict=True
            )
        )
        if len(samples) == 1:
            return next(each)
        feat, seen = maps.new_empty(len(cloud), self.channels), mask.new_empty(len(cloud))
        for start, end in samples:
            feat[start:end], seen[start:end] = next(each)
        return feat, seen

    @property
    def token_channels(self) -> int:
        """Channels of class tokens, of which there is one for all taps."""
        return self.channels if self.encoder is None else self.encoder.channels

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Feature maps of images, normalised as the encoder was trained.

        Args:
            images: (K, 3, H, W) uint8, K >= 1.

        Returns:
            (K, C, h, w) in autocast's type, else that of the encoder's weights.

        Raises:
            UserError: there is no encoder.
        """

        def whole(images: Tensor) -> Tensor:
            (maps,) = self._encoded(images, lambda encoder, some: (self._joined(encoder(some)),))
            return maps

        if self.tile is None:
            return whole(images)
        return encode_in_tiles(whole, images, tile=self.tile, stride=self.stride)

    @torch.no_grad()
    def encode_with_cls(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As ``encode``, and the (K, token_channels) class tokens of the images from the same pass; no tiles."""

        def both(encoder: Encoder, some: Tensor) -> tuple[Tensor, ...]:
            found, cls_tokens = encoder.forward_with_cls(some)
            return self._joined(found), cls_tokens

        maps, cls_tokens = self._encoded(images, both)
        return maps, cls_tokens

    def _joined(self, maps: Sequence[FeatureMap]) -> Tensor:
        """(K, C, h, w) of the last taps, one after the other as channels."""
        read = [tap.values for tap in maps[-self.taps :]]
        return read[0] if self.taps == 1 else torch.cat(read, 1)

    def _encoded(
        self, images: Tensor, run: Callable[[Encoder, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Apply ``run`` to normalised images, a few at a time."""
        if self.encoder is None:
            raise UserError(
                "the model reads images, but has no encoder: give --weights of its encoder, or features made by "
                "pointseg-cache-features"
            )
        own = next((p.dtype for p in self.encoder.parameters()), torch.float32)
        dtype = _autocast_type(images.device) or own
        mean, std = (
            torch.tensor(values, device=images.device)[:, None, None]
            for values in (LVD_MEAN, LVD_STD)
        )
        parts = []
        for some in images.split(_IMAGES):
            normalised = ((some / 255 - mean) / std).to(own)
            parts.append([out.to(dtype) for out in run(self.encoder, normalised)])
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return (
            f"channels={self.channels}, stride={self.stride}, image_size={self.image_size}, "
            f"fuse={self.fuse}, sample={self.sample}, tile={self.tile}"
        )

    def _lifted(
        self, maps: Tensor, coord: Tensor, mask: Tensor, used: list[int]
    ) -> tuple[Tensor, Tensor]:
        """(n, C) features and (n,) seen of one sample.

        Args:
            maps: (U, C, h, w) of the views that are used.
            coord: (n, V, 2) pixels.
            mask: (n, V) visible.
            used: the U views.
        """
        if not len(maps):
            return maps.new_zeros(len(mask), self.channels), mask.any(1)
        if len(used) < mask.shape[1]:
            index = _index(used, mask.device)
            coord, mask = coord.index_select(1, index), mask.index_select(1, index)
        return sample_and_fuse(
            FeatureMap(maps, self.stride, self.image_size),
            coord,
            mask,
            fuse=self._fuse(),
            sample=_SAMPLES[self.sample],
        )

    @property
    def _cells(self) -> tuple[int, int]:
        """Rows and columns of a feature map."""
        height, width = self.image_size
        return -(-height // self.stride), -(-width // self.stride)

    def _on_map(self, coord: Tensor) -> Tensor:
        """(N, V) whether positions lie in a cell of the map; a rounded coordinate may lie on its edge."""
        return in_image((coord / self.stride).floor(), self._cells)

    def _fuse(self) -> ViewFusion:
        if self.fuse == "random" and self.training:
            return Random(torch.default_generator)
        return _FUSES[self.fuse]()

    def _maps(self, cloud: Cloud, used: list[int]) -> Tensor:
        """(U, C, h, w) of the views that are used, numbered through all samples."""
        dtype = _autocast_type(cloud.feat.device) or cloud.feat.dtype
        given = cloud.images if cloud.image_maps is None else cloud.image_maps
        assert given is not None
        images = given.flatten(0, 1)
        if len(used) < len(images):
            images = images.index_select(0, _index(used, images.device))
        if cloud.image_maps is not None:
            return images.to(dtype)
        if not len(images):
            return cloud.feat.new_empty(0, self.channels, *self._cells, dtype=dtype)
        maps = self.encode(images).to(dtype)
        if maps.shape[1:] != (self.channels, *self._cells):
            raise UserError(
                f"PointImages: the encoder must give maps of {(self.channels, *self._cells)}, gave "
                f"{tuple(maps.shape[1:])}"
            )
        return maps

    def _check(self, cloud: Cloud) -> tuple[Tensor, Tensor]:
        """``image_coord`` and ``image_mask``.

        Raises:
            UserError: see ``forward``.
        """
        coord, mask = cloud.image_coord, cloud.image_mask
        given = cloud.images if cloud.image_maps is None else cloud.image_maps
        if coord is None or mask is None or given is None:
            raise UserError(
                "the model reads images, and the cloud has none: it must have 'image_coord', 'image_mask', "
                "and 'images' or 'image_maps'"
            )
        if self.fuse == "nearest" and cloud.image_view is None:
            raise UserError(
                "PointImages: with fuse nearest the cloud must have 'image_view', the nearest view of each point"
            )
        if self.fuse not in CHOOSING_FUSES and cloud.image_view is not None:
            raise UserError(
                f"PointImages: with fuse {self.fuse} the cloud must have all views of each point, has 'image_view'"
            )
        views = given.shape[1] if cloud.image_view is None else 1
        if coord.shape != (*mask.shape, 2) or mask.shape[1] != views:
            raise UserError(
                f"PointImages: the cloud has {given.shape[1]} views, so 'image_coord' must be "
                f"(N, {views}, 2) and 'image_mask' (N, {views}), got "
                f"{tuple(coord.shape)} and {tuple(mask.shape)}"
            )
        if cloud.image_maps is None and given.shape[2:] != (3, *self.image_size):
            raise UserError(
                f"PointImages: 'images' must be (S, V, 3, {self.image_size[0]}, {self.image_size[1]}), "
                f"got {tuple(given.shape)}; resize them as in the model's recipe"
            )
        if cloud.image_maps is not None and given.shape[2:] != (self.channels, *self._cells):
            raise UserError(
                f"PointImages: 'image_maps' must be (S, V, {self.channels}, {self._cells[0]}, "
                f"{self._cells[1]}), got {tuple(given.shape)}; they belong to another encoder or image size"
            )
        return coord, mask


def _numbers(flags: Tensor) -> list[int]:
    """Places of a few flags that are set; waits for the device, once in a forward pass."""
    return [place for place, flag in enumerate(flags.tolist()) if flag]


def _index(numbers: list[int], device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64).to(device, non_blocking=True)


def _autocast_type(device: torch.device) -> torch.dtype | None:
    kind: Any = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None
