"""How the labels of a model are told to a DICOM reader: names, codes and colours of segments."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from dinomed3d.inference.palette import COLOURS
from dinomed3d.runtime.errors import UserError

_ANATOMY, _LESIONS = "cid7192", "cid7194"
"""DICOM's lists of segmentation property types: anatomical, morphologically abnormal structures."""
_LESION_WORDS = ("tumor", "tumour", "lesion", "cancer", "metasta", "nodule", "edema", "oedema")


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
        if not name.strip() or len(name) > 64 or "\\" in name or not name.isprintable():
            raise UserError(
                f"label {name!r}: a DICOM segment's name must have 1 to 64 printable characters, "
                "none of them a backslash; rename it in the model's dataset.json"
            )
        kept[name] = values
    return kept


def describe_segment(number: int, name: str, colour: int, *, algorithm: Any) -> Any:
    """What is said about one segment.

    The type is DICOM's own SNOMED CT code where the name is that of a structure in its lists (with
    `left` and `right` as modifiers), otherwise a code of our own scheme that carries the name.

    Args:
        number: From 1.
        name: Of the label.
        colour: Place of the label among the model's labels, so that all cases agree.
        algorithm: highdicom's AlgorithmIdentificationSequence.

    Returns:
        highdicom's SegmentDescription.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    category, kind, side = _coded(name)
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=highdicom.color.CIELabColor.from_string(COLOURS[colour % len(COLOURS)]),
    )
    if side:
        modifier = highdicom.sr.CodedConcept.from_code(getattr(codes.cid244, side))
        kinds = description.SegmentedPropertyTypeCodeSequence
        kinds[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description


def _coded(name: str) -> tuple[Any, Any, str]:
    """Category and type of a label as codes; `Left`, `Right` or nothing as the type's modifier."""
    from pydicom.sr.coding import Code

    # liver; Left Kidney; kidney_left; KidneyLeft
    words = [w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+|[^\x00-\x7f]+", name)]
    sides = [w.capitalize() for w in words if w in ("left", "right")]
    without_side = "".join(w for w in words if w not in ("left", "right"))
    for kinds in (_ANATOMY, _LESIONS):
        if (kind := _structures(kinds).get("".join(words))) is not None:
            return _category(kinds), kind, ""
        kind = _structures(kinds).get(without_side)
        if kind is not None and len(sides) == 1:
            return _category(kinds), kind, sides[0]
    abnormal = any(lesion in "".join(words) for lesion in _LESION_WORDS)
    plain = name.isascii() and len(name) <= 16
    value = name if plain else hashlib.sha256(name.encode()).hexdigest()[:16].upper()
    return _category(_LESIONS if abnormal else _ANATOMY), Code(value, "99DINOMED3D", name), ""


def _category(kinds: str) -> Any:
    from pydicom.sr.codedict import codes

    sct = codes.SCT
    return sct.AnatomicalStructure if kinds == _ANATOMY else sct.MorphologicallyAbnormalStructure


@cache
def _structures(kinds: str) -> dict[str, Any]:
    """The SNOMED CT codes of one of DICOM's lists, by name in small letters."""
    from pydicom.sr.codedict import codes

    concepts = getattr(codes, kinds).concepts
    return {
        keyword.lower(): code
        for keyword, code in concepts.items()
        if code.scheme_designator == "SCT" and keyword != "Normal"
    }
