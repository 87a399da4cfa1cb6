"""The pretrained encoder that a training starts from."""

from __future__ import annotations

import torch

from dinomed3d.lifting import DinoEncoder, WeightsError, build_encoder, find_weights
from dinomed3d.lifting.missing_weights import VOLUMES, where_to_get_weights
from dinomed3d.lifting.weights import HubError
from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError


def check_encoder_settings(spec: NetworkSpec, weights: str) -> None:
    """Refuse settings that make no encoder, and a file that is not there, before anything is read.

    Args:
        spec: name and size of the encoder.
        weights: as in `build_encoder`; whether the hub has them is not asked.

    Raises:
        UserError: overrides that make no encoder.
        WeightsError: there is no such file.
    """
    if "encoder" not in spec.components:
        return
    try:
        with torch.device("meta"):
            build_encoder(spec.encoder, weights="none", taps=spec.taps, **spec.encoder_overrides)
    except ValueError as error:
        raise UserError(
            f"DinoMed3DTrainer: the plan's 'taps', or DINOMED3D_ENCODER_OVERRIDES: {error}"
        ) from error
    if weights not in ("none", "hub"):
        try:
            find_weights(weights, hub_repository="")
        except WeightsError as error:
            raise _explained(error, spec) from error


def read_pretrained_encoder(spec: NetworkSpec, weights: str) -> DinoEncoder | None:
    """The encoder with its weights, or None if none are wanted.

    Args:
        spec: name and size of the encoder.
        weights: as in `build_encoder`.

    Raises:
        WeightsError: weights are missing or do not match the encoder.
    """
    if "encoder" not in spec.components or weights == "none":
        return None
    try:
        return build_encoder(
            spec.encoder, weights=weights, taps=spec.taps, **spec.encoder_overrides
        )
    except WeightsError as error:
        raise _explained(error, spec) from error


def _explained(error: WeightsError, spec: NetworkSpec) -> WeightsError:
    """The same error with what to do about it in training."""
    remedy = "if the weights are of another encoder, plan again with DINOMED3D_WEIGHTS or DINOMED3D_ENCODER set"
    if isinstance(error, HubError):
        remedy = where_to_get_weights(spec.encoder, VOLUMES)
    return type(error)(f"DinoMed3DTrainer: {error}. The plan names {spec.encoder}; {remedy}")
