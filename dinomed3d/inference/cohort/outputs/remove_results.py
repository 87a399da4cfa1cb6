"""Removes what earlier runs have left of a case, but never a mask that someone has corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dinomed3d.inference.cohort.outputs.mask_digest import is_edited, sha256
from dinomed3d.inference.cohort.outputs.output_errors import ends_run
from dinomed3d.inference.cohort.outputs.record import read_record, write_record
from dinomed3d.inference.cohort.outputs.result_files import (
    EDITED,
    LABELS_FOLDER,
    OTHER_ENDINGS,
    SLICES_ENDING,
)
from dinomed3d.inference.io.image import MASK_ENDINGS
from dinomed3d.inference.io.pictures import PREVIEW_OF_PNG
from dinomed3d.runtime.files import atomic_files


def remove_results(out: Path, case: str, *, keep_mask_as: str | None = None) -> None:
    """Remove what an earlier run wrote for a case, so that nothing outdated stays.

    A mask that was corrected by hand is kept, as `CASE.edited1.nii.gz` and so on, and so is one of the original slices.

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
            _keep_apart(mask, ending, EDITED if edited else str(keep_mask_as))
        elif ours or record["status"] == "begun":
            mask.unlink()
    # of older versions nobody knows whether it was drawn into: it is removed as it was then
    if record["status"] == "damaged" or "sha256" in (record.get("slices") or {}):
        keep_edited_slices(record, out)
    for ending in OTHER_ENDINGS:
        (out / f"{case}{ending}").unlink(missing_ok=True)
    for name in ((record.get("split") or {}).get("files") or {}).values():
        (out / name).unlink(missing_ok=True)
    with suppress(OSError):  # it does not exist, or holds files of others
        (out / f"{case}{LABELS_FOLDER}").rmdir()


def keep_edited_slices(record: Mapping[str, Any], out: Path) -> str | None:
    """Rename the mask of the original slices unless it is as we wrote it; gives its new name.

    Records of older versions do not say how it was written: then it is kept, too.
    """
    path = out / f"{record['case']}{SLICES_ENDING}"
    known = (record.get("slices") or {}).get("sha256")
    if not path.is_file() or sha256(path) == known:
        return None
    return _keep_apart(path, ".nii.gz", EDITED).relative_to(out).as_posix()


def _keep_apart(path: Path, ending: str, word: str) -> Path:
    """Rename `NAME.nii.gz` to `NAME.edited1.nii.gz`, or to the next number that is free."""
    stem, number = path.name.removesuffix(ending), 1
    while (kept := path.with_name(f"{stem}.{word}{number}{ending}")).exists():
        number += 1
    return path.rename(kept)


def write_failure(out: Path, record: Mapping[str, Any], *, keep_mask_as: str | None = None) -> None:
    """Write the record of a failed case, and remove results of earlier runs (`remove_results`).

    A file of them that cannot be removed costs this case alone: its reason says so.

    Raises:
        OSError: nothing can be written to the folder any more, or not the record.
    """
    try:
        remove_results(out, record["case"], keep_mask_as=keep_mask_as)
    except OSError as error:
        if ends_run(error):
            raise
        left = f"what an earlier run wrote is still there: {error.filename} cannot be removed ({error.strerror})"
        record = {**record, "reason": f"{record['reason']}; {left}"}
    write_record(out, record)


def remove_leftovers(out: Path, cases: Iterable[str]) -> None:
    """Delete temporary files of killed runs in the folders of these cases."""
    names = list(cases)
    folders = [(out / name).parent for name in names]
    split = [out / f"{name}{LABELS_FOLDER}" for name in names]
    atomic_files.remove_leftovers({out, *folders, *split})
