"""Splits and scenes by name, and the refusal of unknown ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pointseg.datasets.errors import DatasetError


class NamedScenes:
    """The splits and scenes of a dataset by name."""

    def __init__(self, name: str, scenes: Mapping[str, Iterable[str]]) -> None:
        """List the scenes.

        Args:
            name: name of the dataset.
            scenes: names of the scenes of each split, in order.
        """
        self.name = name
        self._names = {split: tuple(names) for split, names in scenes.items()}
        self._members = {split: frozenset(names) for split, names in self._names.items()}
        self.left_out: frozenset[tuple[str, str]] = frozenset()
        """Split and name of scenes that are not used, as they cannot be."""

    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self._names)

    def scenes(self, split: str) -> tuple[str, ...]:
        """Names of the scenes of a split.

        Raises:
            DatasetError: there is no such split.
        """
        require_split(self.name, split, self.splits())
        return self._names[split]

    def look_at(self, split: str, scene: str) -> None:
        """Look at the files of a scene as far as that is cheap: whether they are there, whole and not empty.

        Raises:
            EmptySceneError: it has no points.
            UserError: it cannot be used.
        """

    def remarks(self) -> list[str]:
        """What the user should know of the scenes that were looked at."""
        return []

    def leave_out(self, scenes: Iterable[tuple[str, str]]) -> None:
        """Use some scenes (split, name) no more."""
        self.left_out |= frozenset(scenes)
        for split, names in self._names.items():
            self._names[split] = tuple(n for n in names if (split, n) not in self.left_out)

    def require(self, split: str, scene: str) -> None:
        """Refuse an unknown split or scene.

        Raises:
            DatasetError: there is no such split or scene.
        """
        names = self.scenes(split)
        if scene not in self._members[split]:
            require_scene(self.name, split, scene, names)


def require_split(dataset: str, split: str, known: Sequence[str]) -> None:
    """Refuse an unknown split.

    Raises:
        DatasetError: ``split`` is not among ``known``.
    """
    if split not in known:
        raise DatasetError(f"{dataset}: has no split '{split}', only {', '.join(known)}")


def require_scene(dataset: str, split: str, scene: str, known: Sequence[str]) -> None:
    """Refuse an unknown scene.

    Raises:
        DatasetError: ``scene`` is not among ``known``.
    """
    if scene not in known:
        raise DatasetError(
            f"{dataset}: split '{split}' has no scene '{scene}' among its {len(known)}"
        )
