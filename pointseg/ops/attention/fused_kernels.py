"""Which kernels compute attention: chosen here by device, type and version of torch, and nowhere else.

    CPU, MPS                  scaled_dot_product_attention, a call for each kind of window: the reference
    CUDA, half precision      varlen_attn where torch has it (2.11 on): windows of all lengths in one call
    CUDA, all else            scaled_dot_product_attention, channels padded to what its fused kernels take
    CUDA, relative positions  flex_attention (torch 2.6 on, with Triton): no K x K scores in memory

On Hopper and Blackwell torch prefers cuDNN's kernels to its own FlashAttention. They are prepared anew for each number
of windows, which changes with every batch of clouds, and are no faster below 64 channels per head (measured by others
at 576 to 1,024 keys on an H100: github.com/sgl-project/sglang/pull/30090); PTv3 and its kin have 16 or 18. So cuDNN
comes first from ``CUDNN_FROM`` channels per head on, and otherwise not at all.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

CUDNN_FROM = 64
"""Channels per head from which cuDNN's kernels come first where torch would take them."""
_ALIGNED = 8
"""Fused kernels on CUDA take channels per head in multiples of this; otherwise all scores are held in memory."""
_WIDEST = 256
"""Channels per head that FlashAttention takes."""
_HALF = (torch.float16, torch.bfloat16)

Varlen = Callable[..., Any]


def padding(like: Tensor, width: int) -> int:
    """Channels of zeros to add to each head of ``width`` channels so that a fused kernel takes it."""
    return -width % _ALIGNED if _is_cuda(like) else 0


def varlen(like: Tensor, width: int, *, dropout: float) -> Varlen | None:
    """``torch.nn.attention.varlen.varlen_attn`` where it computes attention of tensors like this one, else None.

    Args:
        like: queries, keys or values.
        width: channels per head, padded.
        dropout: of weights, which it has not.
    """
    if dropout or not _is_cuda(like) or like.dtype not in _HALF or width > _WIDEST:
        return None
    return _varlen() if _has_flash(like) else None


def varlen_window(width: int, longest: int) -> tuple[int, int]:
    """The ``window_size`` of ``varlen_attn`` for attention to all of at most ``longest`` keys.

    It is as wide as the keys are many rather than without bounds, which is the same, where FlashAttention rather than
    cuDNN is to compute it.
    """
    return (-1, -1) if width >= CUDNN_FROM else (longest, longest)


def fused_backends(like: Tensor, width: int) -> AbstractContextManager[Any]:
    """Within, scaled_dot_product_attention has the kernels of the rule above.

    Args:
        like: queries, keys or values.
        width: channels per head, padded.
    """
    if not _is_cuda(like) or like.dtype not in _HALF or _capability(like)[0] not in (9, 10):
        return nullcontext()  # torch's own order has no cuDNN in front
    flash = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if width < CUDNN_FROM:
        return sdpa_kernel(flash)
    if "set_priority" not in inspect.signature(sdpa_kernel).parameters:  # before torch 2.6
        return nullcontext()
    return sdpa_kernel([SDPBackend.CUDNN_ATTENTION, *flash], set_priority=True)


def has_flex(like: Tensor, *, dropout: float) -> bool:
    """Whether flex_attention computes scores with a bias, and the gradient of the bias, without holding them."""
    return not dropout and _is_cuda(like) and _capability(like) >= (8, 0) and _flex_is_there()


def _is_cuda(like: Tensor) -> bool:
    return like.device.type == "cuda" and torch.version.hip is None


def _capability(like: Tensor) -> tuple[int, int]:
    return torch.cuda.get_device_capability(like.device)


def _has_flash(like: Tensor) -> bool:
    return _capability(like) >= (8, 0) and torch.backends.cuda.is_flash_attention_available()


@cache
def _varlen() -> Varlen | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return None
    takes = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size"} <= takes.keys() else None


@cache
def _flex_is_there() -> bool:
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    return (major, minor) >= (2, 6) and importlib.util.find_spec("triton") is not None
