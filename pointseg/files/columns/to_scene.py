"""The columns of a file as a scene."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pointseg.files.columns.fields import FileFields, fields_in, labels_in
from pointseg.files.columns.names import INSTANCE, SEGMENT
from pointseg.files.columns.origin import origin_of, split_origin
from pointseg.files.columns.scales import NOT_STATED, Scales, ValueRanges, Values
from pointseg.files.columns.values import to_color, to_normal, to_returns, to_strength
from pointseg.scene import FIELDS, Scene


def scales_of(
    found: FileFields,
    stated: ValueRanges = NOT_STATED,
    *,
    known_intensity_max: float | None = None,
) -> Scales:
    """What the points of a cloud decide together.

    Args:
        found: all of them.
        stated: ranges of their values that are not to be found.
        known_intensity_max: the intensity that becomes 1 in files of this type.
    """
    values = Values(stated, known_intensity_max=known_intensity_max)
    values.add(found)
    return values.scales(origin_of(found.xyz))


def scene_of(
    path: Path,
    columns: Mapping[str, NDArray[Any]],
    *,
    name: str,
    scales: Scales | None = None,
) -> Scene:
    """The columns of a file as a scene.

    Positions, colours, normals, intensities and labels are recognised by name and brought into the
    form that scenes have; intensities and labels also stay as they were, under the file's own names,
    and so does every column that is not recognised. A field that was never filled is left out.

    Args:
        path: the file, for messages.
        columns: (N,) or (N, k) arrays by the names that the file gives them.
        name: of the scene.
        scales: of the cloud that these points are a part of; None: they are the cloud.

    Raises:
        CloudFileError: no columns x, y and z, or not of numbers.
    """
    found = fields_in(path, columns)
    scales = scales_of(found) if scales is None else scales
    return scene_of_fields(found, name=name, scales=scales)


def scene_of_fields(found: FileFields, *, name: str, scales: Scales) -> Scene:
    """As ``scene_of``, of columns whose meaning is known."""
    coord, origin = split_origin(found.xyz, scales.origin)
    fields: dict[str, NDArray[Any]] = {}
    if found.color is not None:
        fields["color"] = to_color(found.color, scales.color_max)
    if found.normal is not None:
        fields["normal"] = to_normal(found.normal)
    if found.strength is not None:
        fields["strength"] = to_strength(found.strength, scales.intensity)
    if found.returns is not None:
        fields["returns"] = to_returns(*found.returns)
    fields = {key: values for key, values in fields.items() if key not in scales.unfilled}
    for key, names in (("segment", SEGMENT), ("instance", INSTANCE)):
        labels = labels_in(found.rest, names)
        if labels is not None:
            fields[key] = labels
    for key, values in found.rest.items():
        if key in fields and key in FIELDS:
            continue  # the file's own values, but for their type
        fields[f"file_{key}" if key in FIELDS else key] = values
    return Scene(coord=coord, fields=fields, origin=origin, name=name)
