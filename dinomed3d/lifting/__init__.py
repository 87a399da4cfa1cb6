"""The feature-lifting core: images and geometry in, one feature per 3D point out."""

from dinomed3d.lifting.camera import Camera, check_rigid
from dinomed3d.lifting.checkpoint_layouts import WeightsError
from dinomed3d.lifting.dino import MODELS, DinoEncoder, build_encoder, default_taps
from dinomed3d.lifting.encoder import Encoder, FeatureMap, pad_to_multiple
from dinomed3d.lifting.fusion import Last, Max, Mean, Nearest, Random, SelectView, ViewFusion
from dinomed3d.lifting.lens import Lens
from dinomed3d.lifting.lift import Projector, lift, sample_and_fuse, sample_chosen
from dinomed3d.lifting.occlusion import z_buffer
from dinomed3d.lifting.posed_cameras import Cameras, depth_at, in_image
from dinomed3d.lifting.sample import sample_bilinear, sample_nearest
from dinomed3d.lifting.slices import SliceStack, neighbour_slices, stack_slices, unstack_slices
from dinomed3d.lifting.weights import find_weights, load_weights

__all__ = [
    "MODELS",
    "Camera",
    "Cameras",
    "DinoEncoder",
    "Encoder",
    "FeatureMap",
    "Last",
    "Lens",
    "Max",
    "Mean",
    "Nearest",
    "Projector",
    "Random",
    "SelectView",
    "SliceStack",
    "ViewFusion",
    "WeightsError",
    "build_encoder",
    "check_rigid",
    "default_taps",
    "depth_at",
    "find_weights",
    "in_image",
    "lift",
    "load_weights",
    "neighbour_slices",
    "pad_to_multiple",
    "sample_and_fuse",
    "sample_bilinear",
    "sample_chosen",
    "sample_nearest",
    "stack_slices",
    "unstack_slices",
    "z_buffer",
]
