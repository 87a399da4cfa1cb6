"""A dataset from its description to its last voxel: what is cheap first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from dinomed3d.dataset import duplicates, geometry, voxels
from dinomed3d.dataset.description import TOPIC, Description, check_description, read_description
from dinomed3d.dataset.files import RawCase, RawFiles, check_files
from dinomed3d.dataset.findings import CaseFault, Finding, gathered
from dinomed3d.dataset.headers import Header
from dinomed3d.dataset.plans import check_plans, read_plans
from dinomed3d.dataset.resources import check_resources
from dinomed3d.runtime.commands.library_output import quiet
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.memory import free_bytes

READ_BYTES, LABEL_BYTES = 12, 16
"""Bytes that a voxel of a channel, and of a label, takes while a case is read and compared."""
Progress = Callable[[str, int, int], None]
"""Called with what is read, and how many cases of how many are done."""


def dataset_folder(dataset: str) -> Path:
    """The folder of a raw dataset.

    Args:
        dataset: its number, its name, or the folder itself.

    Raises:
        UserError: there is none.
    """
    if Path(dataset).is_dir():
        return Path(dataset).resolve()
    if not nnUNet_raw.is_set():
        raise UserError(f"-d {dataset}: nnUNet_raw is not set, in which datasets are looked for")
    try:
        folder = Path(nnUNet_raw) / maybe_convert_to_dataset_name(dataset)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"-d {dataset}: no dataset of this number or name in {nnUNet_raw.get()}, or several; folders are named "
            "Dataset004_Name"
        ) from error
    if not folder.is_dir():
        raise UserError(f"-d {dataset}: {folder} is no folder")
    return folder


def check_dataset(
    folder: Path, *, processes: int, with_voxels: bool, progress: Progress
) -> Iterator[Finding]:
    """Look a raw dataset over.

    Args:
        folder: of the dataset.
        processes: that read voxels, at most.
        with_voxels: False: headers alone.
        progress: shows how far reading is.

    Yields:
        Findings, as they are known.

    Raises:
        UserError: dataset.json cannot be read, or there is no training case.
    """
    description, findings = check_description(read_description(folder))
    yield from findings
    files, findings = check_files(folder, description)
    yield from findings
    heads, faults = geometry.read_headers(files.training)
    test_heads, test_faults = geometry.read_headers(files.test)
    found = gathered([*faults, *test_faults], geometry.FAULTS)
    yield from found or [Finding(topic="geometry", says="channels and labels lie on one grid")]
    if with_voxels and files.training:
        shapes = {head.shape for head in heads.values()}
        alike = [
            c for c in files.test if c.name in test_heads and test_heads[c.name].shape in shapes
        ]
        largest = max((head.voxels for head in heads.values()), default=1)
        case_bytes = largest * (READ_BYTES * len(description.channels) + LABEL_BYTES)
        processes = max(1, min(processes, int(free_bytes() / 2 // case_bytes)))
        yield from _voxels(files, description, alike, processes, progress)
    yield from _planned(folder, files, description, heads)


def _voxels(
    files: RawFiles,
    description: Description,
    alike: Sequence[RawCase],
    processes: int,
    progress: Progress,
) -> Iterator[Finding]:
    """What voxels say; of test cases those are read that may be copies, as they have the shape of a training case."""
    reader = _reader(description, files.training)
    if isinstance(reader, Finding):
        yield reader
        return

    def read(cases: Sequence[RawCase], what: str) -> list[voxels.CaseVoxels]:
        labels, channels = tuple(description.labels), len(description.channels)
        tasks = [voxels.Task(case, reader, labels, channels) for case in cases]
        show = lambda done: progress(what, done, len(tasks))  # noqa: E731
        return list(voxels.look_at_all(tasks, processes, show))

    training = read(files.training, "voxels of training cases")
    test = read(alike, "voxels of test cases that may be copies")
    faults: list[CaseFault] = [fault for one in (*training, *test) for fault in one.faults]
    found = gathered(faults, voxels.FAULTS) + _never(training, description)
    for topic, fine in (
        ("voxels", f"{len(training)} training cases can be read, and are finite"),
        (
            "labels",
            "all values are those of dataset.json"
            if description.labels
            else "values are not compared: dataset.json names none that can be read",
        ),
    ):
        yield from [f for f in found if f.topic == topic] or [Finding(topic=topic, says=fine)]
    copies = duplicates.find_duplicates(training, test, [case.name for case in files.test])
    yield from gathered(copies, duplicates.FAULTS) or [Finding(topic="duplicates", says="none")]


def _reader(description: Description, training: Sequence[RawCase]) -> Any:
    """NnU-Net's reader for the dataset, found with the first case that it can read; or why there is none."""
    for case in training[:3]:
        with quiet():
            try:
                return determine_reader_writer_from_dataset_json(
                    {"file_ending": description.ending, **description.content},
                    str(case.images[0]),
                    verbose=False,
                )
            except (RuntimeError, KeyError):
                continue
    says = f"nnU-Net has no reader for {description.ending} that opens {training[0].images[0].name}"
    fix = "convert to .nii.gz, or correct 'file_ending' (and 'overwrite_image_reader_writer')"
    return Finding(topic=TOPIC, says=says, state="error", fix=fix)


def _never(training: Sequence[voxels.CaseVoxels], description: Description) -> list[Finding]:
    """Labels that dataset.json names and no case has."""
    seen = {value for one in training for value in one.values}
    never = [f"{v} {name}" for v, name in description.labels.items() if v not in seen and v]
    never = [text for text in never if not text.endswith(" ignore")]
    if not never or not seen:
        return []
    everything = not seen - {0}
    return [
        Finding(
            topic="labels",
            says=f"no case has {', '.join(never)}"
            + (": there is nothing to learn" if everything else ""),
            state="error" if everything else "note",
            fix="check labelsTr, or take the label out of dataset.json: the network would learn never to predict it",
        )
    ]


def _planned(
    folder: Path, files: RawFiles, description: Description, heads: Mapping[str, Header]
) -> Iterator[Finding]:
    """Memory and disk of preprocessing, and what is planned and preprocessed."""
    numbered = re.match(r"Dataset(\d{3})", folder.name)
    is_set = nnUNet_preprocessed.is_set()
    home = Path(nnUNet_preprocessed) if is_set else None
    plans = read_plans(home / folder.name) if home is not None else {}
    yield from check_resources(
        {case.name: heads[case.name] for case in files.training if case.name in heads},
        channels=len(description.channels),
        preprocessed=home,
        spacing_mm=_target(plans),
    )
    if numbered is None:
        says = f"the folder's name {folder.name} is not one of nnU-Net's"
        fix = "name it Dataset and three digits, such as Dataset004_Hippocampus"
        yield Finding(topic="files", says=says, state="error", fix=fix)
    elif home is not None:
        names = [case.name for case in files.training]
        yield from check_plans(home / folder.name, plans, names, int(numbered[1]))


def _target(plans: Mapping[str, Mapping[str, Any]]) -> list[float] | None:
    """The spacing of 3d_fullres in the order of the files' axes (x first), of our plan or another one."""
    for name in sorted(plans, key=lambda name: name != "DinoMed3DPlans"):
        entry = plans[name]["configurations"].get("3d_fullres") or {}
        spacing, back = entry.get("spacing"), plans[name].get("transpose_backward")
        if isinstance(spacing, list) and isinstance(back, list) and len(spacing) == len(back) == 3:
            return [float(spacing[axis]) for axis in back][::-1]
    return None
