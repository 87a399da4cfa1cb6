"""Linear layers over many rows, through the faster of two libraries.

Torch multiplies float32 matrices on a CPU by the BLAS it was built with, which on some processors
leaves half of the vector unit idle; its convolutions go through oneDNN, which does not. A 1 x 1
convolution of channels-last images is the same product. Elsewhere, for other types, and where BLAS is
known to be as fast, this is ``torch.nn.functional.linear``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from pointseg.ops.hardware.blas import fills_vectors
from pointseg.ops.hardware.pieces import is_cpu

IMAGES = 16
"""Rows are handed over as so many images: with fewer, torch may choose its BLAS again."""
_STEP = 8192
"""Rows at a time, so that a product is copied to its place while it is still in the cache."""
_WORTH = 512
"""Fewer rows are multiplied by ``linear``, which starts faster."""


class Linear(nn.Linear):
    """``nn.Linear``, computed by ``linear``."""

    def forward(self, feat: Tensor) -> Tensor:
        """(N, Cin) -> (N, Cout)."""
        return linear(feat, self.weight, self.bias)


def linear(feat: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``feat @ weight.T + bias``, also under autocast.

    Args:
        feat: (N, Cin).
        weight: (Cout, Cin).
        bias: (Cout,).

    Returns:
        (N, Cout).
    """
    if not _by_convolution(feat, weight):
        return F.linear(feat, weight, bias)
    return _Linear.apply(feat, weight, bias)  # type: ignore[no-any-return]


def _by_convolution(feat: Tensor, weight: Tensor) -> bool:
    return (
        is_cpu(feat)
        and feat.dtype == weight.dtype == torch.float32
        and feat.dim() == 2
        and len(feat) >= _WORTH
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not fills_vectors()
        and torch.backends.mkldnn.is_available()
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feat: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(feat, weight)
        return _product(feat, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        feat, weight = ctx.saved_tensors
        to_feat, to_weight, to_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.T, None) if to_feat else None,
            _weight_grad(feat, grad) if to_weight else None,
            grad.sum(0) if to_bias else None,
        )


def _product(feat: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    feat, kernel = feat.contiguous(), weight.contiguous()[:, :, None, None]
    whole = len(feat) // IMAGES * IMAGES
    out = feat.new_empty(len(feat), len(weight))
    for start in range(0, whole, _STEP):
        stop = min(start + _STEP, whole)
        product = F.conv2d(as_images(feat[start:stop]), kernel, bias)
        out[start:stop] = product.permute(0, 2, 3, 1).reshape(stop - start, -1)
    if whole < len(feat):
        out[whole:] = F.linear(feat[whole:], weight, bias)
    return out


def _weight_grad(feat: Tensor, grad: Tensor) -> Tensor:
    """(N, Cin) and (N, Cout) -> (Cout, Cin)."""
    feat, grad = feat.contiguous(), grad.contiguous()
    whole = len(feat) // IMAGES * IMAGES
    shape = (grad.shape[1], feat.shape[1], 1, 1)
    sums = conv2d_weight(as_images(feat[:whole]), shape, as_images(grad[:whole]))
    sums = sums[:, :, 0, 0]
    return sums + grad[whole:].T @ feat[whole:] if whole < len(feat) else sums


def as_images(rows: Tensor) -> Tensor:
    """(R, C) as (16, C, R / 16, 1) in channels-last layout, without a copy."""
    return rows.view(IMAGES, -1, 1, rows.shape[1]).permute(0, 3, 1, 2)
