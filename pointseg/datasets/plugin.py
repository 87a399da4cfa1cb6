"""Datasets of the user's own, named ``package.module:Class``: every answer is checked, every error names them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointseg.datasets.classes import ClassList
from pointseg.datasets.dataset import Dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.folder.description import FEATURES
from pointseg.datasets.named_scenes import require_scene, require_split
from pointseg.plugins import errors_of, import_class, parameters_of, require_methods
from pointseg.scene import IGNORE, Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

PROTOCOL = "pointseg.datasets.dataset.Dataset"


class PluginDataset:
    """A dataset that asks a plug-in, and checks what it answers."""

    def __init__(self, plugin: str, inner: Any) -> None:
        """Check what does not need a scene.

        Args:
            plugin: its name, ``package.module:Class``.
            inner: an instance of that class.

        Raises:
            DatasetError: its name, classes, fields, voxel size or splits are missing or of another type.
            PluginError: it failed.
        """
        self.plugin, self.inner = plugin, inner
        with errors_of(plugin, "the properties name, classes, fields"):
            name: Any = getattr(inner, "name", None)
            classes: Any = getattr(inner, "classes", None)
            fields: Any = getattr(inner, "fields", None)
            size: Any = getattr(inner, "voxel_m", None)
        self._require("name", isinstance(name, str), "text", name)
        self._require("classes", isinstance(classes, ClassList), "a ClassList", classes)
        self.name: str = name
        self.classes: ClassList = classes
        fits = isinstance(fields, set | frozenset) and fields <= set(FEATURES)
        self._require("fields", fits, f"a set of some of {', '.join(FEATURES)}", fields)
        self.fields: frozenset[str] = frozenset(fields)
        is_size = size is None or (isinstance(size, int | float) and 0 < size < float("inf"))
        self._require("voxel_m", is_size, "a number of metres above 0", size)
        self.voxel_m: float | None = None if size is None else float(size)
        self._splits = self._names("splits()", lambda: inner.splits())

    def splits(self) -> tuple[str, ...]:
        """Names of its splits."""
        return self._splits

    def scenes(self, split: str) -> tuple[str, ...]:
        """Names of the scenes of a split.

        Raises:
            DatasetError: there is no such split, or the names are no distinct texts.
            PluginError: the plug-in failed.
        """
        require_split(self.name, split, self._splits)
        return self._names(f"scenes({split!r})", lambda: self.inner.scenes(split))

    def load(self, split: str, scene: str) -> Scene:
        """Load one cloud.

        Raises:
            DatasetError: there is no such scene, or it is no ``Scene``, lacks a field, or has labels of no class.
            PluginError: the plug-in failed.
        """
        require_scene(self.name, split, scene, self.scenes(split))
        who = f"load({split!r}, {scene!r})"
        with errors_of(self.plugin, who):
            found = self.inner.load(split, scene)
        self._require(who, isinstance(found, Scene), "a pointseg.Scene", found)
        missing = sorted(self.fields - set(found.fields))
        if missing:
            raise DatasetError(
                f"{self.plugin}: {who} lacks {', '.join(missing)}, which 'fields' promises of every scene"
            )
        labels, count = found.fields.get("segment"), len(self.classes)
        if (
            labels is not None
            and len(labels)
            and not IGNORE <= labels.min() <= labels.max() < count
        ):
            raise DatasetError(
                f"{self.plugin}: {who} has labels {labels.min()} to {labels.max()}; they must be 0 to {count - 1}, "
                f"indices of 'classes', or {IGNORE} for points that do not count"
            )
        return found

    def _names(self, who: str, ask: Any) -> tuple[str, ...]:
        with errors_of(self.plugin, who):
            found = ask()
            names = tuple(found) if isinstance(found, list | tuple) else None
        fits = names is not None and len(set(names)) == len(names)
        fits = fits and all(isinstance(each, str) for each in names or ())
        self._require(who, fits, "a tuple of distinct names", found)
        return names or ()

    def _require(self, what: str, fits: bool, wanted: str, found: Any) -> None:
        if not fits:
            raise DatasetError(
                f"{self.plugin}: {what} must be {wanted}, got {found!r:.80} (see {PROTOCOL})"
            )


class PluginWithFrames(PluginDataset):
    """A plug-in whose scenes have posed images (``ProvidesFrames``)."""

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """The posed images of a scene.

        Raises:
            DatasetError: they are no frames.
            PluginError: the plug-in failed.
        """
        from pointseg.images.readers.frame import Frame

        who = f"frames({split!r}, {scene!r})"
        with errors_of(self.plugin, who):
            found = tuple(self.inner.frames(split, scene))
        fits = all(isinstance(each, Frame) for each in found)
        self._require(who, fits, "a tuple of pointseg.images.readers.frame.Frame", found)
        return found


def open_plugin(name: str, root: Path | None, config: Path | None) -> Dataset:
    """A dataset of the user's own; its constructor gets ``root`` and ``config`` if it takes them.

    Raises:
        DatasetError: it needs a folder and got none, takes none and got one, or does not fit ``Dataset``.
        PluginError: it cannot be imported, or failed.
    """
    kind = import_class(name)
    require_methods(kind, name, ("splits", "scenes", "load"), PROTOCOL)
    given: dict[str, Path] = {}
    parameters = {each.name: each for each in parameters_of(kind, name)}
    for key, value in (("root", root), ("config", config)):
        if key not in parameters:
            if value is not None:
                raise DatasetError(
                    f"{name}: its constructor takes no '{key}'; leave out --{key} {value}"
                )
        elif value is None:
            if parameters[key].default is inspect.Parameter.empty:
                raise DatasetError(f"{name}: needs '{key}'; give --{key}")
        elif not value.exists():
            raise DatasetError(f"{name}: --{key} {value}: does not exist")
        else:
            given[key] = value
    with errors_of(name, f"{kind.__name__}({', '.join(given)})"):
        inner = kind(**given)
    has_frames = callable(getattr(inner, "frames", None))
    return PluginWithFrames(name, inner) if has_frames else PluginDataset(name, inner)
