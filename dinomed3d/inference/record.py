"""The record of one case: what was done with what, and whether it still holds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.inference.case import Case, Refusal
from dinomed3d.inference.spec import PredictSpec

if TYPE_CHECKING:
    from dinomed3d.inference.models.model import Model

Record = dict[str, Any]
"""Plain data, written as JSON beside the mask; see `describe_inputs` and `worker` for its entries."""


def record_path(out: Path, case: str) -> Path:
    """Where the record of a case lies."""
    return out / f"{case}.json"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it: it is there complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write a record; "done" is written last, so what it tells of is there."""
    # plain ASCII: names of files need not be text
    text = json.dumps(record, indent=1)
    write_whole(record_path(out, record["case"]), text.encode("ascii"))


def read_record(out: Path, case: str) -> Record | None:
    """The record of a case, or None where there is none that can be read as one."""
    try:
        content = json.loads(record_path(out, case).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    right = isinstance(content, dict) and content.get("case") == case
    return content if right and content.get("status") in ("done", "failed", "begun") else None


def is_edited(record: Mapping[str, Any], out: Path) -> bool:
    """Whether the mask of a finished case is no longer the one that was written: someone corrected it."""
    mask = out / record["mask"]["file"]
    return mask.is_file() and sha256(mask) != record["mask"]["sha256"]


def retire(out: Path, case: str) -> None:
    """Before a case is done again: what an earlier run left of it goes, so that nothing outdated stays.

    A mask that someone corrected is kept, as `CASE.edited1.nii.gz` and so on.
    """
    record = read_record(out, case)
    if record is None or record["status"] != "done":
        return
    mask = out / record["mask"]["file"]
    if is_edited(record, out):
        ending = mask.name.removeprefix(case.rsplit("/", 1)[-1])
        number = 1
        while (kept := out / f"{case}.edited{number}{ending}").exists():
            number += 1
        os.replace(mask, kept)
    for name in (record["mask"]["file"], *record["files"]):
        (out / name).unlink(missing_ok=True)


def write_failure(out: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a failed case, and take away what an earlier run left of it."""
    retire(out, record["case"])
    write_record(out, record)


def sha256(path: Path) -> str:
    """Of a file, as hexadecimal."""
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe_inputs(case: Case | Refusal, channels: Sequence[str]) -> list[dict[str, Any]]:
    """Which files a case is made of, as they are now: size and time of change tell when they differ."""
    if isinstance(case, Refusal):
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


def failed_record(case: Case | Refusal, reason: str, model: Model, spec: PredictSpec) -> Record:
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
    from dinomed3d.inference.images.image import Grid, check_mask

    if record.get("inputs") != json.loads(json.dumps(describe_inputs(case, channels))):
        return "the input files have changed"
    try:
        mask = out / record["mask"]["file"]
        if not mask.is_file():
            return "its mask is gone"
        wrong = check_mask(mask, Grid.from_json(record["grid"]))
        missing = [name for name in record["files"] if not (out / name).is_file()]
    except (KeyError, TypeError, ValueError, OSError):
        return "its record is damaged"
    if wrong is not None:
        return f"its mask: {wrong}"
    return f"{missing[0]} is gone" if missing else None
