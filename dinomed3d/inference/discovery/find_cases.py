"""Cases below a folder, or in one file, of all supported formats and naming schemes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dinomed3d.inference.case import CaseList, RejectedInput
from dinomed3d.inference.dicom.series import Series
from dinomed3d.inference.discovery.case_ids import case_id, reject_clashes
from dinomed3d.inference.discovery.grouping import group_by_names, naming_hint, split_number
from dinomed3d.inference.discovery.patterns import group_by_patterns, parse_patterns
from dinomed3d.inference.discovery.scans import (
    Inventory,
    add_folder,
    add_series,
)
from dinomed3d.inference.discovery.walk import hidden, walk
from dinomed3d.inference.io.label_image import label_image
from dinomed3d.inference.io.pictures import SPACING_FILE, TIFF_STACK
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.regular_file import special_kind
from dinomed3d.runtime.messages.counted import counted

__all__ = ["find_cases", "parse_patterns"]

_PREDICT_THEM = (
    "to predict one all the same, name it CASE_0000, give it alone as -i, or use --channels"
)


def find_cases(
    source: Path,
    *,
    channels: Sequence[str],
    patterns: Mapping[str, str] | None = None,
    skip: Collection[Path] = (),
    exclude: Sequence[str] = (),
    reader: str = "",
) -> CaseList:
    """Find everything that can be predicted, and what has the form of a scan but cannot be.

    Of DICOM files the headers are read. Below a folder, label images are left out, unless `patterns`,
    a number (`_0000`) or a folder named after a channel says what they are; to know them, headers
    and the first voxels of images are read.

    Args:
        source: A folder with anything below it, one image, one zip of DICOM series, or one DICOM
            file, for the series in its folder that it belongs to.
        channels: Names of the model's channels, in its order.
        patterns: Channel -> pattern on names, of `parse_patterns`.
        skip: Folders to leave out: the one for results, where it lies below the input.
        exclude: Patterns of names, or of paths below the input, that are left out.
        reader: nnU-Net's reader of the model's training images: of a model that was trained on PNG, BMP or TIFF,
            such files are scans.

    Raises:
        UserError: The input does not exist, or holds nothing that could be a case.
    """
    source = Path(source)
    name = source.resolve().name or "input"
    if source.is_dir():
        inventory = Inventory(reader=reader)
        _read_folder(inventory, source, name, skip, exclude)
        if patterns is None:
            _leave_out_label_images(inventory, channels)
    elif source.exists():
        inventory, name = _read_file(source, channels, reader)
    else:
        raise UserError(f"input {source}: no such file or folder; check -i")
    if patterns is not None:
        grouping = group_by_patterns(
            inventory.scans, patterns, source_name=name, ignored=inventory.ignored
        )
    else:
        grouping = group_by_names(inventory.scans, channels, name)
    cases, rejected = reject_clashes(grouping.cases, [*inventory.rejected, *grouping.rejected])
    ignored = dict(sorted(inventory.ignored.items()))
    if not cases and not rejected:
        if inventory.left_out:
            raise UserError(
                f"input {source}: no scan found, {counted(len(inventory.left_out), 'label image')} alone "
                f"({', '.join(list(inventory.left_out)[:3])}); {_PREDICT_THEM}"
            )
        counts = ", ".join(f"{count} x {why}" for why, count in ignored.items())
        seen = f"; ignored: {counts}" if counts else "; it is empty"
        advice = "images are .nii, .nii.gz, .mha, .nrrd, DICOM series and zips of them"
        if patterns is not None:
            advice = f"patterns were {', '.join(f'{k}={v}' for k, v in patterns.items())}"
        raise UserError(f"input {source}: no image found{seen} ({advice})")
    return CaseList(
        cases=tuple(cases),
        rejected=tuple(rejected),
        left_out=dict(sorted(inventory.left_out.items())),
        ignored=ignored,
    )


def _leave_out_label_images(inventory: Inventory, channels: Sequence[str]) -> None:
    """Take label images that are not declared as a channel out of the scans, by name."""
    names = {name.casefold() for name in channels}
    scans = []
    for scan in inventory.scans:
        declared = split_number(scan) is not None or (
            len(channels) > 1 and scan.folder and scan.folder[-1].casefold() in names
        )
        why = ""
        if not (scan.is_dicom or scan.problem or declared or scan.scan.reader):
            why = label_image(Path(scan.scan.files[0]), scan.scan.ending)
        if why:
            inventory.left_out["/".join((*scan.folder, scan.names[0]))] = f"a label image: {why}"
        else:
            scans.append(scan)
    inventory.scans = scans


def _read_folder(
    inventory: Inventory, source: Path, name: str, skip: Collection[Path], exclude: Sequence[str]
) -> None:
    """Add all of a tree."""
    series_of: dict[tuple[str, ...], list[Series]] = {}
    for folder in walk(source, inventory.ignored, skip, exclude):
        if folder.problem:
            if not folder.parts:
                raise UserError(f"input {source}: {folder.problem}")
            path = str(source.joinpath(*folder.parts))
            reason = f"{path} {folder.problem}"
            inventory.rejected.append(
                RejectedInput(id=case_id(folder.parts), reason=reason, files=(path,))
            )
            continue
        series = add_folder(inventory, folder.parts, folder.entries, name=name)
        if series:
            series_of[folder.parts] = series
    add_series(inventory, series_of, name=name)


def _read_file(source: Path, channels: Sequence[str], reader: str) -> tuple[Inventory, str]:
    """One file, with the other channels or slices in its folder that belong to it."""
    source = Path(os.path.abspath(source))
    if hidden(source.name) is not None:
        raise UserError(f"input {source}: {hidden(source.name)}, not an image")
    if kind := special_kind(source):
        raise UserError(f"input {source}: is {kind}, not a file; save it as a file")
    folder = source.parent.name or "input"
    inventory = Inventory(reader=reader)
    is_zip = source.suffix.lower() == ".zip"
    is_image = inventory.image_ending(source.name) is not None
    entries = [
        entry
        for entry in next(walk(source.parent, Counter())).entries
        if entry.path == str(source)
        or (not is_zip and is_image == (inventory.image_ending(entry.name) is not None))
        or (is_image and reader == TIFF_STACK and entry.name.endswith(SPACING_FILE))
    ]
    series = add_folder(inventory, (), entries, name=folder)
    add_series(inventory, {(): series}, name=folder)
    if is_zip:
        return inventory, source.stem
    chosen = [scan for scan in inventory.scans if str(source) in scan.files]
    if not chosen:
        reasons = [one.reason for one in inventory.rejected if str(source) in one.files]
        advice = "neither an image (.nii, .nii.gz, .mha, .nrrd) nor a DICOM slice nor a zip of such"
        raise UserError(f"input {source}: {(*reasons, advice)[0]}")
    number = split_number(chosen[0])
    if len(channels) > 1 and number is not None:
        numbers = [(split_number(scan), scan) for scan in inventory.scans]
        chosen = [scan for other, scan in numbers if other is not None and other[0] == number[0]]
        missing = len(channels) - len(chosen)
        # a colour image holds several channels
        if missing > 0 and not chosen[0].scan.reader:
            raise UserError(
                f"input {source}: {missing} of {len(channels)} channels are missing from its "
                f"folder; {naming_hint(channels)}"
            )
    return Inventory(scans=chosen), chosen[0].stem if is_image else folder
