"""Several datasets as one, for training without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pointseg.datasets.classes import UNLABELLED
from pointseg.datasets.dataset import Dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.named_scenes import NamedScenes
from pointseg.scene import Scene
from pointseg.transforms import Compose

if TYPE_CHECKING:
    from pointseg.images.config import ImageConfig
    from pointseg.images.readers.frame import Frame

SPLITS = ("train", "val")


@dataclass(frozen=True)
class SampleSteps:
    """How scenes become samples of a network."""

    training: Compose
    """Transforms in training: augmentation, voxels, crop."""
    validation: Compose
    """Transforms in validation."""
    in_words: str
    """Size of voxels and crops, for messages."""


@dataclass(frozen=True)
class SourceDataset:
    """One dataset of a mixture."""

    dataset: Dataset
    """The dataset."""
    train: tuple[str, ...]
    """Its splits for training."""
    val: tuple[str, ...]
    """Its splits for validation."""
    images: ImageConfig | None = None
    """Settings with its number of views and visibility; None: those of the run."""
    steps: SampleSteps | None = None
    """How its scenes become samples; None: as those of the run."""


class Mixture(NamedScenes):
    """The scenes of several datasets, named ``NUMBER/SPLIT/SCENE``; labels are not used."""

    def __init__(self, sources: Sequence[SourceDataset]) -> None:
        """Combine datasets.

        Raises:
            DatasetError: there is none, or one has no images.
        """
        if not sources:
            raise DatasetError("Mixture: there must be at least one dataset")
        for source in sources:
            if not hasattr(source.dataset, "frames"):
                raise DatasetError(f"the dataset {source.dataset.name} has no images to learn from")
        self.sources = tuple(sources)
        self.classes = UNLABELLED
        self._scenes = {
            split: {
                f"{number}/{inner}/{name}": (number, inner, name)
                for number, source in enumerate(self.sources)
                for inner in (source.train if split == "train" else source.val)
                for name in source.dataset.scenes(inner)
            }
            for split in SPLITS
        }
        super().__init__("+".join(source.dataset.name for source in sources), self._scenes)

    @property
    def fields(self) -> frozenset[str]:
        """Fields that all of them have."""
        return frozenset.intersection(*(source.dataset.fields for source in self.sources))

    def load(self, split: str, scene: str) -> Scene:
        """Load a scene from its dataset."""
        number, inner, name = self._place(split, scene)
        return self.sources[number].dataset.load(inner, name)

    def look_at(self, split: str, scene: str) -> None:
        """Look at the files of a scene, as its dataset does."""
        number, inner, name = self._place(split, scene)
        dataset = self.sources[number].dataset
        if isinstance(dataset, NamedScenes):
            dataset.look_at(inner, name)

    def remarks(self) -> list[str]:
        """Those of all datasets."""
        sources = (source.dataset for source in self.sources)
        return [line for d in sources if isinstance(d, NamedScenes) for line in d.remarks()]

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """The posed images of a scene, from its dataset."""
        number, inner, name = self._place(split, scene)
        found: tuple[Frame, ...] = self.sources[number].dataset.frames(inner, name)  # type: ignore[attr-defined]
        return found

    def image_config(self, split: str, scene: str) -> ImageConfig | None:
        """The image settings of a scene's dataset; None: those of the run."""
        return self.sources[self.source(split, scene)].images

    def sample_steps(self, split: str, scene: str) -> SampleSteps | None:
        """How a scene of its dataset becomes a sample; None: as those of the run."""
        return self.sources[self.source(split, scene)].steps

    def source(self, split: str, scene: str) -> int:
        """Number of a scene's dataset."""
        return self._place(split, scene)[0]

    def _place(self, split: str, scene: str) -> tuple[int, str, str]:
        self.require(split, scene)
        return self._scenes[split][scene]
