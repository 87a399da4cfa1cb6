"""How a model is trained and tested, as data; stored in every checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from pointseg.config.optimizer import OptimizerSpec
from pointseg.config.validation import RecipeError, require
from pointseg.conventions import TUNES, UP_AXES
from pointseg.files.columns.scales import ValueRanges
from pointseg.images.config import ImageConfig
from pointseg.transforms.augmentation import Augmentation
from pointseg.transforms.input_transform import InputTransform
from pointseg.transforms.test_time_augmentation import TTA_SETS

FEATURES = {
    "color": 3, "normal": 3, "strength": 1, "returns": 2, "height_above_ground": 1, "coord": 3,
}  # fmt: skip
"""Possible network inputs and their number of channels; ``strength`` is LiDAR intensity, ``returns``
its echoes."""
CLASS_WEIGHTS = ("none", "auto", "sqrt")


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a trained model predicts a scene in tests."""

    tta: str = "single"
    """Set of test-time augmentations: single, scannet, s3dis, nuscenes, semantickitti."""
    prevoxel_m: float | None = None
    """The cloud is first thinned to voxels of this size, and predictions are mapped back. None: it is not."""
    max_points: int = 400_000
    """Voxels in one forward pass at most; larger clouds are cut into overlapping tiles."""
    margin_m: float = 2.0
    """Width of the context around the core of a tile, metres; neighbouring tiles overlap by twice that."""

    def __post_init__(self) -> None:
        thin = self.prevoxel_m
        for name, is_valid, what in (
            ("tta", self.tta in TTA_SETS, f"one of {', '.join(TTA_SETS)}"),
            ("max_points", self.max_points >= 1, ">= 1"),
            ("margin_m", self.margin_m >= 0, ">= 0 metres"),
            ("prevoxel_m", thin is None or thin > 0, "> 0 metres, or null"),
        ):
            require("InferenceConfig", name, getattr(self, name), is_valid, what)


