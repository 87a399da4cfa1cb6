"""Image features in a backbone: pooled from level to level, and injected into the decoder.

Source: DITR (Knaebel 2025, arXiv:2503.18944), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pointseg.backbones.interface.norm import BatchNorm
from pointseg.conventions import POOLINGS, ImagePooling
from pointseg.ops.grouping.segments import Segments
from pointseg.ops.hardware.linear import Linear
from pointseg.ops.hardware.pieces import is_cpu


class ImageBranch(nn.Sequential):
    """Projects image features to the width of a decoder level: (N, image_channels) -> (N, C).

    The linear layer and its normalisation have indices 1 and 2, as in DITR's checkpoints.
    """

    def __init__(self, image_channels: int, channels: int, drop: float) -> None:
        """Begin with random weights.

        Args:
            image_channels: of the image features.
            channels: of what they are added to.
            drop: probability with which a point's image features are dropped in training.
        """
        super().__init__(
            nn.Dropout1d(drop),  # of a (N, C) input it takes whole rows
            Linear(image_channels, channels),
            BatchNorm(channels),
            nn.GELU(),
        )


def pool_images(
    feat: Tensor, seen: Tensor | None, cells: Sequence[Segments], pooling: ImagePooling
) -> list[Tensor]:
    """Image features of the points, and of the cells of all coarser levels.

    Args:
        feat: (N, C) image feature of each point; 0, or one learned vector, where no image shows it.
        seen: (N,) whether an image shows the point; the masked poolings need it.
        cells: in which cell of the next level each row of a level is; as many as coarser levels.
        pooling: how the rows of a cell become one. A masked pooling gives a cell without seen rows
            what its unseen rows have, and it is unseen on the next level too.

    Returns:
        One (M, C) per level, the finest, ``feat`` itself, first.
    """
    levels = [feat]
    for segments in cells:
        if pooling == "max":
            feat = segments.reduce(feat, "max")
        else:
            assert seen is not None, "check_images() comes first"
            feat, seen = _pool_seen(feat, seen, segments, pooling)
        levels.append(feat)
    return levels


def _pool_seen(
    feat: Tensor, seen: Tensor, segments: Segments, pooling: ImagePooling
) -> tuple[Tensor, Tensor]:
    """(M, C) and (M,) of (N, C) and (N,)."""
    if not is_cpu(feat):
        return _pool_seen_whole(feat, seen, segments, pooling)
    cell_seen = seen.new_zeros(len(segments))
    cell_seen[segments.index[seen]] = True
    counts = seen | ~cell_seen.index_select(0, segments.index)
    rows = counts.nonzero()[:, 0]
    if len(rows) < len(feat):  # no cell is left without rows
        feat = feat.index_select(0, rows)
        segments = Segments.of(segments.index.index_select(0, rows), len(segments))
    return segments.reduce(feat, "max" if pooling == "masked_max" else "mean"), cell_seen


def _pool_seen_whole(
    feat: Tensor, seen: Tensor, segments: Segments, pooling: ImagePooling
) -> tuple[Tensor, Tensor]:
    """The same, and rows that do not count are not left out: how many they are is for the device alone."""
    cell_seen = segments.reduce(seen.float()[:, None], "max") > 0
    counts = seen[:, None] | ~cell_seen.index_select(0, segments.index)
    if pooling == "masked_max":
        pooled = segments.reduce(feat.masked_fill(~counts, -torch.inf), "max")
    else:
        wide = torch.promote_types(feat.dtype, torch.float32)
        sums = segments.reduce(feat.masked_fill(~counts, 0).to(wide), "sum")
        pooled = (sums / segments.reduce(counts.float(), "sum").clamp(min=1)).to(feat.dtype)
    return pooled, cell_seen[:, 0]


def check_pooling(who: str, pooling: str) -> None:
    """Refuse an unknown ``ImagePooling`` with a ValueError that begins with ``who``."""
    if pooling not in POOLINGS:
        raise ValueError(f"{who}: 'image_pooling' must be {', '.join(POOLINGS)}, got {pooling!r}")


def check_images(
    who: str,
    points: int,
    channels: int | None,
    pooling: ImagePooling,
    feat: Tensor | None,
    seen: Tensor | None,
) -> None:
    """Refuse image features that a backbone does not take, or lacks.

    Args:
        who: the backbone.
        points: N of the batch.
        channels: that it takes; None: it takes none.
        pooling: its own.
        feat: what it is given, (N, channels).
        seen: what it is given, (N,) bool.

    Raises:
        ValueError: shapes or types that do not fit, features missing or too many.
    """
    shape = None if feat is None else tuple(feat.shape)
    wanted = None if channels is None else (points, channels)
    if shape != wanted:
        raise ValueError(f"{who}: 'image_feat' must be {wanted or 'left out'}, got {shape}")
    if seen is None and (channels is None or pooling == "max"):
        return
    found = None if seen is None else (tuple(seen.shape), seen.dtype)
    if channels is None or found != ((points,), torch.bool):
        must = "left out" if channels is None else f"({points},) bool"
        got = "none" if seen is None else f"{tuple(seen.shape)} {seen.dtype}"
        raise ValueError(
            f"{who}: 'image_seen' must be {must} with image_pooling {pooling!r}, got {got}"
        )
