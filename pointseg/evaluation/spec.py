"""Options of a test, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pointseg.datasets.dataset import Dataset
from pointseg.evaluation.robustness import Corruption
from pointseg.evaluation.visibility_breakdown import VisibilitySource
from pointseg.metrics import Confusion
from pointseg.models.trained_model import EncoderSource


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec:
    """One test of a trained model."""

    model: Path
    """Checkpoint of ``pointseg-train``."""
    dataset: Dataset
    """Scenes to test on."""
    out: Path
    """Folder of the results; results of an interrupted test there are used."""
    splits: tuple[str, ...] | None = None
    """Splits to test. None: those of the recipe."""
    test_changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe's ``InferenceConfig`` that are changed."""
    single_pass: bool = False
    """Whether each voxel is predicted once, without test-time augmentation."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    precision: str = "float32"
    """float32, float16 or bfloat16."""
    pictures: int = 4
    """Number of scenes to draw."""
    backbone: str | None = None
    """``package.module:Class`` of the model's backbone, which may then be imported. None: it must be built in."""
    submit: Path | None = None
    """Folder for the files of the benchmark. None: they are not written."""
    overwrite: bool = False
    """Whether scenes with valid results are predicted again."""
    encoder: EncoderSource | None = None
    """Opens the image encoder, for models that read images."""
    image_cache: Path | None = None
    """Folder with cached image features, instead of the encoder."""
    image_changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe's ``ImageConfig`` that are changed."""
    by_visibility: VisibilitySource | None = None
    """For models that read no images: score visible and other points separately, by this rule. With
    ``image_cache``, only the cached views count."""
    corruption: Corruption = field(default_factory=Corruption)
    """Corruption of points and cameras before prediction."""
    log: Callable[[str], None] = print
    """Receives notes."""
    progress: Callable[[float, int, str], None] = lambda done, total, name: None
    """Called with the number of finished scenes (fractional), of all scenes, and the scene that starts."""


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """The outcome of a test."""

    metrics: dict[str, Any]
    """The content of ``metrics.json``."""
    confusion: Confusion
    """Labels against predictions, over all scenes."""
    pictures: tuple[Path, ...] = ()
    """Pictures of scenes."""
