"""Weights of published 3D backbones: checkpoints of Pointcept and of projects built on it.

A file is read without running code from it, wrappers and prefixes (``state_dict``, ``module.``,
``backbone.``) are removed, and it is compared with the network key by key; anything missing, left over or
of another shape is an error. The segmentation head, which is for the classes of another dataset, is
returned separately. Weights of sparse convolutions are kept as spconv 2 stores them,
(out, x, y, z, in); those of spconv 1, (x, y, z, in, out), are recognised by their shape and permuted.

DITR's checkpoints are such files: below ``module.backbone.`` the names of Pointcept's Point Transformer
V3, and in each decoder stage ``up.proj_image_feat.1`` (linear, (C, channels of the encoder)) and
``.2`` (its normalisation); ``module.seg_head.`` is the head. The frozen image encoder is not in them.
If a file holds one, below ``dinov2.`` or ``backbone.dinov2.``, it is ignored and logged:
the encoder is loaded from its own weights. The width of the image features must be the encoder's.

No key says which colours the weights were trained on: newer Pointcept scales them to 0 to 1
(c / 255), DITR and the Pointcept it is based on to -1 to 1 (c / 127.5 - 1). Weights of one kind
do not work with colours of the other.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from dinomed3d.runtime.files.tensor_files import TensorFileError, read_tensor_file
from pointseg.backbones.weights.named_tensors import BackboneWeightsError, Head, differences

log = logging.getLogger(__name__)

_CONTAINERS = ("state_dict", "model")
_HEADS = ("seg_head", "final")  # of Pointcept's segmentors, and of its SparseUNet
_ENCODERS = ("dinov2.",)  # of DITR
_IMAGE_LAYER = re.compile(r"(^|\.)proj_image_feat(\.\d+)?\.1\.weight$")
_WIDTHS = {
    384: "vit_small",
    768: "vit_base",
    1024: "vit_large",
    1280: "vit_huge_plus",
    1536: "vit_giant",
    4096: "vit_7b",
}
"""Encoders by the number of channels of their features."""


def load_backbone(backbone: nn.Module, path: Path, *, encoder: str | None = None) -> Head | None:
    """Load published weights into a backbone; all of them or none.

    Args:
        backbone: changed in place.
        path: a torch file or a ``.safetensors`` file in Pointcept's format; see above.
        encoder: whose features of images the backbone is built for; for messages.

    Returns:
        The segmentation head in the file, which the backbone has no place for; None if there is none.

    Raises:
        BackboneWeightsError: no such file, not readable without running code, keys missing or left
            over, shapes that differ, an ambiguous layout of convolution weights.
    """
    state = read_state(path)
    wanted = backbone.state_dict()
    head = _take_head(state, wanted, path)
    _take_encoder(state, path)
    _check_image_channels(state, wanted, path, encoder)
    state = _to_our_layout(state, wanted, path)
    different = differences(state, wanted)
    if different:
        raise BackboneWeightsError(
            f"weights {path} do not fit this {type(backbone).__name__}; {_advice(state, wanted)}: {different}"
        )
    backbone.load_state_dict(state)
    log.info(
        "loaded %d tensors from %s; %s",
        len(state),
        path,
        "no segmentation head in it"
        if head is None
        else f"its segmentation head for {len(head.weight)} classes is left out",
    )
    return head


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without wrappers and without ``module.`` and ``backbone.``.

    Raises:
        BackboneWeightsError: no such file, no checkpoint, or one that wants to run code.
    """
    try:
        content = read_tensor_file(Path(path))
    except TensorFileError as error:
        raise BackboneWeightsError(f"weights {error}") from error
    for name in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping):
        raise BackboneWeightsError(
            f"weights {path}: must hold named tensors, holds a {type(content).__name__}"
        )
    state = {}
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise BackboneWeightsError(
                f"weights {path}: entry {key!r} must be a tensor, is a {type(value).__name__}; the "
                f"file must be a state dict, or hold one as {' or '.join(map(repr, _CONTAINERS))}"
            )
        state[str(key).removeprefix("module.").removeprefix("backbone.")] = value
    if len(state) < len(content):
        raise BackboneWeightsError(
            f"weights {path}: {len(content) - len(state)} names occur twice once 'module.' and "
            "'backbone.' are removed; the file must hold one network"
        )
    return state


