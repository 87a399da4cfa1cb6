"""Clouds as they are shown: some of their points, with classes, reference classes and measured values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.files import cloud_name, cloud_suffix, finite_points, known_intensity_max, size_of
from pointseg.files.columns.fields import fields_in
from pointseg.files.columns.names import SEGMENT, key_of
from pointseg.files.columns.to_scene import scales_of, scene_of_fields
from pointseg.prediction.inputs.input_files import walk_clouds
from pointseg.scene import IGNORE, Scene
from pointseg.scoring.compare import compare
from pointseg.scoring.labels import LABEL_SUFFIXES, FileLabels, bare_labels, labels_of
from pointseg.scoring.pairs import find_pairs
from pointseg.scoring.prediction_classes import Classes, Record, classes_of, read_record, record_of
from pointseg.scoring.spec import ScoreSpec
from pointseg.viewing.palette import ASPRS_COLORS, Color, Palette, numbered_names
from pointseg.viewing.spec import ViewSpec
from pointseg.viewing.thinning import THINNING, Thinned, columns_at

FAR = 100_000.0
"""Units between clouds, beyond which float32 shows steps of centimetres."""


@dataclass(frozen=True)
class ViewedCloud:
    """Some points of a cloud."""

    name: str
    """Of its file or scene."""
    scene: Scene
    """The points, all of them with a position."""
    count: int
    """Points of the file."""
    labels: NDArray[np.int32]
    """(n,) classes as indices into the palette, -1 where there is none."""
    reference: NDArray[np.int32] | None = None
    """(n,) reference classes likewise; None: there is no reference."""
    nowhere: int = 0
    """Points without a position among those that were read, which are not shown."""

    def placed(self, shift: NDArray[np.float64]) -> NDArray[np.float32]:
        """(n, 3) positions less ``shift``, which is subtracted before they lose digits."""
        return (self.scene.coord + (self.scene.origin - shift)).astype(np.float32)


def open_clouds(spec: ViewSpec, palette: Palette) -> list[ViewedCloud]:
    """Read the clouds; one that cannot be read is left out.

    Raises:
        UserError: none can be read, or there are none; a reference for several inputs.
    """
    pairs = _pairs(spec)
    sizes = [size_of(path) for path, _ in pairs]
    found: list[ViewedCloud] = []
    errors: list[str] = []
    for (path, reference), size in zip(pairs, sizes, strict=True):
        most = max(1, round(spec.most * size / max(1, sum(sizes))))
        done = len(found) + len(errors)
        spec.progress(done, len(pairs), path.name)

        def read(share: float, done: int = done) -> None:
            spec.progress(done + share, len(pairs), "")

        try:
            found.append(_read(path, reference, spec, palette, most, read))
        except (UserError, OSError) as error:
            if len(pairs) == 1:
                raise
            errors.append(str(error))
            spec.log(f"left out: {error}")
    if not found:
        raise UserError(f"none of {len(pairs)} clouds could be read; the first: {errors[0]}")
    away = max(float(np.abs(cloud.scene.origin - found[0].scene.origin).max()) for cloud in found)
    if away > FAR:
        spec.log(
            f"clouds lie up to {away:.0f} units apart: the farther ones are shown with steps of centimetres or more; "
            "show them separately"
        )
    return found


def scene_cloud(
    scene: Scene, names: Sequence[str], colors: NDArray[np.uint8], spec: ViewSpec, palette: Palette
) -> ViewedCloud:
    """A scene of a dataset, with at most so many points.

    Args:
        scene: all of its points.
        names: K names of the classes.
        colors: (K, 3) their colours.
        spec: how many points are kept; they are chosen at random.
        palette: receives the classes.
    """
    held, _ = finite_points(scene)
    nowhere = len(scene) - len(held)
    if len(held) > spec.most:
        rows = np.random.default_rng(0).choice(len(held), spec.most, replace=False)
        held = held.select(np.sort(rows))
    numbers = held["segment"] if "segment" in held else np.full(len(held), IGNORE, np.int32)
    painted = {n: (int(r), int(g), int(b)) for n, (r, g, b) in enumerate(colors)}
    labels = palette.indices(numbers, dict(enumerate(names)) if "segment" in held else {}, painted)
    return ViewedCloud(scene.name, held, len(scene), labels, nowhere=nowhere)


def _pairs(spec: ViewSpec) -> list[tuple[Path, Path | None]]:
    """The clouds, each with its reference."""
    if spec.reference is not None:
        if len(spec.inputs) != 1:
            raise UserError(
                f"--reference: is for one file or folder, {len(spec.inputs)} were given"
            )
        asked = replace(
            spec.meaning or ScoreSpec(spec.inputs[0], spec.reference),
            prediction=spec.inputs[0],
            reference=spec.reference,
        )
        pairs = find_pairs(asked)
        for path in pairs.surplus:
            spec.log(f"{path}: is shown without errors, for it has no reference")
        both = [*pairs.found, *((path, None) for path in pairs.surplus)]
        return [pair for pair in both if cloud_suffix(pair[0]) is not None]
    found: list[tuple[Path, Path | None]] = []
    for path in spec.inputs:
        if not path.exists():
            raise UserError(f"{path}: does not exist")
        is_folder = path.is_dir() and cloud_suffix(path) is None
        clouds = list(walk_clouds(path)) if is_folder else [path]
        if not clouds:
            raise UserError(f"{path}: no clouds in this folder and those below it")
        found += [(cloud, None) for cloud in clouds]
    return found


def _read(
    path: Path,
    reference: Path | None,
    spec: ViewSpec,
    palette: Palette,
    most: int,
    read: Callable[[float], None],
) -> ViewedCloud:
    """Read a cloud; ``read`` receives which part of it is done, 0 to 1."""
    meaning = spec.meaning or ScoreSpec(path, path)
    first = 1.0 if reference is None else 0.5  # then the reference is read
    thinned = THINNING[spec.thinning](path, most, meaning.columns, lambda part: read(first * part))
    found = fields_in(path, thinned.columns)
    scales = scales_of(found, known_intensity_max=known_intensity_max(path))
    name = path.name if cloud_suffix(path) == "" else cloud_name(path)
    scene, kept = finite_points(scene_of_fields(found, name=name, scales=scales))
    if not len(scene):
        raise UserError(f"{path}: contains no point with a position")
    labels, truth, classes = _labels(
        path, reference, thinned, meaning, lambda part: read(first + (1 - first) * part)
    )
    names = classes.names
    if names is None:
        numbers = labels if truth is None else np.concatenate([labels, truth])
        names = numbered_names(numbers, are_codes=classes.are_codes)
    colors = _colors(read_record(path), classes)
    shown = palette.indices(labels[kept], names, colors)
    other = None if truth is None else palette.indices(truth[kept], names, colors)
    nowhere = len(labels) - len(scene)
    return ViewedCloud(path.name, scene, thinned.count, shown, other, nowhere)


def _labels(
    path: Path,
    reference: Path | None,
    thinned: Thinned,
    meaning: ScoreSpec,
    read: Callable[[float], None],
) -> tuple[NDArray[np.int32], NDArray[np.int32] | None, Classes]:
    """(n,) labels, (n,) reference labels, and what their numbers mean."""
    record = read_record(path)
    field = meaning.prediction_field
    keys = {key_of(name) for name in thinned.columns}
    if field is None and reference is None and not keys & set(SEGMENT):
        return np.full(len(thinned.rows), IGNORE, np.int32), None, Classes({}, False)
    ours = labels_of(path, thinned.columns, field, option="--prediction-field", is_ours=True)
    ours = replace(ours, thinned_from=thinned.count)
    if reference is None:
        return ours.values, None, _classes(ours, record)
    own = read_record(reference)
    theirs = _reference_labels(reference, thinned, meaning, read, is_ours=own is not None)
    both = compare(ours, theirs, record, own, meaning)
    return both.guess, both.truth, both.classes


def _reference_labels(
    path: Path,
    thinned: Thinned,
    meaning: ScoreSpec,
    read: Callable[[float], None],
    *,
    is_ours: bool,
) -> FileLabels:
    """The reference labels of the points that were kept."""
    if path.name.lower().endswith(LABEL_SUFFIXES) and not path.is_dir():
        whole = bare_labels(path)
        values = whole[thinned.rows[thinned.rows < len(whole)]]
        return FileLabels(path, "label", values, None, thinned_from=len(whole))
    rows = columns_at(path, thinned.rows, meaning.columns, read)
    found = labels_of(
        path, rows.columns, meaning.reference_field, option="--reference-field", is_ours=is_ours
    )
    return replace(found, thinned_from=rows.count)


def _classes(labels: FileLabels, record: Record | None) -> Classes:
    """What labels mean; the codes that a prediction's input had are codes."""
    record = record_of(labels, record)
    if labels.is_codes and record is not None and record.codes is None:
        record = None
    found = classes_of(labels, record)
    if found.names is None or set(np.unique(labels.values).tolist()) <= {*found.names, IGNORE}:
        return found
    return Classes(None, found.are_codes)


def _colors(record: Record | None, classes: Classes) -> Mapping[int, Color]:
    """Colours of the classes' numbers, as the record of the prediction has them, or the usual ones of codes."""
    if classes.names is None and classes.are_codes:
        return ASPRS_COLORS
    if record is None or record.colors is None or classes.names is None:
        return {}
    if classes.are_codes:
        return dict(zip(record.codes or (), record.colors, strict=False))
    return dict(enumerate(record.colors))
