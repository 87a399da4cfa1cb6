"""What a training run is asked to do, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from pointseg.config.recipe import Recipe
from pointseg.datasets.dataset import Dataset
from pointseg.training.tasks.task import TrainingTask

if TYPE_CHECKING:
    from pointseg.images.features.feature_cache import FeatureCache


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """One training run."""

    dataset: Dataset
    """Scenes to train and validate on."""
    recipe: Recipe
    """What is trained, and how."""
    out: Path
    """Folder of the run; it is created if necessary."""
    task: TrainingTask | None = None
    """What is learned. None: segmentation into the classes of the labels."""
    cache: FeatureCache | None = None
    """Cached image features, for recipes with images. None: images are read and encoded."""
    resume: bool = False
    """Whether to continue from ``last.pt`` in ``out``."""
    init: Callable[[nn.Module], str] | None = None
    """Sets the initial weights of a new run; returns what it did, for the log."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    devices: int = 1
    """Devices (processes) on each machine."""
    nodes: int = 1
    """Number of machines."""
    precision: str = "float32"
    """float32, or mixed precision with float16 or bfloat16."""
    accumulate_grad_batches: int = 1
    """Smaller batches that each device's share of a batch is split into, to save memory."""
    workers: int = 0
    """Processes that load data, per device."""
    seed: int = 0
    """Seed of all random numbers."""
    log: Callable[[str], None] = print
    """Receives warnings and notes."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The outcome of a finished run."""

    best: Path
    """Checkpoint with the best validation score, without the state of the optimizer."""
    last: Path
    """Checkpoint after the last step, with all that resuming needs."""
    score: float
    """The best validation score: mIoU over voxels for segmentation, cosine for distillation."""
    steps: int
    """Optimizer steps."""
