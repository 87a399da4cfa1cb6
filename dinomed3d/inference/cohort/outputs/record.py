"""The record of one case, a JSON file next to its mask: written, and read back with distrust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dinomed3d.inference.cohort.outputs.result_files import (
    LABELS_FOLDER,
    OTHER_ENDINGS,
    RTSTRUCT_ENDING,
    SEG_ENDING,
    SLICES_ENDING,
    record_path,
)
from dinomed3d.inference.io.image import MASK_ENDINGS
from dinomed3d.inference.report.statistics import are_statistics
from dinomed3d.runtime.files.atomic_files import atomic_write

Record = dict[str, Any]
"""Plain data, written as JSON next to the mask; `describe`, `results` and `case_output` make its entries."""

RECORD_TYPES: dict[str, dict[str, type]] = {
    "begun": {},
    "failed": {"model": dict, "settings": dict, "inputs": list, "seconds": dict},
}
"""Status -> entries that a record must have."""
RECORD_TYPES["done"] = RECORD_TYPES["failed"] | {
    "mask": dict,
    "files": list,
    "grid": dict,
    "labels": dict,
    "flags": list,
    "orientation": str,
}


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write a record; that of a finished case after all its other files."""
    # plain ASCII: names of files need not be text
    text = json.dumps(record, indent=1)
    atomic_write(record_path(out, record["case"]), text.encode("ascii"))


def read_record(out: Path, case: str) -> Record | None:
    """Read the record of a case; None if there is none of ours.

    A record of ours that lacks entries, perhaps of another version, gets the status "damaged".
    """
    try:
        content = json.loads(record_path(out, case).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("case") != case or "status" not in content:
        return None
    if _is_complete(content, case):
        return content
    return {"case": case, "status": "damaged", "model": content.get("model")}


def _is_complete(record: Record, case: str) -> bool:
    """Whether all entries are there, and only files of this case are named."""
    types = RECORD_TYPES.get(record["status"]) if isinstance(record["status"], str) else None
    if types is None or not all(isinstance(record.get(key), kind) for key, kind in types.items()):
        return False
    if not _has_plain_values(record) or not _has_own_label_files(record, case):
        return False
    if not _has_own_objects(record, case):
        return False
    if record["status"] != "done":
        return True
    return (
        record["mask"].get("file") in {f"{case}{ending}" for ending in MASK_ENDINGS}
        and isinstance(record["mask"].get("sha256"), str)
        and {f"{case}{ending}" for ending in OTHER_ENDINGS}.issuperset(record["files"])
    )


def _has_own_label_files(record: Record, case: str) -> bool:
    """Whether the files of single labels that a record names, which may be removed, are those of this case."""
    entry = record.get("split")
    if entry is None:
        return True
    files = entry.get("files") if isinstance(entry, dict) else None
    if not isinstance(files, dict):
        return False
    folder = f"{case}{LABELS_FOLDER}/"
    return all(
        isinstance(name, str)
        and name.startswith(folder)
        and not {"/", "\\"} & set(name[len(folder) :])
        and name.endswith(MASK_ENDINGS)
        for name in files.values()
    )


def _has_own_objects(record: Record, case: str) -> bool:
    """Whether the files that a record names with the mask they were made of are those of this case."""
    preview = record.get("preview")
    return (preview is None or isinstance(preview, dict)) and all(
        entry is None or (isinstance(entry, dict) and entry.get("file") == f"{case}{ending}")
        for entry, ending in (
            (record.get("rtstruct"), RTSTRUCT_ENDING),
            (record.get("seg"), SEG_ENDING),
            (record.get("slices"), SLICES_ENDING),
        )
    )


def _has_plain_values(record: Record) -> bool:
    """Whether the entries that reports add up and print are numbers and texts."""

    def is_number(value: object) -> bool:
        return value is None or type(value) in (int, float)

    def are_texts(value: object) -> bool:
        return value is None or (isinstance(value, list) and all(isinstance(v, str) for v in value))

    labels = record.get("labels") or {}
    seconds = record.get("seconds") or {}
    return (
        all(are_texts(record.get(key)) for key in ("flags", "notes", "result_notes"))
        and all(is_number(record.get(key)) for key in ("certainty", "peak_memory_gib"))
        and isinstance(seconds, dict)
        and all(map(is_number, seconds.values()))
        and (record.get("statistics") is None or are_statistics(record["statistics"]))
        and isinstance(labels, dict)
        and all(
            isinstance(entry, dict)
            and is_number(entry.get("voxels"))
            and is_number(entry.get("volume_ml"))
            for entry in labels.values()
        )
    )
