"""The record of one case: what was done with what, and whether its results are still valid."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.hub.local_model import name_in_cache
from dinomed3d.inference.case import Case, RejectedInput
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.io.image import MASK_ENDINGS
from dinomed3d.inference.io.pictures import PREVIEW_OF_PNG
from dinomed3d.inference.report.statistics import are_statistics
from dinomed3d.runtime import atomic_files

if TYPE_CHECKING:
    from dinomed3d.inference.models.model import Model

Record = dict[str, Any]
"""Plain data, written as JSON next to the mask; `worker` and `results` make its entries."""

OTHERS = (
    ".png",
    ".preview.png",
    ".b2nd",
    ".npz",
    ".pkl",
    ".seg.dcm",
    ".rtstruct.dcm",
    ".slices.nii.gz",
)
"""Endings of the other files that a case may have next to its record."""
LABELS_FOLDER = ".labels"
"""Ending of the folder of a case with a binary mask for each label."""
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


def record_path(out: Path, case: str) -> Path:
    """The path of the record of a case."""
    return out / f"{case}.json"


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write a record; that of a finished case after all its other files."""
    # plain ASCII: names of files need not be text
    text = json.dumps(record, indent=1)
    atomic_files.atomic_write(record_path(out, record["case"]), text.encode("ascii"))


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
        and {f"{case}{ending}" for ending in OTHERS}.issuperset(record["files"])
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
    """Whether the DICOM objects that a record names are those of this case."""
    return all(
        entry is None or (isinstance(entry, dict) and entry.get("file") == f"{case}{ending}")
        for entry, ending in (
            (record.get("rtstruct"), ".rtstruct.dcm"),
            (record.get("seg"), ".seg.dcm"),
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


def is_edited(record: Mapping[str, Any], out: Path) -> bool:
    """Whether the mask of a finished case differs from the one that was written."""
    mask = out / record["mask"]["file"]
    return mask.is_file() and sha256(mask) != record["mask"]["sha256"]


def remove_results(out: Path, case: str, *, keep_mask_as: str | None = None) -> None:
    """Remove what an earlier run wrote for a case, so that nothing outdated stays.

    A mask that was corrected by hand is kept, as `CASE.edited1.nii.gz` and so on.

    Args:
        out: the output folder.
        case: id of the case.
        keep_mask_as: keep an unchanged mask too, with this word instead of "edited".
    """
    record = read_record(out, case)
    if record is None or record["status"] == "failed":
        return
    # where the mask is a PNG, the preview has another name
    has_png_mask = (out / f"{case}{PREVIEW_OF_PNG}").is_file()
    if record["status"] == "done":
        has_png_mask = record["mask"]["file"] == f"{case}.png"
    for ending in MASK_ENDINGS:
        mask = out / f"{case}{ending}"
        if not mask.is_file() or (ending == ".png" and not has_png_mask):
            continue
        ours = record["status"] == "done" and mask == out / record["mask"]["file"]
        edited = record["status"] == "damaged" or (ours and is_edited(record, out))
        if edited or (ours and keep_mask_as is not None):
            word, number = "edited" if edited else keep_mask_as, 1
            while (kept := out / f"{case}.{word}{number}{ending}").exists():
                number += 1
            mask.rename(kept)
        elif ours or record["status"] == "begun":
            mask.unlink()
    for ending in OTHERS:
        (out / f"{case}{ending}").unlink(missing_ok=True)
    for name in ((record.get("split") or {}).get("files") or {}).values():
        (out / name).unlink(missing_ok=True)
    with suppress(OSError):  # it does not exist, or holds files of others
        (out / f"{case}{LABELS_FOLDER}").rmdir()


def write_failure(out: Path, record: Mapping[str, Any], *, keep_mask_as: str | None = None) -> None:
    """Write the record of a failed case, and remove results of earlier runs (`remove_results`)."""
    remove_results(out, record["case"], keep_mask_as=keep_mask_as)
    write_record(out, record)


def remove_leftovers(out: Path, cases: Iterable[str]) -> None:
    """Delete temporary files of killed runs in the folders of these cases."""
    names = list(cases)
    folders = [(out / name).parent for name in names]
    split = [out / f"{name}{LABELS_FOLDER}" for name in names]
    atomic_files.remove_leftovers({out, *folders, *split})


def sha256(path: Path) -> str:
    """The sha256 of a file, as hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe_inputs(case: Case | RejectedInput, channels: Sequence[str]) -> list[dict[str, Any]]:
    """List the files of a case with their present size and time of change."""
    if isinstance(case, RejectedInput):
        return [{"channel": "", "files": list(case.files), "archive": None, "series": ""}]
    together = [", ".join(channels)] * len(case.scans)
    names = list(channels) if len(case.scans) == len(channels) else together
    described = []
    for name, scan in zip(names, case.scans, strict=True):
        files = [scan.archive] if scan.archive is not None else list(scan.files)
        states = [os.stat(file) for file in files if os.path.exists(file)]
        described.append(
            {
                "channel": name,
                "files": list(scan.files),
                "archive": scan.archive,
                "series": scan.series,
                "bytes": sum(state.st_size for state in states),
                "modified_ns": max((state.st_mtime_ns for state in states), default=0),
            }
        )
    return described


def describe_reading(case: Case, channels: Sequence[str]) -> dict[str, Any]:
    """What is needed, in addition to the list of files, to read the scans of a case again in the same way."""
    names = ("ending", "uid", "frames", "reader")
    scans = [{name: getattr(scan, name) for name in names} for scan in case.scans]
    return {"channels": list(channels), "scans": scans}


def describe_model(model: Model) -> dict[str, Any]:
    """The entries of a record that identify the model; `hub` is its name there, if it is from the hub."""
    on_hub = name_in_cache(model.source)
    return {
        **({} if on_hub is None else {"hub": on_hub}),
        "hash": model.hash,
        "trainer": model.trainer,
        "configuration": model.configuration,
        "folds": list(model.folds),
    }


def failed_record(
    case: Case | RejectedInput, reason: str, model: Model, spec: PredictSpec
) -> Record:
    """The record of a case that never reached a worker, or whose worker died."""
    return {
        "case": case.id,
        "status": "failed",
        "reason": reason,
        "inputs": describe_inputs(case, model.channels),
        "model": describe_model(model),
        "settings": spec.settings,
        "seconds": {},
    }


def why_outdated(
    record: Mapping[str, Any], out: Path, case: Case, channels: Sequence[str]
) -> str | None:
    """Why a finished case must be predicted again; None if all its results are there.

    The record has the status "done"; the case is as found now.
    """
    from dinomed3d.inference.io.image import Grid, check_mask

    if record["inputs"] != describe_inputs(case, channels):
        return "the input files have changed"
    mask = out / record["mask"]["file"]
    if not mask.is_file():
        return "its mask is gone"
    try:
        problem = check_mask(mask, Grid.from_json(record["grid"]))
    except (KeyError, TypeError, ValueError, OSError):
        return "its record is damaged"
    if problem is not None:
        kept = (
            f"; it is kept as {case.id}.edited1 or the next number"
            if is_edited(record, out)
            else ""
        )
        return f"its mask: {problem}{kept}"
    missing = [name for name in record["files"] if not (out / name).is_file()]
    return f"{missing[0]} is gone" if missing else None
