"""The record of one case: what was done with what, and whether it still holds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.inference.case import Case, RejectedInput
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.runtime import atomic_files

if TYPE_CHECKING:
    from dinomed3d.inference.models.model import Model

Record = dict[str, Any]
"""Plain data, written as JSON beside the mask; `worker` and `results` make its entries."""

MASKS = (".nii.gz", ".nii", ".mha", ".nrrd")
OTHERS = (".png", ".b2nd", ".seg.dcm")
"""Endings of what a case may leave beside its mask and its record."""


def record_path(out: Path, case: str) -> Path:
    """Where the record of a case lies."""
    return out / f"{case}.json"


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write a record; "done" is written last, so what it tells of is there."""
    # plain ASCII: names of files need not be text
    text = json.dumps(record, indent=1)
    atomic_files.atomic_write(record_path(out, record["case"]), text.encode("ascii"))


def read_record(out: Path, case: str) -> Record | None:
    """The record of a case, or None where there is none of ours.

    One of ours that does not tell all it must, of another version perhaps, counts as "damaged".
    """
    try:
        content = json.loads(record_path(out, case).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("case") != case or "status" not in content:
        return None
    if content["status"] == "begun" or _is_whole(content, case):
        return content
    return {"case": case, "status": "damaged", "model": content.get("model")}


def _is_whole(record: Record, case: str) -> bool:
    """Whether everything is there that a run relies on, and only the case's own files are named."""
    kinds: dict[str, type] = {"model": dict, "settings": dict, "inputs": list, "seconds": dict}
    if record["status"] == "done":
        kinds |= {"mask": dict, "files": list, "grid": dict, "labels": dict, "flags": list}
        kinds |= {"orientation": str}
    elif record["status"] != "failed":
        return False
    if not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
        return False
    if record["status"] == "failed":
        return True
    mask = record["mask"]
    own = {f"{case}{ending}" for ending in OTHERS}
    return (
        mask.get("file") in {f"{case}{ending}" for ending in MASKS}
        and isinstance(mask.get("sha256"), str)
        and own.issuperset(record["files"])
    )


def is_edited(record: Mapping[str, Any], out: Path) -> bool:
    """Whether the mask of a finished case is no longer the one that was written: someone corrected it."""
    mask = out / record["mask"]["file"]
    return mask.is_file() and sha256(mask) != record["mask"]["sha256"]


def retire(out: Path, case: str, *, keep: str | None = None) -> None:
    """Before a case is done again: what an earlier run left of it goes, so that nothing outdated stays.

    A mask that someone corrected is kept, as `CASE.edited1.nii.gz` and so on.

    Args:
        out: the output folder.
        case: its id.
        keep: also keep a mask that nobody has touched, under this word instead of "edited".
    """
    record = read_record(out, case)
    if record is None or record["status"] == "failed":
        return
    for ending in MASKS:
        mask = out / f"{case}{ending}"
        if not mask.is_file():
            continue
        ours = record["status"] == "done" and mask == out / record["mask"]["file"]
        touched = record["status"] == "damaged" or (ours and is_edited(record, out))
        if touched or (ours and keep is not None):
            word, number = "edited" if touched else keep, 1
            while (kept := out / f"{case}.{word}{number}{ending}").exists():
                number += 1
            mask.rename(kept)
        elif ours or record["status"] == "begun":
            mask.unlink()
    for ending in OTHERS:
        (out / f"{case}{ending}").unlink(missing_ok=True)


def write_failure(out: Path, record: Mapping[str, Any], *, keep: str | None = None) -> None:
    """Write the record of a failed case, and take away what an earlier run left of it (see `retire`)."""
    retire(out, record["case"], keep=keep)
    write_record(out, record)


def remove_leftovers(out: Path, cases: Iterable[str]) -> None:
    """Delete what killed runs have left beside the results of these cases."""
    atomic_files.remove_leftovers({out, *((out / case).parent for case in cases)})


def sha256(path: Path) -> str:
    """Of a file, as hexadecimal."""
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe_inputs(case: Case | RejectedInput, channels: Sequence[str]) -> list[dict[str, Any]]:
    """Which files a case is made of, as they are now: size and time of change tell when they differ."""
    if isinstance(case, RejectedInput):
        return [{"channel": "", "files": list(case.files), "archive": None, "series": ""}]
    names = list(channels) if len(case.scans) == len(channels) else [", ".join(channels)]
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


def describe_model(model: Model) -> dict[str, Any]:
    """Which model it was."""
    return {
        "hash": model.hash,
        "trainer": model.trainer,
        "configuration": model.configuration,
        "folds": list(model.folds),
    }


def failed_record(
    case: Case | RejectedInput, reason: str, model: Model, spec: PredictSpec
) -> Record:
    """The record of a case that nothing could be done with."""
    return {
        "case": case.id,
        "status": "failed",
        "reason": reason,
        "inputs": describe_inputs(case, model.channels),
        "model": describe_model(model),
        "settings": spec.settings,
        "seconds": {},
    }


def outdated(
    record: Mapping[str, Any], out: Path, case: Case, channels: Sequence[str]
) -> str | None:
    """Why a finished case must be done again, or None if everything it promises is there.

    Args:
        record: says "done".
        out: the output folder.
        case: as it is found now.
        channels: of the model.
    """
    from dinomed3d.inference.io.image import Grid, check_mask

    if record["inputs"] != json.loads(json.dumps(describe_inputs(case, channels))):
        return "the input files have changed"
    mask = out / record["mask"]["file"]
    if not mask.is_file():
        return "its mask is gone"
    try:
        wrong = check_mask(mask, Grid.from_json(record["grid"]))
    except (KeyError, TypeError, ValueError, OSError):
        return "its record is damaged"
    if wrong is not None:
        return f"its mask: {wrong}"
    missing = [name for name in record["files"] if not (out / name).is_file()]
    return f"{missing[0]} is gone" if missing else None
