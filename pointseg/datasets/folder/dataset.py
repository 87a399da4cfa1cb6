"""Your own clouds: a folder of files with a short description, ``dataset.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.axes import upright
from pointseg.datasets.classes import UNLABELLED
from pointseg.datasets.errors import DatasetError, EmptySceneError
from pointseg.datasets.folder.assumptions import Assumptions, in_description
from pointseg.datasets.folder.cameras import KINDS, CameraRule
from pointseg.datasets.folder.description import EXAMPLE, Description, map_labels, read_description
from pointseg.datasets.folder.subfolders import pattern_below, unnamed_note
from pointseg.datasets.named_scenes import NamedScenes
from pointseg.datasets.scale import check_scale
from pointseg.files import (
    SUFFIXES,
    CloudFileError,
    cloud_name,
    cloud_suffix,
    finite_points,
    in_pieces,
    read_scaled,
    size_of,
)
from pointseg.files.columns.fields import fields_in
from pointseg.files.columns.names import key_of
from pointseg.files.columns.origin import split_origin
from pointseg.files.columns.resolution import SAMPLE, resolution_notes
from pointseg.files.columns.scales import ValueRanges
from pointseg.files.columns.values import to_labels
from pointseg.files.coordinate_systems.units import file_unit
from pointseg.files.labelling.labels import CLASSIFICATION
from pointseg.geometry.ground import height_above_ground
from pointseg.scene import FIELDS, Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

DESCRIPTION = "dataset.yaml"
HEIGHT = "height_above_ground"
"""A feature that is computed, whatever the file has."""
LAS_SUFFIXES = (".las", ".laz")
USUAL_SPLITS = ("train", "val", "test")
MUST_BE_LABELLED = ("train", "val")
SMALL, FIRST = 200_000, 1000
"""Bytes of files that are looked at as a whole before work begins, and points of the others."""


class Folder(NamedScenes):
    """Clouds of any type that ``pointseg.files`` reads, below one folder.

    Points without a position are removed, and coordinates are converted to metres with z up. Scenes have the
    features that the description names, and their labels.
    """

    def __init__(self, root: Path, config: Path | None = None, *, labelled: bool = True) -> None:
        """Read the description and find the files.

        Args:
            root: the folder.
            config: the description; None: ``dataset.yaml`` in the folder.
            labelled: whether clouds of train and val need labels, and the description classes.

        Raises:
            DatasetError: the description is wrong, a pattern finds nothing, or a file is in train and in
                another split.
        """
        self.root, self.labelled = root, labelled
        self._description_file = root / DESCRIPTION if config is None else config
        self.description: Description = read_description(
            self._description_file, default_name=root.resolve().name, labelled=labelled
        )
        self.fields = self.description.features
        self.voxel_m = self.description.voxel_m
        self._whole: dict[Path, str] = {}
        """Folders that a split names as a whole, and the split."""
        self._files = {split: _by_name(root, files) for split, files in self._found().items()}
        self.classes = replace(self.description.classes, codes=self._codes())
        super().__init__(self.description.name, self._files)
        self._scale_checked = False
        self._assumptions = Assumptions()

    @property
    def meaning_of_labels(self) -> str:
        """Field and rules of the labels, as the description has them."""
        return repr((self.description.label, self.description.labels))

    @property
    def has_scans(self) -> bool:
        """Whether some clouds are ``.bin`` scans."""
        files = (path for of_split in self._files.values() for path in of_split.values())
        return any(path.suffix.lower() == ".bin" for path in files)

    def path(self, split: str, scene: str) -> Path:
        """The file of a cloud.

        Raises:
            DatasetError: there is no such cloud.
        """
        self.require(split, scene)
        return self._files[split][scene]

    def load(self, split: str, scene: str) -> Scene:
        """Load one cloud in metres with z up; ``segment`` may be missing outside train and val.

        Raises:
            CloudFileError: its file is damaged.
            DatasetError: it has no points, lacks a feature or its labels, has labels of no class, or its scale
                does not fit the voxel size.
        """
        found = self._load(split, scene)
        if self.description.check_scale and not self._scale_checked:
            doubt = check_scale(found, self.voxel_m)
            if doubt is not None:
                unit = f"'unit: {doubt.unit}' or another 'voxel_m', or " if doubt.unit else ""
                raise DatasetError(
                    f"{self.path(split, scene)}: {doubt.found}; in dataset.yaml give {unit}'check_scale: false' if it "
                    "is right as it is"
                )
            self._scale_checked = True  # all clouds of a folder have the same scale
        return found

    def look_at(self, split: str, scene: str) -> None:
        """Look at a cloud's header and first points, at all of it where it is small or these are not as they must be.

        Raises:
            EmptySceneError: it has no points with a position.
            UserError: as ``load``.
        """
        if size_of(self.path(split, scene)) > SMALL:
            with suppress(UserError):
                self._load(split, scene, first=FIRST, assumptions=self._assumptions)
                return
        self._load(split, scene, assumptions=self._assumptions)

    def remarks(self) -> list[str]:
        """Clouds that no split names; what was assumed of the values of the files looked at, what is odd about them."""
        return [*self._unnamed(), *self._assumptions.lines()]

    def state_ranges(self, ranges: ValueRanges) -> None:
        """Read all files with these ranges of values, instead of those that the description states."""
        self.description = replace(self.description, ranges=ranges)

    def _load(
        self,
        split: str,
        scene: str,
        *,
        first: int | None = None,
        assumptions: Assumptions | None = None,
    ) -> Scene:
        """A cloud, or its first points, before its scale is checked; tells what was assumed of it."""
        path = self.path(split, scene)
        file = path.relative_to(self.root).as_posix()
        description = self.description
        found, scales = read_scaled(
            path, columns=description.columns, stated=description.ranges, first=first
        )
        read, _ = finite_points(found)
        if len(read) == 0:
            raise EmptySceneError(
                f"{path}: has no points with a position; remove it from its split"
            )
        missing = sorted(self.fields - {HEIGHT} - set(read.fields))
        if missing:
            has = ", ".join(key for key in read.fields if key in FIELDS) or "positions only"
            why = "".join(f" ({scales.unfilled[key]})" for key in missing if key in scales.unfilled)
            raise DatasetError(
                f"{path}: lacks {', '.join(missing)}{why}, which 'features' in the description requires of "
                f"every cloud; it has: {has}"
            )
        if first is None:  # the first points may be unlike the others
            for lost in (
                each for key, each in sorted(scales.clipped.items()) if key in self.fields
            ):
                key = in_description(lost.option)
                raise DatasetError(
                    f"{path}: {lost.found}; state their range with {key} in {DESCRIPTION}"
                )
        fields = {key: read[key] for key in self.fields - {HEIGHT}}
        labels = None
        if self.labelled or self.classes != UNLABELLED:  # else labels have no meaning
            labels = self._labels(read, path, needed=self.labelled and split in MUST_BE_LABELLED)
        if labels is not None:
            fields["segment"] = map_labels(labels, self.description, file=file)
        kept = Scene(coord=read.coord, fields=fields, origin=read.origin, name=scene)
        unit = file_unit(path, description.unit_m)
        cloud = upright(kept, unit_m=unit.unit_m, up=description.up)
        if HEIGHT in self.fields:
            cloud = cloud.with_fields(**{HEIGHT: height_above_ground(cloud.coord)})
        if assumptions is not None:
            assumptions.add(file, scales, self.fields)
        return cloud

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """The posed images of a cloud, in metres with z up; () if it has none.

        Raises:
            UserError: there is no such cloud, or the description of its cameras is wrong; ``dataset.yaml`` has
                no ``cameras``, or no scene has any.
        """
        path, rule = self.path(split, scene), self.description.cameras
        if rule is None:
            raise DatasetError(
                f"{self._description_file}: has no 'cameras', which says where images are: {KINDS}"
            )
        place = rule.place(self.root, self._relative(path), split, scene)
        if not place.exists():
            self._require_cameras(rule, place)
            return ()
        return rule.frames(
            self.root,
            self._relative(path),
            split,
            scene,
            unit_m=file_unit(path, self.description.unit_m).unit_m,
            up=self.description.up,
        )

    def notes(self) -> list[str]:
        """What the user should know of the files' units and positions, by their headers and first points.

        Files that cannot be used are left to :meth:`look_at`, so that one message names all of them.
        """
        found: dict[str, list[Path]] = {}
        for of_split in self._files.values():
            for path in of_split.values():
                try:
                    unit = file_unit(path, self.description.unit_m)
                except CloudFileError:
                    continue
                first = _first_points(path, self.description.columns)
                coarse = [] if first is None else resolution_notes(first, unit.unit_m, self.voxel_m)
                for note in (*unit.notes, *coarse):
                    found.setdefault(note, []).append(path)
        return [
            f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: {note}"
            for note, paths in found.items()
        ]

    def _relative(self, path: Path) -> PurePosixPath:
        return PurePosixPath(path.relative_to(self.root).as_posix())

    def _require_cameras(self, rule: CameraRule, missing: Path) -> None:
        """Refuse a pattern under which no scene has images; single scenes may have none."""
        for split, files in self._files.items():
            for scene, path in files.items():
                if rule.place(self.root, self._relative(path), split, scene).exists():
                    return
        raise DatasetError(
            f"{missing}: is missing, as for all other scenes; correct 'cameras' in the description"
        )

    def _unnamed(self) -> list[str]:
        """Of each folder that a split names as a whole: clouds in its subfolders that no split names."""
        named = {path for of_split in self._files.values() for path in of_split.values()}
        outermost = (f for f in self._whole if not any(p in self._whole for p in f.parents))
        notes = (unnamed_note(self.root, self._whole[f], f, named) for f in outermost)
        return [note for note in notes if note]

    def _labels(self, scene: Scene, path: Path, *, needed: bool) -> NDArray[np.int32] | None:
        name = self.description.label or "segment"
        if name in scene:
            labels = to_labels(scene[name].reshape(len(scene), -1)[:, 0])
            if labels is None:
                raise DatasetError(f"{path}: its labels '{name}' must be whole numbers")
            return labels
        if needed:
            has = ", ".join(scene.fields) or "positions only"
            raise DatasetError(
                f"{path}: has no labels '{name}'; name their field with 'label' in the description; it has: {has}"
            )
        return None

    def _codes(self) -> tuple[int | None, ...]:
        """ASPRS codes of the classes: as stated, or their values in ``classification`` of LAS files."""
        stated, label = self.description.codes, self.description.label
        files = [path for of_split in self._files.values() for path in of_split.values()]
        is_las = all(cloud_suffix(path) in LAS_SUFFIXES for path in files)
        known: tuple[int | None, ...] = (None,) * len(self.description.classes)
        if is_las and self.description.labels and key_of(label or CLASSIFICATION) == CLASSIFICATION:
            known = self.description.codes_of_labels()
        names = self.description.classes.names
        codes = tuple(stated.get(name, code) for name, code in zip(names, known, strict=True))
        return codes if any(code is not None for code in codes) else ()

    def _found(self) -> dict[str, list[Path]]:
        splits = dict(self.description.splits)
        if not splits:
            splits = {name: (name,) for name in USUAL_SPLITS if (self.root / name).is_dir()}
        if not splits:
            raise DatasetError(
                f"{self.root}: has no folder train, val or test; name the files of each split in its "
                f"description, for example: {EXAMPLE}"
            )
        found = {split: self._matching(split, patterns) for split, patterns in splits.items()}
        for split, files in found.items():
            both = sorted(set(files) & set(found.get("train", ()))) if split != "train" else []
            if both:
                raise DatasetError(
                    f"{self.root}: {both[0].relative_to(self.root)} is in train and in {split}; a score "
                    f"on training clouds is meaningless"
                )
        return found

    def _matching(self, split: str, patterns: tuple[str, ...]) -> list[Path]:
        files: dict[Path, None] = {}
        for pattern in patterns:
            hits = self._hits(split, pattern)
            folders = [path for path in hits if path.is_dir() and cloud_suffix(path) is None]
            self._whole |= dict.fromkeys(folders, split)
            hits += [
                path
                for folder in folders
                for path in sorted(folder.iterdir())
                if path.name[0] != "."
            ]
            clouds = [path for path in hits if cloud_suffix(path) is not None]
            if not clouds:
                below = pattern_below(self.root, folders)
                hint = (
                    f"its subfolders have some: '{below}'" if below else f"for example: {EXAMPLE}"
                )
                raise DatasetError(
                    f"{self.root}: split '{split}': '{pattern}' finds no clouds (files that end in "
                    f"{', '.join(SUFFIXES)}, or folders with coord.npy); {hint}"
                )
            files |= dict.fromkeys(clouds)
        return list(files)

    def _hits(self, split: str, pattern: str) -> list[Path]:
        if not PurePosixPath(pattern).parts:  # ".": the root itself
            return [self.root]
        try:
            found = sorted(self.root.glob(pattern))
        except ValueError as error:
            raise DatasetError(f"{self.root}: split '{split}': '{pattern}': {error}") from error
        return [path for path in found if not self._is_hidden(path, pattern)]

    def _is_hidden(self, path: Path, pattern: str) -> bool:
        """Whether a name begins with a dot, as those of macOS' "._" files do, that the pattern does not name."""
        named = PurePosixPath(pattern).parts
        parts = path.relative_to(self.root).parts
        return any(part.startswith(".") and part not in named for part in parts)


def _first_points(path: Path, columns: Sequence[str] | None) -> Scene | None:
    """The positions of a file's first points; None: it is read as a whole, or damaged, which loading it will tell."""
    try:
        part = next(iter(in_pieces(path, columns).read(SAMPLE)))
        coord, origin = split_origin(fields_in(path, part).xyz)
    except CloudFileError:
        return None
    return Scene(coord=coord, origin=origin)


def folder_notes(dataset: object) -> list[str]:
    """What the user should know of the files of a folder, before they are read; of other datasets nothing."""
    return dataset.notes() if isinstance(dataset, Folder) else []


def _by_name(root: Path, files: list[Path]) -> dict[str, Path]:
    """Files by name without suffix, with their folders if the names are not unique."""
    stems = [cloud_name(path) for path in files]
    if len(set(stems)) == len(stems):
        return dict(zip(stems, files, strict=True))
    named = {
        "__".join((*path.relative_to(root).parent.parts, stem)): path
        for path, stem in zip(files, stems, strict=True)
    }
    if len(named) == len(files):
        return named
    return {"__".join(path.relative_to(root).parts): path for path in files}