def _take_head(state: dict[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> Head | None:
    """Remove the segmentation head, unless the network has one itself."""
    for name in _HEADS:
        if f"{name}.weight" not in state or f"{name}.weight" in wanted:
            continue
        weight, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias", None)
        if weight.dim() == 5 and weight.shape[1:4] == (1, 1, 1):
            # spconv reads the weights of one voxel as an (in, out) matrix, whatever shape they have
            weight = weight.reshape(weight.shape[4], weight.shape[0]).T
        if weight.dim() != 2 or bias is not None and bias.shape != weight.shape[:1]:
            raise BackboneWeightsError(
                f"weights {path}: '{name}.weight' must be (classes, channels) with a bias for each class, "
                f"got {tuple(weight.shape)} and {None if bias is None else tuple(bias.shape)}"
            )
        return Head(weight, bias)
    return None


def _take_encoder(state: dict[str, Tensor], path: Path) -> None:
    """Remove a frozen image encoder."""
    keys = [key for key in state if key.startswith(_ENCODERS)]
    for key in keys:
        del state[key]
    if keys:
        log.info(
            "weights %s: the %d tensors of its image encoder (%s, ...) are left out; the encoder has weights "
            "of its own",
            path,
            len(keys),
            keys[0],
        )


def _check_image_channels(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, encoder: str | None
) -> None:
    """Refuse a backbone built for another image encoder, whose layers fit apart from that."""
    for key, value in wanted.items():
        if not _IMAGE_LAYER.search(key) or key not in state or state[key].dim() != 2:
            continue
        taken, given = state[key].shape[1], value.shape[1]
        if taken == given:
            continue
        size = f" (the width of {_WIDTHS[taken]})" if taken in _WIDTHS else ""
        source = f"the encoder {encoder} gives {given}" if encoder else f"the encoder gives {given}"
        raise BackboneWeightsError(
            f"weights {path}: the checkpoint takes {taken} channels of image features{size}, {source}; "
            "give the encoder that it was trained with"
        )


def _to_our_layout(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Turn the weights of sparse convolutions where they are stored as (x, y, z, in, out)."""
    ours, turned, both = [], [], []
    for key, value in wanted.items():
        if value.dim() != 5 or key not in state:
            continue
        found, here = tuple(state[key].shape), tuple(value.shape)
        there = (*here[1:4], here[4], here[0])
        if found == here == there:
            both.append(key)
        elif found == here:
            ours.append(key)
        elif found == there:
            turned.append(key)
    if ours and turned:
        raise BackboneWeightsError(
            f"weights {path}: {ours[0]} is stored as (out, x, y, z, in), {turned[0]} as "
            "(x, y, z, in, out); all must be stored alike"
        )
    if both and not ours and not turned:
        raise BackboneWeightsError(
            f"weights {path}: whether {both[0]} is (out, x, y, z, in) or (x, y, z, in, out) is not clear "
            f"from its shape {tuple(state[both[0]].shape)}; save it in the first layout together with a "
            "convolution of unequal sizes"
        )
    if not turned:
        return state
    state = dict(state)
    for key in turned + both:
        weight, shape = state[key], wanted[key].shape
        # one voxel: (in, out) in memory in either layout, see SubmanifoldConv3d
        one = shape[1:4] == (1, 1, 1)
        state[key] = weight.reshape(shape) if one else weight.permute(4, 0, 1, 2, 3).contiguous()
    log.info("weights %s: turned %d convolutions of spconv 1's layout", path, len(turned + both))
    return state


def _advice(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    image = "proj_image_feat"
    other = _other_network(state)
    if other:
        return f"they are of {other}"
    if any(image in key for key in state) and not any(image in key for key in wanted):
        return "they take features of images: build the backbone with 'image_channels'"
    if any(image in key for key in wanted) and not any(image in key for key in state):
        return "they take no features of images: build the backbone without 'image_channels'"
    if any("rpe_table" in key for key in state) and not any("rpe_table" in key for key in wanted):
        return "they have relative positions: build it with enable_rpe=True, enable_flash=False"
    return "build it in the size that they were trained in, and check that they are of this network"


def _other_network(state: Mapping[str, Tensor]) -> str:
    """Which network tensors are of that has a reader of its own, and how it is built; empty: none of these."""
    if "embedding.stem.linear.weight" in state:
        if any(key.endswith(".attn.rope.inv_freq") for key in state):
            return 'Utonia: build "utonia" (--backbone utonia)'
        return 'Sonata or Concerto: build "sonata" (--backbone sonata)'
    blocks = any(".norm0.0." in key or ".block0.conv.0." in key for key in state)
    if "embedding.stem.conv.weight" in state and blocks:
        return 'LitePT: build "litept" (--backbone litept)'
    return ""