@dataclass(frozen=True, kw_only=True)
class PointCloudFormat:
    """Unit, axes and columns of the training files; prediction assumes the same of other files."""

    unit_m: float | None = None
    """Metres per unit of the coordinates, as stated. None: as each file says, else metres."""
    up: str = "z"
    """The vertical axis: z, y or -y."""
    color_max: float | None = None
    """The colour that is scaled to 255. None: given by the type of the values (bytes), else found in each file."""
    intensity_min: float | None = None
    """The intensity that is scaled to 0. None: 0; if ``intensity_max`` is null, too, found in each file."""
    intensity_max: float | None = None
    """The intensity that is scaled to 1. None: given by the file type, else found in each file."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of text files. None: the files' own."""
    bin_columns: tuple[str, ...] | None = None
    """Names of the columns of ``.bin`` files. None: those of KITTI's and nuScenes' scans."""

    def __post_init__(self) -> None:
        unit = self.unit_m
        color, low, high = self.color_max, self.intensity_min, self.intensity_max
        for name, is_valid, what in (
            ("unit_m", unit is None or 0 < unit < inf, "> 0 metres, or null"),
            ("up", self.up in UP_AXES, f"one of {', '.join(UP_AXES)}"),
            ("color_max", color is None or 0 < color < inf, "> 0, or null"),
            ("intensity_min", low is None or -inf < low < inf, "a number, or null"),
            (
                "intensity_max",
                high is None or (low or 0) < high < inf,
                "> 0, or null" if low is None else f"> {low:g} (intensity_min), or null",
            ),
        ):
            require("PointCloudFormat", name, getattr(self, name), is_valid, what)

    def columns_of(self, path: Path) -> tuple[str, ...] | None:
        """The names of the columns of a file. None: its own, or those of its type."""
        return self.bin_columns if path.suffix.lower() == ".bin" else self.columns

    @property
    def ranges(self) -> ValueRanges:
        """The ranges of the values, as far as they are stated."""
        return ValueRanges(
            color_max=self.color_max,
            intensity_min=self.intensity_min,
            intensity_max=self.intensity_max,
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a training run learns, given its data."""

    dataset: str
    """Name of the dataset, as ``open_dataset`` takes it."""
    backbone: str = "ptv3"
    """Name of the 3D network, as ``build_backbone`` takes it."""
    backbone_config: Mapping[str, Any] = field(default_factory=dict)
    """Constructor arguments that differ from the backbone's full size; in_channels follows features."""
    tune: str = "all"
    """What is trained. all: the whole network; decoder: all but the encoder; linear: the head alone, on the features
    of all levels where there is no decoder. What is not trained runs as in prediction: no drop path, no shuffled
    curves, no updates of normalisation."""
    licence: str = ""
    """Licence of the weights that training started from, which governs the trained model, too. Empty: none is
    known."""
    features: tuple[str, ...] = ("color", "normal")
    """Input channels of the network, in this order; every scene must have them."""
    color_range: str = "unit"
    """unit: colours in 0 to 1 (Pointcept); signed: -1 to 1 (DITR). Weights are not interchangeable."""
    input: InputTransform = field(default_factory=InputTransform)
    """How scenes are placed and scaled for weights that were trained so."""
    scene_type: str = "indoor"
    """indoor: scenes are centred and sphere crops taken; outdoor: the sensor stays at the origin."""
    voxel_m: float = 0.02
    """Voxel size, metres; one point of each voxel goes through the network."""
    max_points: int | None = 102_400
    """Voxels of one training sample at most, taken as a sphere crop. None: no crop."""
    sphere_fraction: float = 1.0
    """Share of a sample's voxels that its sphere crop keeps at most."""
    clip_box_m: tuple[float, ...] | None = None
    """Minima then maxima of x, y, z for outdoor scenes; points outside are moved onto the box (as in Pointcept)."""
    drop_outside: bool = False
    """Whether training and validation drop points outside the box instead; tests keep their position."""
    epochs: int = 800
    """Passes over the training scenes."""
    evaluations: int = 100
    """Rounds of validation, spread evenly over the run."""
    batch_size: int = 12
    """Scenes per optimizer step, over all devices and accumulated batches together."""
    train_splits: tuple[str, ...] = ("train",)
    """Splits to train on."""
    val_splits: tuple[str, ...] = ("val",)
    """Splits for validation during training."""
    test_splits: tuple[str, ...] = ("val",)
    """Splits that ``pointseg-test`` uses by default."""
    mix3d: float = 0.8
    """Probability per batch that pairs of samples are merged (Mix3D)."""
    class_weights: str = "none"
    """Weights of the classes in cross-entropy: none, auto (-ln of the class frequency), sqrt (its inverse root)."""
    label_smoothing: float = 0.0
    """Share of each target in cross-entropy that is spread evenly over all classes."""
    lovasz: float = 1.0
    """Weight of the Lovasz-softmax loss; cross-entropy has weight 1."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Random changes of training scenes."""
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    """Optimizer and learning rate schedule."""
    images: ImageConfig | None = None
    """How image features are used. None: the network reads no images."""
    test: InferenceConfig = field(default_factory=InferenceConfig)
    """How the trained model is tested."""
    cloud_format: PointCloudFormat = field(default_factory=PointCloudFormat)
    """Unit, axes and columns of the training files."""

    def __post_init__(self) -> None:
        box, most = self.clip_box_m, self.max_points
        known = self.features and all(name in FEATURES for name in self.features)
        ordered = box is None or (
            len(box) == 6 and all(low < high for low, high in zip(box[:3], box[3:], strict=True))
        )
        checks = [
            ("features", bool(known), f"some of {', '.join(FEATURES)}"),
            ("tune", self.tune in TUNES, ", ".join(TUNES)),
            ("color_range", self.color_range in ("unit", "signed"), "unit or signed"),
            ("scene_type", self.scene_type in ("indoor", "outdoor"), "indoor or outdoor"),
            ("class_weights", self.class_weights in CLASS_WEIGHTS, "none, auto or sqrt"),
            ("voxel_m", self.voxel_m > 0, "> 0 metres"),
            *((name, getattr(self, name) >= 1, ">= 1") for name in ("epochs", "evaluations")),
            ("batch_size", self.batch_size >= 1, ">= 1"),
            ("mix3d", 0 <= self.mix3d <= 1, "a probability"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("lovasz", self.lovasz >= 0, ">= 0"),
            ("sphere_fraction", 0 < self.sphere_fraction <= 1, "above 0, at most 1"),
            ("max_points", most is None or most >= 1, ">= 1, or null"),
            ("clip_box_m", ordered, "x, y, z minima, then maxima, or null"),
        ]
        who = f"Recipe {self.dataset}"
        for name, is_valid, what in checks:
            require(who, name, getattr(self, name), is_valid, what)
        if self.input.center_outdoor and self.is_indoor:
            raise RecipeError(f"{who}: 'input.center_outdoor' must be false indoors, where all are")
        if "in_channels" in self.backbone_config:
            raise RecipeError(f"{who}: 'backbone_config' must not set in_channels: features do")

    @property
    def in_channels(self) -> int:
        """Number of input channels of the network."""
        return sum(FEATURES[name] for name in self.features)

    @property
    def needs(self) -> tuple[str, ...]:
        """Scene fields that the features are made from."""
        return tuple(n for n in self.features if n != "coord" and n not in self.input.zeros)

    @property
    def is_indoor(self) -> bool:
        """Whether scenes are centred and cropped by spheres."""
        return self.scene_type == "indoor"

    def to_json(self) -> str:
        """The recipe as text for :func:`pointseg.config.serialization.read_recipe`."""
        return json.dumps(asdict(self), indent=1)
