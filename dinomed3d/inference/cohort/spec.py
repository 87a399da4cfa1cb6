"""What a run of prediction was asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dinomed3d.runtime.errors import UserError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
ENGINES = ("process", "threads", "ray")


def names_axes(letters: str) -> bool:
    """Whether these are three letters, one of each pair R/L, A/P, S/I."""
    pairs = ("RL", "AP", "SI")
    return len(letters) == 3 and all(sum(c in pair for c in letters) == 1 for pair in pairs)


@dataclass(frozen=True, kw_only=True)
class PredictSpec:
    """One call of `dinomed3d predict`, as plain data."""

    source: str
    """Folder or file to predict."""
    out: str
    """Folder for masks and report."""
    model: str
    """Trained model: folder or zip."""
    folds: tuple[str, ...] | None = None
    """None: all that are there."""
    checkpoint: str = "checkpoint_final.pth"
    patterns: Mapping[str, str] | None = None
    """Channel name -> pattern of its files' names."""
    device: str = "auto"
    precision: str = "auto"
    step_size: float = 0.5
    """Share of a patch from one window to the next, at most."""
    mirroring: bool = True
    """Also mirrored, along the axes that the model names."""
    orientation: str | None = None
    """Turn every volume to these axes for the network, such as RAS; None: as the model's reader does."""
    memory_limit_gib: float | None = None
    """None: four fifths of what is free."""
    save_probabilities: bool = False
    dicom_seg: bool = False
    overwrite: bool = False
    retry_failed: bool = False
    shard: tuple[int, int] | None = None
    """(i, n): the i-th of n about equal parts, counted from 1."""
    engine: str = "process"
    workers: int = 1
    """Of the engine ray."""

    def __post_init__(self) -> None:
        """Refuse values that no run can have."""
        if not 0 < self.step_size <= 1:
            raise UserError(f"--step-size must be above 0 and at most 1, got {self.step_size:g}")
        if self.memory_limit_gib is not None and not self.memory_limit_gib > 0:
            raise UserError(f"--memory-limit must be above 0 GiB, got {self.memory_limit_gib:g}")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise UserError(
                f"--shard i/n needs 1 <= i <= n, got {self.shard[0]}/{self.shard[1]}; the first is 1/n"
            )
        if self.workers < 1:
            raise UserError(f"--workers must be 1 or more, got {self.workers}")
        if self.orientation is not None and not names_axes(self.orientation):
            raise UserError(
                f"--orientation must be three letters, one each of R/L, A/P, S/I, got {self.orientation!r}"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What masks depend on beside the model."""
        names = ("step_size", "mirroring", "precision", "orientation")
        wanted = ("save_probabilities", "dicom_seg")
        return {name: getattr(self, name) for name in (*names, *wanted)}

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> PredictSpec:
        """Back from plain data."""
        folds, shard = content["folds"], content["shard"]
        return PredictSpec(
            **{
                **content,
                "folds": None if folds is None else tuple(folds),
                "shard": None if shard is None else (int(shard[0]), int(shard[1])),
            }
        )
