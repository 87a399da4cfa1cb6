"""Flags that depend on the whole run rather than on one case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def flag_edited(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Flag a finished case whose mask was corrected by hand after the run."""
    old = ["volumes", "certainty", "preview"]
    made_again = (record.get("seg") or {}).get("mask_sha256")
    is_old = made_again is None or made_again == (record.get("mask") or {}).get("sha256")
    if is_old and any(str(name).endswith(".seg.dcm") for name in record.get("files", ())):
        old.append("DICOM segmentation")
    if any(str(name).endswith((".npz", ".b2nd")) for name in record.get("files", ())):
        old.append("probabilities")
    text = (
        f"corrected by hand since; {', '.join(old[:-1])} and {old[-1]} are those of the prediction"
    )
    return _flagged(record, text) if record["status"] == "done" else record


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
