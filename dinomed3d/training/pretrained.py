"""The pretrained encoder that a training starts from."""

from __future__ import annotations

import torch

from dinomed3d.lifting import DinoEncoder, WeightsError, build_encoder
from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError


def read_foundation(spec: NetworkSpec, weights: str) -> DinoEncoder | None:
    """The encoder with its weights, or None where none is wanted; either way its settings are tried.

    Args:
        spec: names the encoder and its size.
        weights: as for `build_encoder`.

    Raises:
        UserError: overrides that make no encoder.
        WeightsError: weights that are not there or do not fit.
    """
    if "encoder" not in spec.parts:
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
            f"DinoMed3DTrainer: {error}. The plan asks for {spec.encoder}; if the weights are another encoder's, plan "
            "again with DINOMED3D_WEIGHTS or DINOMED3D_ENCODER set"
        ) from error
