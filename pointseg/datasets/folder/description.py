"""Reads ``dataset.yaml``, the description of a folder of clouds."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.conventions import UNITS_M, UP_AXES
from pointseg.datasets.classes import UNLABELLED, ClassList, distinct_colors
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.folder.cameras import CameraRule, parse_cameras
from pointseg.datasets.folder.plain_yaml import read_plain_yaml
from pointseg.files.columns.scales import ValueRanges
from pointseg.scene import IGNORE

EXAMPLE = (
    "{classes: [ground, tree], features: [color], voxel_m: 0.05, "
    "splits: {train: [train], val: ['val/*.ply']}}"
)
"""A minimal description on one line; examples/folder.yaml shows all keys."""
KEYS = ("name", "classes", "colors", "features", "voxel_m", "splits", "unit", "up", "label", "labels",
        "columns", "check_scale", "color_max", "intensity_min", "intensity_max", "cameras", "codes")  # fmt: skip
FEATURES = ("color", "normal", "strength", "returns", "height_above_ground")


@dataclass(frozen=True)
class LabelRule:
    """The meaning of the labels in some files."""

    files: tuple[str, ...]
    """Patterns that the end of a file's path must match; empty: all files."""
    ranges: tuple[tuple[int, int, int], ...]
    """First value, last value, class (IGNORE if they are ignored)."""

    def applies(self, file: str) -> bool:
        """Whether the rule is for a file, given by its path below the root."""
        return not self.files or any(PurePosixPath(file).match(each) for each in self.files)


@dataclass(frozen=True)
class Description:
    """The description of a folder of clouds."""

    name: str
    """Name of the dataset."""
    classes: ClassList
    """Classes of the labels."""
    features: frozenset[str]
    """Features that every cloud has, of color, normal, strength, returns and height_above_ground."""
    voxel_m: float
    """Side of a voxel in metres."""
    splits: Mapping[str, tuple[str, ...]]
    """Patterns of files below the root by split; empty: the folders train, val and test."""
    unit_m: float | None
    """Metres per unit of the coordinates; None: as each file says, else metres."""
    up: str
    """Vertical axis: z, y or -y."""
    label: str | None
    """Field of the labels; None: the one that readers recognise as labels."""
    labels: tuple[LabelRule, ...]
    """Rules, of which the first for a file counts; empty: labels are class indices."""
    columns: tuple[str, ...] | None
    """Columns of text files without a header; None: they have one."""
    check_scale: bool
    """Whether units and voxel size are checked."""
    ranges: ValueRanges
    """Ranges of colours and intensities that it states; others are found in each file."""
    cameras: CameraRule | None = None
    """Where the posed images are; None: there are none."""
    codes: Mapping[str, int] = field(default_factory=dict)
    """Number of a class in ``classification`` of LAS results, where the labels do not tell it."""

    def codes_of_labels(self) -> tuple[int | None, ...]:
        """The value of each class in the files' labels; None where several values make one class."""
        values: list[set[int]] = [set() for _ in self.classes.names]
        for rule in self.labels:
            for first, last, index in rule.ranges:
                if index != IGNORE:
                    values[index] |= {first, last}
        return tuple(each.pop() if len(each) == 1 else None for each in values)


def read_description(path: Path, *, default_name: str, labelled: bool = True) -> Description:
    """Read and check a description.

    Args:
        path: the file.
        default_name: name of the dataset if the file has none.
        labelled: whether classes are required; otherwise the default is UNLABELLED.

    Raises:
        DatasetError: it is missing or not YAML, a key is unknown or there twice, or a value is wrong.
    """
    if not path.is_file():
        raise DatasetError(
            f"{path}: is missing; describe your clouds in it (or give another with --config), such as: {EXAMPLE}"
        )
    try:
        found = read_plain_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not YAML: {error}") from error
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error
    return _Parser(path, found, labelled).description(default_name)


