"""Cases below a folder, or in one file, whatever format they have and however they are named."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dinomed3d.inference.case import CaseList, RejectedInput
from dinomed3d.inference.dicom.volume import Series
from dinomed3d.inference.discovery.case_ids import case_id, settle
from dinomed3d.inference.discovery.channels import (
    Grouped,
    group_several,
    group_single,
    how,
    number_of,
)
from dinomed3d.inference.discovery.patterns import group_by_patterns, parse_patterns
from dinomed3d.inference.discovery.scans import (
    Inventory,
    Item,
    add_archive,
    add_folder,
    add_series,
    image_ending,
    image_item,
)
from dinomed3d.inference.discovery.walk import Entry, Folder, hidden, walk
from dinomed3d.runtime.errors import UserError

__all__ = ["find_cases", "parse_patterns"]


def find_cases(
    source: Path,
    *,
    channels: Sequence[str],
    patterns: Mapping[str, str] | None = None,
    skip: Collection[Path] = (),
) -> CaseList:
    """Find everything that can be predicted, and what looks like it and cannot.

    Images are not opened; of DICOM files the headers are read.

    Args:
        source: A folder with anything below it, one image, one zip of DICOM series, or one DICOM
            file, which stands for its series in that folder.
        channels: Names of the model's channels, in its order.
        patterns: Channel -> pattern on names, of `parse_patterns`.
        skip: Folders to leave out: the one for results, where it lies below the input.

    Raises:
        UserError: Nothing there, or nothing in it that could be a case.
    """
    source = Path(source)
    name = source.resolve().name or "input"
    if source.is_dir():
        inventory = _look_through(source, name, skip)
    elif source.exists():
        inventory, name = _look_at_file(source, channels)
    else:
        raise UserError(f"input {source}: no such file or folder; check -i")
    if patterns is not None:
        grouped = group_by_patterns(
            inventory.items,
            channels,
            patterns,
            source_name=name,
            ignored=inventory.ignored,
        )
    elif len(channels) == 1:
        grouped = group_single(inventory.items, channels)
    else:
        grouped = group_several(inventory.items, channels, name)
    return _cohort(source, inventory, grouped, channels, patterns)


def _cohort(
    source: Path,
    inventory: Inventory,
    grouped: Grouped,
    channels: Sequence[str],
    patterns: Mapping[str, str] | None,
) -> CaseList:
    cases, refusals = settle(grouped.cases, [*inventory.refusals, *grouped.refusals])
    if not cases and not refusals:
        counts = ", ".join(f"{count} x {why}" for why, count in sorted(inventory.ignored.items()))
        seen = f"; left alone: {counts}" if counts else "; it is empty"
        advice = (
            f"patterns were {', '.join(f'{k}={v}' for k, v in patterns.items())}"
            if patterns is not None
            else "images are .nii, .nii.gz, .mha, .nrrd, DICOM series and zips of them"
        )
        raise UserError(f"input {source}: no image found{seen} ({advice})")
    return CaseList(
        cases=tuple(cases),
        refusals=tuple(refusals),
        ignored=dict(sorted(inventory.ignored.items())),
    )


def _look_through(source: Path, name: str, skip: Collection[Path]) -> Inventory:
    """All of a tree."""
    inventory = Inventory()
    series_of: dict[tuple[str, ...], list[Series]] = {}
    for folder in walk(source, inventory.ignored, skip):
        if folder.problem:
            if not folder.parts:
                raise UserError(f"input {source}: {folder.problem}")
            path = str(source.joinpath(*folder.parts))
            inventory.refusals.append(
                RejectedInput(
                    id=case_id(folder.parts), reason=f"{path} {folder.problem}", files=(path,)
                )
            )
            continue
        series = add_folder(inventory, folder.parts, folder.entries, name=name)
        if series:
            series_of[folder.parts] = series
    add_series(inventory, series_of, name=name)
    return inventory


def _look_at_file(source: Path, channels: Sequence[str]) -> tuple[Inventory, str]:
    """One file with what belongs to it: the other channels, or the other slices, beside it."""
    inventory = Inventory()
    source = Path(os.path.abspath(source))
    entry = Entry(source.name, str(source), source.stat().st_size)
    ending = image_ending(source.name)
    if ending is not None:
        item = image_item((), entry, ending)
        inventory.items.append(item)
        if len(channels) > 1:
            _add_other_channels(inventory, item, source, channels)
        return inventory, item.stem
    if source.suffix.lower() == ".zip":
        add_archive(inventory, (), entry)
        return inventory, source.stem
    return _look_at_dicom_file(source)


def _add_other_channels(
    inventory: Inventory, item: Item, source: Path, channels: Sequence[str]
) -> None:
    """`case_0001.nii.gz` beside `case_0000.nii.gz`."""
    number = number_of(item)
    if number is None:
        return
    for entry in _beside(source).entries:
        ending = image_ending(entry.name)
        if ending is None or entry.path == str(source):
            continue
        other = image_item((), entry, ending)
        same = number_of(other)
        if same is not None and same[0] == number[0]:
            inventory.items.append(other)
    if len(inventory.items) < len(channels):
        missing = len(channels) - len(inventory.items)
        raise UserError(
            f"input {source}: {missing} of {len(channels)} channels are not beside it; {how(channels)}"
        )


def _beside(source: Path) -> Folder:
    """The files of a file's folder."""
    return next(walk(source.parent, Counter()))


def _look_at_dicom_file(source: Path) -> tuple[Inventory, str]:
    """The series that a DICOM file is a slice of."""
    name = source.parent.name or "input"
    inventory = Inventory()
    if hidden(source.name) is not None:
        raise UserError(f"input {source}: {hidden(source.name)}, not an image")
    folder = _beside(source)
    series = add_folder(inventory, (), folder.entries, name=name)
    mine = [one for one in series if any(s.path == str(source) for s in one.slices)]
    broken = [one for one in inventory.refusals if str(source) in one.files]
    if broken:
        raise UserError(f"input {source}: {broken[0].reason}")
    if not mine:
        raise UserError(
            f"input {source}: neither an image (.nii, .nii.gz, .mha, .nrrd) nor a slice of a DICOM series "
            "nor a zip of such"
        )
    chosen = Inventory()
    add_series(chosen, {(): series}, name=name)
    chosen.items = [item for item in chosen.items if str(source) in item.files]
    return chosen, name
