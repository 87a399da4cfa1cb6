"""DINO-Med3D's network, one file per box of its figure."""

from dinomed3d.networks.cnn_spec import CnnSpec
from dinomed3d.networks.network import DinoMed3D, build_network, load_pretrained_encoder
from dinomed3d.networks.spec import COMPONENTS, NetworkSpec, neck_taps, slice_step, token_side

__all__ = [
    "COMPONENTS",
    "CnnSpec",
    "DinoMed3D",
    "NetworkSpec",
    "build_network",
    "load_pretrained_encoder",
    "neck_taps",
    "slice_step",
    "token_side",
]
