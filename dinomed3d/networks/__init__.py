"""DINO-Med3D's network, one file per box of its figure."""

from dinomed3d.networks.network import DinoMed3D, build_network, load_pretrained_encoder
from dinomed3d.networks.spec import COMPONENTS, NetworkSpec, depth_kernels, spec_for_patch

__all__ = [
    "COMPONENTS",
    "DinoMed3D",
    "NetworkSpec",
    "build_network",
    "depth_kernels",
    "load_pretrained_encoder",
    "spec_for_patch",
]
