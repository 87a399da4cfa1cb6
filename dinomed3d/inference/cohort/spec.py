"""Options of a prediction run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dinomed3d.hub.local_model import name_or_path
from dinomed3d.runtime.errors import UserError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
PROBABILITIES = ("npz", "b2nd")
ENGINES = ("process", "threads", "ray")


@dataclass(frozen=True, kw_only=True)
class PredictSpec:
    """Options of one call of `dinomed3d predict`."""

    source: str
    """Folder or file to predict."""
    out: str
    """Folder for masks and report."""
    model: str
    """Trained model: a folder or a zip."""
    folds: tuple[str, ...] | None = None
    """Folds to average; None for all of the model."""
    checkpoint: str = "checkpoint_final.pth"
    """File name of the weights in a fold's folder."""
    patterns: Mapping[str, str] | None = None
    """Channel name -> pattern of the names of its files."""
    exclude: tuple[str, ...] = ()
    """Patterns of names, or of paths below the input, that are left out."""
    device: str = "auto"
    """Device of the networks: auto, cpu, cuda or mps."""
    precision: str = "auto"
    """One of PRECISIONS; auto is what the model was trained with on the device."""
    step_size: float = 0.5
    """Distance between windows as a fraction of the patch size, at most."""
    mirroring: bool = True
    """Whether predictions of mirrored windows are averaged, along the axes that the model names."""
    orientation: str | None = None
    """Reorient every volume to these axes for the network, such as RAS; None: as the model's reader does."""
    memory_limit_gib: float | None = None
    """Main memory of the working process; None for most of what is free."""
    save_probabilities: str | None = None
    """One of PROBABILITIES, the format in which the probabilities of all classes are written; None: they are not."""
    postprocessing: str | None = None
    """nnU-Net's postprocessing of masks: a file of it, or empty for the model's own; None: masks stay as predicted."""
    postprocessing_steps: tuple[tuple[int, ...], ...] | None = None
    """What it does (`models.postprocessing.Steps`), filled in when the run begins."""
    localizer: str | None = None
    """A coarse trained model; the model predicts only the region around what it finds."""
    localizer_margin_mm: float = 20.0
    """Margin on each side of that region, mm."""
    localizer_digest: str | None = None
    """sha256 of the localizer's files, filled in when the run begins."""
    dicom_seg: bool = False
    """Whether to write a DICOM segmentation for DICOM input."""
    dicom_rtstruct: bool = False
    """Whether to write a DICOM RT Structure Set for DICOM input."""
    statistics: bool = False
    """Whether to report volume and intensities of each label in `statistics.json`."""
    split_labels: bool = False
    """Whether to write a binary mask for each label, too."""
    anonymous: bool = False
    """Whether reports and progress have pseudonyms in place of names of cases and files."""
    overwrite: bool = False
    """Whether to predict all cases again."""
    retry_failed: bool = False
    """Whether to predict failed cases again."""
    shard: tuple[int, int] | None = None
    """(i, n) for the i-th of n shards of about equal size, counted from 1."""
    stall_minutes: float = 30.0
    """A case that shows no sign of progress for so long is given up; 0: never."""
    engine: str = "process"
    """One of ENGINES."""
    workers: int = 1
    """Number of workers of the engine ray."""

    def __post_init__(self) -> None:
        """Check all values."""
        first, shards = self.shard or (1, 1)
        limit = self.memory_limit_gib
        axes = self.orientation or "RAS"
        checks = {
            "--step-size": (0 < self.step_size <= 1, "above 0 and at most 1", self.step_size),
            "--memory-limit": (limit is None or limit > 0, "above 0 GiB", limit),
            "--shard": (1 <= first <= shards, "I/N with 1 <= I <= N", f"{first}/{shards}"),
            "--localizer-margin": (
                0 <= self.localizer_margin_mm < float("inf"),
                "0 mm or more",
                self.localizer_margin_mm,
            ),
            "--localizer": (
                self.localizer is None or not self.save_probabilities,
                "left out with --save-probabilities: there are none outside its region",
                self.localizer,
            ),
            "--save-probabilities": (
                self.save_probabilities in (None, *PROBABILITIES),
                f"one of {', '.join(PROBABILITIES)}",
                self.save_probabilities,
            ),
            "--stall-minutes": (
                0 <= self.stall_minutes < float("inf"),
                "0 minutes (never) or more",
                self.stall_minutes,
            ),
            "--workers": (self.workers >= 1, "1 or more", self.workers),
            "--orientation": (
                len(axes) == 3 and all(any(a in pair for a in axes) for pair in ("RL", "AP", "SI")),
                "three letters, one each of R/L, A/P, S/I",
                self.orientation,
            ),
        }
        for option, (valid, must, value) in checks.items():
            if not valid:
                raise UserError(f"{option} must be {must}, got {value}")

    @property
    def settings(self) -> dict[str, Any]:
        """The options that results depend on, other than the model."""
        names = ("step_size", "mirroring", "precision", "orientation", "save_probabilities")
        settings = {name: getattr(self, name) for name in (*names, "dicom_seg")}
        steps = self.postprocessing_steps
        settings["postprocessing"] = None if steps is None else [list(step) for step in steps]
        margin_mm = None if self.localizer is None else self.localizer_margin_mm
        return settings | {"localizer": self.localizer_digest, "localizer_margin_mm": margin_mm}

    def for_report(self) -> dict[str, Any]:
        """The options of the whole run; models of the hub have their names there, not where the cache has them."""
        localizer = None if self.localizer is None else name_or_path(self.localizer)
        named = replace(self, model=name_or_path(self.model), localizer=localizer, shard=None)
        return asdict(named)
