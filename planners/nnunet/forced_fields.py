"""Fields of the network that the user has set, which planning keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dinomed3d.networks import NetworkSpec
from dinomed3d.training.settings.environment import SPEC_VARIABLES, spec_from
from planners.nnunet.identify_encoder import encoder_of_weights


def forced_fields(environ: Mapping[str, str]) -> dict[str, Any]:
    """Fields of NetworkSpec that the environment sets; DINOMED3D_WEIGHTS also sets the encoder.

    Raises:
        UserError: a value of the wrong type, or one that makes no network.
    """
    spec = spec_from(NetworkSpec(), environ)
    given = {
        field for variable, field in SPEC_VARIABLES.items() if environ.get(variable, "").strip()
    }
    fields: dict[str, Any] = {field: getattr(spec, field) for field in given}
    if "encoder" in spec.components and given.isdisjoint({"encoder", "encoder_overrides"}):
        encoder = encoder_of_weights(environ.get("DINOMED3D_WEIGHTS", "").strip())
        fields |= {} if encoder is None else {"encoder": encoder}
    return fields
