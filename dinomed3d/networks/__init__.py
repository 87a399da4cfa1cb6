"""DINO-Med3D's network, one file per box of its figure."""

from dinomed3d.networks.network import DinoMed3D, build_network, take_foundation
from dinomed3d.networks.spec import PARTS, NetworkSpec, depth_kernels, spec_for_patch

__all__ = [
    "PARTS",
    "DinoMed3D",
    "NetworkSpec",
    "build_network",
    "depth_kernels",
    "spec_for_patch",
    "take_foundation",
]
