"""Several datasets as one, for learning without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pointseg.datasets.dataset import UNLABELLED, Dataset, require_split
from pointseg.datasets.errors import DatasetError
from pointseg.scene import Scene

if TYPE_CHECKING:
    from pointseg.images.config import ImageConfig
    from pointseg.images.readers.frame import Frame

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Part:
    """One dataset of several."""

    dataset: Dataset
    train: tuple[str, ...]
    """Its splits that are learned from."""
    val: tuple[str, ...]
    images: ImageConfig | None = None
    """By whose rule its images show points; None: the run's."""


class Mixture:
    """The scenes of several datasets, one dataset after the other; their labels mean nothing here."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Put datasets together.

        Raises:
            DatasetError: none, or one without images.
        """
        if not parts:
            raise DatasetError("Mixture: there must be at least one dataset")
        for part in parts:
            if not hasattr(part.dataset, "frames"):
                raise DatasetError(f"the dataset {part.dataset.name} has no images to learn from")
        self.parts = tuple(parts)
        self.name = "+".join(part.dataset.name for part in parts)
        self.classes = UNLABELLED
        self._scenes = {
            split: {
                f"{number}/{inner}/{name}": (number, inner, name)
                for number, part in enumerate(self.parts)
                for inner in (part.train if split == "train" else part.val)
                for name in part.dataset.scenes(inner)
            }
            for split in SPLITS
        }

    @property
    def fields(self) -> frozenset[str]:
        """Those that all of them have."""
        return frozenset.intersection(*(part.dataset.fields for part in self.parts))

    def splits(self) -> tuple[str, ...]:
        """What is learned from, and what validates."""
        return SPLITS

    def scenes(self, split: str) -> tuple[str, ...]:
        """``NUMBER/SPLIT/SCENE`` of all datasets.

        Raises:
            DatasetError: there is no such split.
        """
        require_split(self.name, split, SPLITS)
        return tuple(self._scenes[split])

    def load(self, split: str, scene: str) -> Scene:
        """As the dataset that it is of gives it."""
        number, inner, name = self._place(split, scene)
        return self.parts[number].dataset.load(inner, name)

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """Likewise."""
        number, inner, name = self._place(split, scene)
        found: tuple[Frame, ...] = self.parts[number].dataset.frames(inner, name)  # type: ignore[attr-defined]
        return found

    def seen_by(self, split: str, scene: str) -> ImageConfig | None:
        """By whose rule a scene's images show its points: that of its dataset; None: the run's."""
        return self.parts[self.source(split, scene)].images

    def source(self, split: str, scene: str) -> int:
        """Number of the dataset that a scene is of."""
        return self._place(split, scene)[0]

    def _place(self, split: str, scene: str) -> tuple[int, str, str]:
        require_split(self.name, split, SPLITS)
        if scene not in self._scenes[split]:
            raise DatasetError(f"{self.name}: split '{split}' has no scene '{scene}'")
        return self._scenes[split][scene]
