"""Flags that depend on the whole run rather than on one case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_MADE_OF_MASK = {
    "preview": "volumes and preview",
    "slices": "mask of the original slices",
    "statistics": "statistics",
    "split": "files of single labels",
    "rtstruct": "RT structure set",
    "seg": "DICOM segmentation",
}
"""Entry of the record, which says of which mask it was made -> what was made."""
BY_PREDICTION = {"preview": (".png",), "slices": (".slices.nii.gz",), "seg": (".seg.dcm",)}
"""Entry of the record that is missing until it is made anew -> endings of its files: until then they are of the
prediction."""


def flag_edited(record: Mapping[str, Any], digest: str) -> Mapping[str, Any]:
    """Flag a finished case whose mask was corrected by hand after the run.

    Args:
        record: of the case.
        digest: sha256 of the mask's file as it is now.
    """
    if record["status"] != "done":
        return record
    files = [str(name) for name in record.get("files", ())]
    predicted = ["certainty", "other flags"]
    between: list[str] = []
    if any(name.endswith((".npz", ".b2nd")) for name in files):
        predicted.append("probabilities")
    for entry, what in _MADE_OF_MASK.items():
        made = record.get(entry)
        if not made and not any(n.endswith(BY_PREDICTION.get(entry, ())) for n in files):
            continue
        made_of = (made or {}).get("mask_sha256") or record["mask"]["sha256"]
        if made_of != digest:
            (predicted if made_of == record["mask"]["sha256"] else between).append(what)
    texts = ["corrected by hand since", f"{_listed(predicted)} are those of the prediction"]
    texts += [f"as of an earlier correction: {_listed(between)}"] if between else []
    return _flagged(record, "; ".join(texts))


def _listed(names: Sequence[str]) -> str:
    """`a`; `a and b`; `a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def flag_orientations(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Flag the cases stored in another orientation than most of the run: the network may not know it.

    Models of nnU-Net do not say how the training volumes were oriented, so the run is compared with
    itself.
    """
    counts = Counter(record["orientation"] for record in records if record["status"] == "done")
    usual, often = counts.most_common(1)[0] if counts else ("", 0)
    if often * 2 <= counts.total():
        return list(records)
    return [
        _flagged(
            record,
            f"stored as {record['orientation']}, most scans of this run as {usual}: this network sees voxels "
            "as they are stored, so check this mask with care, or use --orientation",
        )
        if record.get("orientation", usual) != usual
        else record
        for record in records
    ]


def _flagged(record: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {**record, "flags": [*record["flags"], text]}
