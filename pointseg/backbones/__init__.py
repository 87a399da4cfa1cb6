"""Networks that give each point of a cloud its features, from scratch or pretrained."""

from pointseg.backbones.build import BACKBONES, build_backbone
from pointseg.backbones.features import Backbone, Features, Level
from pointseg.backbones.pretrained import Pretrained, load_pretrained
from pointseg.backbones.pretrained_file import PretrainedFile, licence_of, read_pretrained
from pointseg.backbones.pretrained_weights import load_into
from pointseg.backbones.published_weights import BackboneWeightsError, Head, load_backbone

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
