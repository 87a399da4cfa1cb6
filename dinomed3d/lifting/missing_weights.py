"""The rule for pretrained weights that cannot be had, for volumes and points alike.

Weights come from a file or folder that a setting names, or from the Hugging Face hub where it says `hub`;
random ones only where it says `none`. Else the work is refused, with the same advice on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

from dinomed3d.lifting.dino import OPEN_ENCODER, hub_repository, needs_licence


@dataclass(frozen=True)
class WeightsSettings:
    """How a user of one side names weights and encoder, for messages."""

    weights: str
    """The setting of weights, with braces for its value: ``DINOMED3D_WEIGHTS={}``."""
    encoder: str
    """The setting of the encoder, likewise."""
    joint: str
    """What stands between two settings."""
    again: str
    """What to do with settings of another encoder: ``plan again with``."""

    @property
    def without_licence(self) -> str:
        """Settings with which everyone can start today."""
        return f"{self.weights.format('hub')}{self.joint}{self.encoder.format(OPEN_ENCODER)}"


VOLUMES = WeightsSettings(
    weights="DINOMED3D_WEIGHTS={}",
    encoder="DINOMED3D_ENCODER={}",
    joint=" and ",
    again="plan again with",
)
POINTS = WeightsSettings(
    weights="--weights {}",
    encoder="--encoder {}",
    joint=" ",
    again="start a new run with",
)


def where_to_get_weights(encoder: str, settings: WeightsSettings) -> str:
    """What to do where an encoder's weights are missing: by file, by hub, or without a licence.

    Args:
        encoder: one of MODELS.
        settings: of the side that needs them.
    """
    licence = ""
    if needs_licence(encoder):
        licence = (
            f", once DINOv3's licence is accepted there. DINOv2's weights need no licence: {settings.again} "
            f"{settings.without_licence}"
        )
    return (
        f"{settings.weights.format('FILE')} takes a checkpoint that you have (of Meta, Hugging Face or timm), "
        f"{settings.weights.format('none')} random weights for tests, {settings.weights.format('hub')} downloads "
        f"{hub_repository(encoder)}{licence}"
    )
