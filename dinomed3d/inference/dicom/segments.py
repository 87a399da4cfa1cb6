"""The labels of a mask as DICOM objects have them: values, name, colour, and a generic code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.palette import COLOURS
from dinomed3d.runtime.errors import UserError

LEFT_OUT = "no voxels, not in the DICOM segmentation: "
"""Beginning of the note that names labels without voxels."""


def foreground_labels(labels: Mapping[str, int | Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The values of each label or region, without the background and nnU-Net's 'ignore'.

    Raises:
        UserError: A name that DICOM's segment labels cannot hold.
    """
    kept = {}
    for name, value in labels.items():
        values = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
        if set(values) == {0} or name == "ignore":
            continue
        blank = not name or name != name.strip()
        if blank or len(name) > 64 or "\\" in name or not name.isprintable():
            raise UserError(
                f"label {name!r}: its name in DICOM must have 1 to 64 printable characters, "
                "no backslash, and no blank at its beginning or end; rename it in the model's dataset.json"
            )
        kept[name] = values
    return kept


def labels_with_voxels(
    mask: NDArray[Any], named: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The labels that have voxels in a mask.

    Raises:
        ValueError: A mask that is not (Z, Y, X) uint8 or uint16, or has values without a label.
    """
    if mask.ndim != 3 or mask.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"'mask' must be (Z, Y, X) uint8 or uint16, got {mask.shape} {mask.dtype}")
    counts = np.zeros(np.iinfo(mask.dtype).max + 1, dtype=np.int64)
    for plane in mask:
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    known = {0}.union(*named.values())
    if strange := sorted(set(np.flatnonzero(counts).tolist()) - known):
        raise ValueError(f"'mask' has values without a label: {strange}")
    return {name: values for name, values in named.items() if counts[list(values)].any()}


def belonging(
    segments: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]
) -> list[NDArray[np.uint8]]:
    """For each segment a table: value of the mask to 1 where it belongs."""
    tables = np.zeros((len(segments), np.iinfo(dtype).max + 1), dtype=np.uint8)
    for table, group in zip(tables, segments.values(), strict=True):
        table[list(group)] = 1
    return list(tables)


def describe_segment(
    number: int, name: str, colour: int, *, algorithm: Any, corrected: bool = False
) -> Any:
    """Describe one segment.

    A model does not say which coded concept a label is, so category and type are the generic
    'Tissue' of SNOMED CT (as 3D Slicer's default is), and the segment's label carries the name.

    Args:
        number: From 1.
        name: Of the label.
        colour: Index of the label among the model's labels, so that all cases agree.
        algorithm: highdicom's AlgorithmIdentificationSequence.
        corrected: Whether the mask was corrected by hand since.

    Returns:
        highdicom's SegmentDescription.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    kinds = highdicom.seg.SegmentAlgorithmTypeValues
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type=kinds.SEMIAUTOMATIC if corrected else kinds.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=highdicom.color.CIELabColor.from_string(COLOURS[colour % len(COLOURS)]),
    )
