"""Options of a prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pointseg.config.recipe import PointCloudFormat, Recipe
from pointseg.datasets.folder.cameras import CameraRule
from pointseg.images.config import ImageConfig
from pointseg.models.trained_model import EncoderSource


@dataclass(frozen=True, kw_only=True)
class PredictSpec:
    """Which files are predicted, and how."""

    inputs: tuple[Path, ...]
    """Files, and folders that are searched for files."""
    out: Path
    """Folder for the results; or a file, if the input is one file."""
    model: Path
    """Checkpoint of ``pointseg-train``."""
    backbone: str | None = None
    """``package.module:Class`` of the model's backbone, which may then be imported. None: it must be built in."""
    test_changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe's ``InferenceConfig`` that are changed."""
    tta: bool = False
    """Whether to predict as in tests, every point and with test-time augmentation, instead of one pass over
    one point per voxel."""
    unit_m: float | None = None
    """Metres per unit of the coordinates. None: as stated in training, else as the file says, else metres."""
    color_max: float | None = None
    """The colour that is scaled to 255. None: as stated in training, else found in each file."""
    intensity_min: float | None = None
    """The intensity that is scaled to 0. None: as stated in training, else found in each file."""
    intensity_max: float | None = None
    """The intensity that is scaled to 1. None: as stated in training, else found in each file."""
    up: str | None = None
    """The vertical axis: z, y or -y. None: as in training."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of text and ``.bin`` files. None: as in training."""
    orient_normals: str | None = None
    """Orientation of estimated normals, one of ``ORIENTATIONS``. None: to the middle of indoor scenes; outdoors
    to the origin, where LiDAR scans have their sensor."""
    encoder: EncoderSource | None = None
    """Opens the image encoder, for models that read images."""
    image_changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe's ``ImageConfig`` that are changed."""
    cameras: CameraRule | None = None
    """Where the posed images of each cloud are, below its folder. None: there are none."""
    check_scale: bool = True
    """Whether clouds are refused whose scale does not seem to fit the voxel size of the model."""
    class_codes: Mapping[str, int] = field(default_factory=dict)
    """ASPRS codes of classes, by name, where the model does not know them or others are wanted."""
    keep_classification: bool = False
    """Whether ``classification`` of LAS files stays as it is, even if the codes of all classes are known."""
    write_classification: bool = False
    """Whether every class must have a code, and files of all types get the codes, not only LAS files."""
    keep_former: bool = True
    """Whether what was in ``classification`` of LAS files stays, in another field."""
    height: bool = False
    """Whether points get the field ``height_above_ground``."""
    confidence: bool = False
    """Whether points get the fields ``confidence``, ``entropy`` and ``margin``."""
    reject: float | None = None
    """Confidence, over 0 and up to 1, below which points get no class. None: all keep theirs."""
    colors: bool = False
    """Whether points get the colours of their classes."""
    pictures: bool = True
    """Whether pictures are written."""
    overwrite: bool = False
    """Whether files with valid results are predicted again."""
    stream: bool = False
    """Whether clouds go through the disk in any case. Otherwise, those that do not fit into memory do."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    precision: str = "float32"
    """float32, float16 or bfloat16."""
    log: Callable[[str], None] = print
    """Receives notes."""
    progress: Callable[[float, int, str], None] = lambda done, total, name: None
    """Called with the number of finished files (fractional), of all files, and the file that starts."""

    @property
    def needs_certainty(self) -> bool:
        """Whether it must be found how sure classes are."""
        return self.confidence or self.reject is not None

    def cloud_format(self, recipe: Recipe) -> PointCloudFormat:
        """Unit, axes and columns of the files: as in training, unless stated otherwise."""
        names = ("unit_m", "up", "columns", "color_max", "intensity_min", "intensity_max")
        given = {name: getattr(self, name) for name in names} | {"bin_columns": self.columns}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return replace(recipe.cloud_format, **changes)

    def images(self, recipe: Recipe) -> ImageConfig | None:
        """How images are used. None: the model reads no images."""
        return None if recipe.images is None else replace(recipe.images, **self.image_changes)
