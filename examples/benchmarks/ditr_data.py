"""Datasets as the arms of a benchmark see them: in memory, few labels, images of other scenes, a split for tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pointseg.images.readers.frame import Frame
from pointseg.scene import Scene


class _View:
    """A dataset that is another one but for what a subclass changes."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole
        self.name, self.classes, self.fields = whole.name, whole.classes, whole.fields

    def splits(self) -> tuple[str, ...]:
        """See Dataset.splits."""
        splits: tuple[str, ...] = self.whole.splits()
        return splits

    def scenes(self, split: str) -> tuple[str, ...]:
        """See Dataset.scenes."""
        scenes: tuple[str, ...] = self.whole.scenes(split)
        return scenes

    def load(self, split: str, scene: str) -> Scene:
        """See Dataset.load."""
        loaded: Scene = self.whole.load(split, scene)
        return loaded

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """See ProvidesFrames.frames."""
        frames: tuple[Frame, ...] = self.whole.frames(split, scene)
        return frames


class InMemory(_View):
    """A dataset whose scenes are read once; of training scenes a fixed share of the points is kept.

    Args:
        whole: the dataset.
        kept: share of the points of training scenes; scenes of other splits keep all.
    """

    def __init__(self, whole: Any, kept: float = 1.0) -> None:
        super().__init__(whole)
        self.kept = kept
        self._scenes: dict[tuple[str, str], Scene] = {}
        self._frames: dict[tuple[str, str], tuple[Frame, ...]] = {}

    def load(self, split: str, scene: str) -> Scene:
        """See Dataset.load."""
        if (split, scene) not in self._scenes:
            loaded = super().load(split, scene)
            if split == "train" and self.kept < 1:
                rows = np.random.default_rng(0).random(len(loaded)) < self.kept
                loaded = loaded.select(np.flatnonzero(rows))
            self._scenes[split, scene] = loaded
        return self._scenes[split, scene]

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """See ProvidesFrames.frames."""
        if (split, scene) not in self._frames:
            self._frames[split, scene] = super().frames(split, scene)
        return self._frames[split, scene]


class FewLabels(_View):
    """A dataset of which only some training scenes are used."""

    def __init__(self, whole: Any, scenes: Sequence[str]) -> None:
        super().__init__(whole)
        self.few = tuple(scenes)

    def scenes(self, split: str) -> tuple[str, ...]:
        """See Dataset.scenes."""
        return self.few if split == "train" else super().scenes(split)


class HeldOut(_View):
    """The training scenes alone, some of them held out as ``val``: to choose settings without the test scenes."""

    def __init__(self, whole: Any, scenes: Sequence[str]) -> None:
        super().__init__(whole)
        self.held_out = tuple(scenes)

    def scenes(self, split: str) -> tuple[str, ...]:
        """See Dataset.scenes."""
        if split != "train":
            return self.held_out
        return tuple(name for name in super().scenes("train") if name not in self.held_out)

    def load(self, split: str, scene: str) -> Scene:
        """See Dataset.load."""
        return super().load("train", scene)

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """See ProvidesFrames.frames."""
        return super().frames("train", scene)


class OtherImages(_View):
    """A dataset whose scenes have the images of another scene of their split, under their own cameras.

    Args:
        whole: every scene of it has the same number of images.
        seed: of the order in which scenes pass their images on.
    """

    def __init__(self, whole: Any, seed: int) -> None:
        super().__init__(whole)
        self.seed = seed

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """See ProvidesFrames.frames."""
        names = np.random.default_rng(self.seed).permutation(super().scenes(split)).tolist()
        other = names[(names.index(scene) + 1) % len(names)]
        own, given = super().frames(split, scene), super().frames(split, other)
        return tuple(replace(a, image=b.image) for a, b in zip(own, given, strict=True))


def few_labels(data: Any, count: int, seed: int) -> FewLabels:
    """Draw ``count`` training scenes that together contain every class of the training scenes."""
    scenes = data.scenes("train")
    there = {
        name: set(np.unique(data.load("train", name)["segment"]).tolist()) - {-1} for name in scenes
    }
    every = set().union(*there.values())
    rng = np.random.default_rng(seed)
    best: tuple[str, ...] = ()
    for _ in range(1000):
        drawn = tuple(rng.permutation(scenes)[:count].tolist())
        if not best or _classes(there, drawn) > _classes(there, best):
            best = drawn
        if _classes(there, best) == len(every):
            break
    return FewLabels(data, best)


def _classes(there: dict[str, set[int]], names: Sequence[str]) -> int:
    return len(set().union(*(there[name] for name in names)))
