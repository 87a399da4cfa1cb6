"""Networks that give each point of a cloud its features: Point Transformer V3, MinkUNet, PointNeXt."""

from pointseg.backbones.build import BACKBONES, build_backbone
from pointseg.backbones.features import Backbone, Features, Level
from pointseg.backbones.published_weights import BackboneWeightsError, Head, load_backbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneWeightsError",
    "Features",
    "Head",
    "Level",
    "build_backbone",
    "load_backbone",
]
