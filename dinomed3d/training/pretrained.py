"""The pretrained encoder that a training starts from."""

from __future__ import annotations

import torch

from dinomed3d.lifting import DinoEncoder, WeightsError, build_encoder
from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError


def read_pretrained_encoder(spec: NetworkSpec, weights: str) -> DinoEncoder | None:
    """The encoder with its weights, or None if none are wanted; its settings are checked either way.

    Args:
        spec: name and size of the encoder.
        weights: as in `build_encoder`.

    Raises:
        UserError: overrides that make no encoder.
        WeightsError: weights are missing or do not match the encoder.
    """
    if "encoder" not in spec.components:
        return None
    if weights == "none":
        try:
            with torch.device("meta"):
                build_encoder(
                    spec.encoder, weights="none", taps=spec.taps, **spec.encoder_overrides
                )
        except ValueError as error:
            raise UserError(
                f"DinoMed3DTrainer: the plan's 'taps', or DINOMED3D_ENCODER_OVERRIDES: {error}"
            ) from error
        return None
    try:
        return build_encoder(
            spec.encoder, weights=weights, taps=spec.taps, **spec.encoder_overrides
        )
    except WeightsError as error:
        raise WeightsError(
            f"DinoMed3DTrainer: {error}. The plan names {spec.encoder}; if the weights are of another encoder, plan "
            "again with DINOMED3D_WEIGHTS or DINOMED3D_ENCODER set"
        ) from error
