"""Networks that give each point of a cloud its features, from scratch or pretrained."""

from pointseg.backbones.build import BACKBONES, build_backbone
from pointseg.backbones.interface.features import Backbone, Features, Level
from pointseg.backbones.pretrained import Pretrained, load_pretrained
from pointseg.backbones.weights.named_tensors import BackboneWeightsError, Head
from pointseg.backbones.weights.pointcept import load_backbone
from pointseg.backbones.weights.pretrained_file import PretrainedFile, licence_of, read_pretrained
from pointseg.backbones.weights.pretrained_weights import load_into

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneWeightsError",
    "Features",
    "Head",
    "Level",
    "Pretrained",
    "PretrainedFile",
    "build_backbone",
    "licence_of",
    "load_backbone",
    "load_into",
    "load_pretrained",
    "read_pretrained",
]