class _Parser:
    """Parses one description; errors name file and key."""

    def __init__(self, path: Path, found: Any, labelled: bool) -> None:
        self.path, self.labelled = path, labelled
        self.found = self.mapping("the file", found)

    def description(self, default_name: str) -> Description:
        unknown = [str(key) for key in self.found if key not in KEYS]
        if unknown:
            near = difflib.get_close_matches(unknown[0], KEYS, 1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(KEYS)}"
            raise self.error(f"unknown key '{unknown[0]}'{hint}")
        needed = (*(("classes",) if self.labelled else ()), "features", "voxel_m")
        missing = [key for key in needed if key not in self.found]
        if missing:
            raise self.error(f"lacks {', '.join(missing)}; for example: {EXAMPLE}")
        classes = self.classes()
        columns = self.found.get("columns")
        label = self.found.get("label")
        return Description(
            name=self.text("name", self.found.get("name", default_name)),
            classes=classes,
            features=self.features(),
            voxel_m=self.above_0("voxel_m", "a number of metres"),
            splits=self.splits(),
            unit_m=UNITS_M[self.choice("unit", "", tuple(UNITS_M))]
            if "unit" in self.found
            else None,
            up=self.choice("up", "z", UP_AXES),
            label=None if label is None else self.text("label", label),
            labels=self.labels(classes.names),
            columns=None if columns is None else self.texts("columns", columns),
            check_scale=self.flag("check_scale", True),
            ranges=self.ranges(),
            cameras=self.cameras(),
            codes=self.codes(classes.names),
        )

    def error(self, problem: str) -> DatasetError:
        return DatasetError(f"{self.path}: {problem}")

    def mapping(self, what: str, value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            kind = type(value).__name__
            raise self.error(
                f"{what} must hold 'key: value' lines, got {kind}; for example: {EXAMPLE}"
            )
        return value

    def text(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.error(
                f"'{key}' must be text (in quotes, if YAML reads it as something else), got {value!r}"
            )
        return value

    def texts(self, key: str, value: Any) -> tuple[str, ...]:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list):
            raise self.error(f"'{key}' must be a list, got {value!r}")
        return tuple(self.text(key, each) for each in values)

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        value = self.found.get(key, default)
        if value not in choices:
            raise self.error(f"'{key}' must be one of {', '.join(choices)}, got {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.found.get(key, default)
        if not isinstance(value, bool):
            raise self.error(f"'{key}' must be true or false, got {value!r}")
        return value

    def features(self) -> frozenset[str]:
        values = self.texts("features", self.found["features"])
        for value in values:
            if value not in FEATURES:
                raise self.error(f"'features' must be some of {', '.join(FEATURES)}, got '{value}'")
        return frozenset(values)

    def ranges(self) -> ValueRanges:
        found: dict[str, float] = {}
        if "color_max" in self.found:
            found["color_max"] = self.above_0("color_max")
        if "intensity_min" in self.found:
            found["intensity_min"] = self.above("intensity_min", -inf)
        if "intensity_max" in self.found:
            found["intensity_max"] = self.above("intensity_max", found.get("intensity_min", 0.0))
        return ValueRanges(**found)

    def above_0(self, key: str, what: str = "a number") -> float:
        return self.above(key, 0.0, what)

    def above(self, key: str, least: float, what: str = "a number") -> float:
        value = self.found[key]
        try:  # YAML reads 1e-2 as text
            size = float(value) if isinstance(value, (int, float, str)) else nan
        except ValueError:
            size = nan
        if not least < size < inf or isinstance(value, bool):
            beyond = "" if least == -inf else f" above {least:g}"
            raise self.error(f"'{key}' must be {what}{beyond}, got {value!r}")
        return size

    def classes(self) -> ClassList:
        names = self.texts("classes", self.found.get("classes", []))
        if not names and not self.labelled:
            names = UNLABELLED.names
        if not names or len(set(names)) != len(names):
            raise self.error(f"'classes' must be distinct names, at least one, got {list(names)}")
        colors = distinct_colors(len(names))
        for name, color in self.mapping("'colors'", self.found.get("colors", {})).items():
            if name not in names:
                raise self.error(f"'colors' names '{name}', which is not among the classes")
            parts = color if isinstance(color, list) else []
            if len(parts) != 3 or not all(type(c) is int and 0 <= c <= 255 for c in parts):
                raise self.error(
                    f"the color of '{name}' must be [red, green, blue], 0 to 255, got {color!r}"
                )
            colors[names.index(name)] = parts
        return ClassList(names=names, colors=colors)

    def splits(self) -> dict[str, tuple[str, ...]]:
        splits = {}
        for split, patterns in self.mapping("'splits'", self.found.get("splits", {})).items():
            name = self.text("splits", split)
            splits[name] = self.texts(f"splits: {name}", patterns)
            for pattern in splits[name]:
                parts = PurePosixPath(pattern)
                if parts.is_absolute() or ".." in parts.parts:
                    raise self.error(f"splits: {name}: '{pattern}' must lie below the root")
        return splits

    def cameras(self) -> CameraRule | None:
        value = self.found.get("cameras")
        try:
            return None if value is None else parse_cameras(value)
        except ValueError as error:
            raise self.error(str(error)) from error

    def codes(self, names: Sequence[str]) -> dict[str, int]:
        found = self.mapping("'codes'", self.found.get("codes", {}))
        for name, code in found.items():
            if name not in names:
                raise self.error(f"'codes' names {name!r}, which is not among the classes")
            if type(code) is not int or not 0 <= code <= 255:
                raise self.error(f"'codes': {name} must be a number of 0 to 255, got {code!r}")
        return found

    def labels(self, names: Sequence[str]) -> tuple[LabelRule, ...]:
        value = self.found.get("labels")
        if value is None:
            return ()
        rules = value if isinstance(value, list) else [value]
        return tuple(self.rule(self.mapping("'labels'", rule), names) for rule in rules)

    def rule(self, rule: dict[Any, Any], names: Sequence[str]) -> LabelRule:
        unknown = [str(key) for key in rule if key not in ("files", "map", "ignore")]
        if unknown:
            raise self.error(f"'labels' takes files, map and ignore, got '{unknown[0]}'")
        ranges = []
        for key, name in self.mapping("'labels: map'", rule.get("map", {})).items():
            if name not in names:
                raise self.error(
                    f"'labels: map' maps {key} to {name!r}, which is not among the classes"
                )
            ranges.append((*self.span(key), names.index(name)))
        ignored = rule.get("ignore", [])
        for key in ignored if isinstance(ignored, list) else [ignored]:
            ranges.append((*self.span(key), IGNORE))
        ordered = sorted(ranges)
        for one, two in zip(ordered, ordered[1:], strict=False):
            if two[0] <= one[1]:
                raise self.error(f"'labels' maps {two[0]} twice")
        return LabelRule(self.texts("labels: files", rule.get("files", [])), tuple(ordered))

    def span(self, key: Any) -> tuple[int, int]:
        """5 or "5-9" as the first and last value."""
        first, dash, last = (
            str(key).partition("-") if not str(key).startswith("-") else (key, "", "")
        )
        try:
            if isinstance(key, (bool, float)):
                raise ValueError
            span = int(first), int(last if dash else first)
        except ValueError:
            span = (1, 0)
        if span[0] > span[1]:
            raise self.error(
                f"'labels' must map whole numbers or ranges such as 20-29, got {key!r}"
            )
        return span


def map_labels(
    values: NDArray[np.int32], description: Description, *, file: str
) -> NDArray[np.int32]:
    """Map the labels of a file to class indices.

    Args:
        values: (N,) labels in the file.
        description: their meaning.
        file: path below the root, which selects the rule.

    Raises:
        DatasetError: a value has no class; the message names file, value and count.
    """
    count = len(description.classes)
    rules: Sequence[tuple[int, int, int]] = [(IGNORE, IGNORE, IGNORE)]
    rules = [*rules, *((index, index, index) for index in range(count))]
    if description.labels:
        rule = next((each for each in description.labels if each.applies(file)), None)
        if rule is None:
            raise DatasetError(
                f"{file}: no entry of 'labels' in the description matches this file; add one, or widen 'files'"
            )
        rules = [(IGNORE, IGNORE, IGNORE), *rule.ranges]  # -1 is ignored unless it is mapped
    raw, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    table = np.full(len(raw), -2, np.int32)
    for first, last, index in rules:
        table[(raw >= first) & (raw <= last)] = index
    wrong = np.flatnonzero(table == -2)
    if len(wrong):
        listed = ", ".join(f"{raw[i]} ({counts[i]} points)" for i in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise DatasetError(
            f"{file}: has labels of no class: {listed}{more}; with {count} classes labels are "
            f"0 to {count - 1} or -1, unless 'labels' in the description maps them"
        )
    return table[inverse.reshape(-1)]
