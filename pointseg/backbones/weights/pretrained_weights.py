"""Weights of a pretrained 3D network into one that is built: every key accounted for, inputs by their names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pointseg.backbones.weights.named_tensors import BackboneWeightsError, differences
from pointseg.backbones.weights.pretrained_file import PretrainedFile, licence_of, width_of

log = logging.getLogger(__name__)

_TOKEN = "embedding.mask_token"
_FREQUENCIES = ".attn.rope.inv_freq"


def load_into(
    backbone: nn.Module,
    file: PretrainedFile,
    *,
    columns: Sequence[str] | None = None,
    adapt_input: bool = False,
) -> tuple[str, ...]:
    """Set the weights of a network of the file's family; all of them or none.

    A mask token is left out where the network has none, and a decoder likewise. An encoder without a decoder
    goes into a network with one, whose decoder is new then. Each of these is among the notes.

    Args:
        backbone: changed in place.
        file: as it was read.
        columns: names of the columns of ``Cloud.feat`` that the network is to read, in their order: coord, color,
            normal, with three channels each, and strength, with one. None: those of the file.
        adapt_input: whether the first layer is made for other columns than the file's: it takes the weights of
            those that the file has by their names; those of others start at zero, so that the network begins by
            ignoring them.

    Returns:
        What was done in addition to loading, in sentences; the licence of the weights first.

    Raises:
        BackboneWeightsError: weights of another family or size, other columns without ``adapt_input``.
    """
    state = check_fit(backbone, file, columns=columns, adapt_input=adapt_input)
    notes = _notes(backbone, file, columns)
    backbone.load_state_dict(state)
    log.warning("weights %s: licence %s", file.path, licence_of(file.family))
    for note in notes:
        log.info("weights %s: %s", file.path, note)
    return (f"licence of the weights: {licence_of(file.family)}", *notes)


def check_fit(
    backbone: nn.Module,
    file: PretrainedFile,
    *,
    columns: Sequence[str] | None = None,
    adapt_input: bool = False,
) -> dict[str, Tensor]:
    """The state dict that ``load_into`` loads; the network may be on the meta device.

    Raises:
        BackboneWeightsError: see ``load_into``.
    """
    name = type(backbone).__name__
    if name.lower() != file.family:
        raise BackboneWeightsError(
            f"weights {file.path}: are of the family {file.family}, the network is a {name}; build it with "
            f'"{file.family}" (--backbone {file.family})'
        )
    wanted, state = backbone.state_dict(), dict(file.state)
    if _TOKEN not in wanted:
        state.pop(_TOKEN, None)
    ours, theirs = _has_decoder(wanted), _has_decoder(state)
    if theirs and not ours:
        state = {key: value for key, value in state.items() if not key.startswith("dec.")}
    if ours and not theirs and _may_lack_decoder(file):
        state |= {key: value for key, value in wanted.items() if key.startswith("dec.")}
    _fit_input(state, wanted, file, columns, adapt_input)
    different = differences(state, wanted)
    if different:
        raise BackboneWeightsError(
            f"weights {file.path} do not fit this {name}; {_advice(file)}: {different}"
        )
    _check_frequencies(state, wanted, file)
    return state


def _notes(
    backbone: nn.Module, file: PretrainedFile, columns: Sequence[str] | None
) -> tuple[str, ...]:
    wanted, notes = backbone.state_dict(), []
    if _TOKEN in file.state and _TOKEN not in wanted:
        notes.append("the mask token is left out, since mask_token=False")
    ours, theirs = _has_decoder(wanted), _has_decoder(file.state)
    if theirs and not ours:
        notes.append("the decoder is left out, since enc_mode=True")
    if ours and not theirs:
        notes.append("the decoder is new, the file holds the encoder alone")
    if columns is not None and file.columns is not None and tuple(columns) != file.columns:
        new = [name for name in columns if name not in file.columns]
        gone = [name for name in file.columns if name not in columns]
        notes.append(
            f"the first layer reads {', '.join(columns)} instead of {', '.join(file.columns)}"
            + (f"; weights of {', '.join(new)} start at zero" if new else "")
            + (f"; those of {', '.join(gone)} are left out" if gone else "")
        )
    if columns is not None and file.columns is None:
        notes.append(
            f"the file does not name its {file.in_channels} channels, they are taken for {', '.join(columns)}"
        )
    if file.head is not None:
        notes.append(f"its head for {len(file.head.weight)} classes is left out")
    if file.left_out:
        notes.append(f"left out, as it is no part of the network: {file.left_out}")
    return tuple(notes)


def _has_decoder(state: Mapping[str, Tensor]) -> bool:
    return any(key.startswith("dec.") for key in state)


def _may_lack_decoder(file: PretrainedFile) -> bool:
    """Whether the file is meant to be an encoder alone, not one whose decoder got lost."""
    says = True if file.config is None else file.config.get("enc_mode", False)
    return file.family != "litept" and bool(says)


def _fit_input(
    state: dict[str, Tensor],
    wanted: Mapping[str, Tensor],
    file: PretrainedFile,
    columns: Sequence[str] | None,
    adapt: bool,
) -> None:
    """Make the first layer for the columns of the network's input."""
    key, channels = file.input_layer, wanted[file.input_layer].shape[-1]
    theirs = file.columns
    if columns is not None and sum(map(width_of, columns)) != channels:
        raise BackboneWeightsError(
            f"weights {file.path}: 'columns' must have the network's {channels} channels together, got "
            f"{', '.join(columns)}"
        )
    named = columns is not None and theirs is not None
    if file.in_channels == channels and (not named or columns is None or tuple(columns) == theirs):
        return
    gets = f"the network gets {channels}" + (f" ({', '.join(columns)})" if columns else "")
    if theirs is None:
        raise BackboneWeightsError(
            f"weights {file.path}: read {file.in_channels} channels, which the file does not name, {gets}; give it the "
            "features that they were trained with, in that order (--override features=...): the first layer cannot be "
            "adapted to others without their names"
        )
    if not adapt or columns is None:
        raise BackboneWeightsError(
            f"weights {file.path}: read {file.in_channels} channels ({', '.join(theirs)}, in this order), {gets}; "
            "give it what the file reads, with zeros where there is no color or normal, or ask for adapt_input "
            "(--adapt-input) with the names of the columns"
        )
    weight = state[key]
    starts, at = {}, 0
    for name in theirs:
        starts[name] = at
        at += width_of(name)
    parts = []
    for name in columns:
        width = width_of(name)
        own = weight[..., starts[name] : starts[name] + width] if name in starts else None
        parts.append(weight.new_zeros(*weight.shape[:-1], width) if own is None else own)
    state[key] = torch.cat(parts, -1)


def _check_frequencies(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: PretrainedFile
) -> None:
    """Refuse rotary frequencies of another base than the network's: the file's would be used silently."""
    for key, value in state.items():
        if not key.endswith(_FREQUENCIES) or wanted[key].is_meta:
            continue
        if not torch.allclose(value.float(), wanted[key].float().to(value.device), rtol=1e-3):
            count = len(value)
            base = float(value[1].float()) ** -count if count > 1 else float("nan")
            raise BackboneWeightsError(
                f"weights {file.path}: '{key}' holds frequencies of base {base:.4g}, the network has another; "
                f"build it with rope_base={base:.4g}, or with what the file's configuration says"
            )


def _advice(file: PretrainedFile) -> str:
    if any("lora_" in key for key in file.state):
        return "they have low-rank updates next to the weights: merge these first"
    if file.config is None:
        return "the file has no configuration: build it with the one that it was trained with"
    return "build it with the file's own configuration, as load_pretrained does"
