"""Files of a raw dataset: which cases there are, and what is missing, surplus or misnamed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from dinomed3d.dataset.description import TOPIC, Description
from dinomed3d.dataset.findings import CaseFault, Fault, Finding, gathered
from dinomed3d.dataset.headers import read_header
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.counted import counted

FAULTS: Mapping[str, Fault] = {
    "hidden": Fault(
        topic="files",
        says="are files of macOS or hidden ones, which nnU-Net takes for cases",
        fix="delete them: find DATASET -name '.*' -type f -delete",
    ),
    "misnamed": Fault(
        topic="files",
        says="in imagesTr do not end in a channel's number such as _0000",
        fix="rename them to CASE_0000 and so on, also where there is one channel",
    ),
    "no label": Fault(
        topic="files",
        says="have no file in labelsTr",
        fix="add the label under exactly the case's name (capitals count), or take the image out of imagesTr",
    ),
    "missing channel": Fault(
        topic="files",
        says="have not all channels",
        fix="add the missing files, or take the case out of imagesTr and labelsTr",
    ),
    "surplus channel": Fault(
        topic="files",
        says="have more files than channel_names has channels",
        fix="name all channels in dataset.json, or move the surplus files away",
    ),
    "test channel": Fault(
        topic="files",
        says="of imagesTs have not exactly the channels of dataset.json",
        fix="add or remove files, before nnUNetv2_predict refuses them",
        state="note",
    ),
    "missing": Fault(
        topic="files",
        says="are named in dataset.json and are not there",
        fix="correct the paths under 'dataset' in dataset.json",
    ),
    "no image": Fault(
        topic="files",
        says="in labelsTr have no image; nnU-Net leaves them out",
        fix="add the images to imagesTr, or move the labels away",
        state="note",
    ),
    "other": Fault(
        topic="files",
        says="have another ending than file_ending; nnU-Net leaves them out",
        fix="convert them if they are cases, or move them away",
        state="note",
    ),
}


@dataclass(frozen=True)
class RawCase:
    """A training case, or a test case without a label."""

    name: str
    """Its name, without channel and ending."""
    images: tuple[Path, ...]
    """A file for each channel."""
    label: Path | None
    """The file of its labels; None for a test case."""

    @property
    def size_bytes(self) -> int:
        """Size of its files on disk."""
        files = [*self.images, *([] if self.label is None else [self.label])]
        return sum(file.stat().st_size for file in files)


@dataclass(frozen=True)
class RawFiles:
    """The cases that can be looked at further."""

    training: tuple[RawCase, ...]
    """Complete training cases."""
    test: tuple[RawCase, ...]
    """Cases of imagesTs."""


def check_files(folder: Path, description: Description) -> tuple[RawFiles, list[Finding]]:
    """List the cases as nnU-Net does, with what it would trip over.

    Raises:
        UserError: there is no training case at all.
    """
    faults: list[CaseFault] = []
    files = _by_case(folder / "imagesTr", description.ending, faults)
    channels = _files_of_a_case(files, len(description.channels))
    if "dataset" in description.content:
        training = _listed(folder, description, channels, faults)
    else:
        training = _found(folder, description.ending, files, channels, faults)
    incomplete = {
        one.case for one in faults if one.kind in ("no label", "missing channel", "missing")
    }
    known = len(training) + len(incomplete)
    if not known:
        there = [path.name for path in _files(folder / "imagesTr")]
        seen = f"{len(there)} files, such as {there[0]}" if there else "no files"
        raise UserError(
            f"{folder}: no training case found (imagesTr has {seen}); nnU-Net wants imagesTr/CASE_0000"
            f"{description.ending} and labelsTr/CASE{description.ending}, not in folders of cases"
        )
    test = _by_case(folder / "imagesTs", description.ending, [])
    for name, images in test.items():
        if len(images) != channels:
            faults.append(CaseFault("test channel", name, counted(len(images), "file")))
    findings = gathered(faults, FAULTS)
    said = description.content.get("numTraining")
    if said is not None and said != known:
        findings.append(
            Finding(
                topic=TOPIC,
                says=f"numTraining is {said}, and there are {known} training cases",
                state="error",
                fix=f'write "numTraining": {known}, or add what is missing',
            )
        )
    if not findings:
        says = f"{known} training cases, {len(test)} test cases"
        findings.append(Finding(topic="files", says=says))
    cases = tuple(RawCase(name, tuple(images), None) for name, images in test.items())
    return RawFiles(tuple(training), cases), findings


def _files_of_a_case(files: Mapping[str, list[Path]], channels: int) -> int:
    """How many files a case has: as many as channels, or one, where each file holds all (colours of a PNG)."""
    if channels == 1 or not files or any(len(images) > 1 for images in files.values()):
        return channels
    first = next(iter(files.values()))[0]
    try:
        return 1 if read_header(first).components == channels else channels
    except RuntimeError:
        return channels


def _found(
    folder: Path,
    ending: str,
    images: Mapping[str, list[Path]],
    channels: int,
    faults: list[CaseFault],
) -> list[RawCase]:
    """The cases of imagesTr and labelsTr."""
    labels = {}
    for path in _files(folder / "labelsTr"):
        if path.name.startswith("."):
            faults.append(CaseFault("hidden", f"labelsTr/{path.name}"))
        elif path.name.endswith(ending):
            labels[path.name.removesuffix(ending)] = path
        else:
            faults.append(CaseFault("other", f"labelsTr/{path.name}"))
    cases = []
    for name, files in images.items():
        wanted = [f"{name}_{number:04d}{ending}" for number in range(channels)]
        there = {file.name: file for file in files}
        missing = [file for file in wanted if file not in there]
        surplus = sorted(there.keys() - set(wanted))
        if missing:
            faults.append(CaseFault("missing channel", name, f"no {', '.join(missing)}"))
        if surplus:
            faults.append(CaseFault("surplus channel", name, ", ".join(surplus)))
        if name not in labels:
            close = [o for o in labels if o.lower() in (name.lower(), f"{name.lower()}_0000")]
            faults.append(CaseFault("no label", name, f"is it {close[0]}?" if close else ""))
        if name in labels and not missing:
            cases.append(RawCase(name, tuple(there[file] for file in wanted), labels[name]))
    faults += [CaseFault("no image", name) for name in labels.keys() - images.keys()]
    return cases


def _by_case(folder: Path, ending: str, faults: list[CaseFault]) -> dict[str, list[Path]]:
    """Files of a folder of images by case."""
    cases: dict[str, list[Path]] = {}
    for path in _files(folder):
        channel = re.fullmatch(rf"(.+)_\d{{4}}{re.escape(ending)}", path.name)
        if path.name.startswith("."):
            faults.append(CaseFault("hidden", f"{folder.name}/{path.name}"))
        elif channel is not None:
            cases.setdefault(channel[1], []).append(path)
        else:
            kind = "misnamed" if path.name.endswith(ending) else "other"
            if not (ending in (".tif", ".tiff") and path.suffix == ".json"):  # its spacing
                faults.append(CaseFault(kind, f"{folder.name}/{path.name}"))
    return cases


def _files(folder: Path) -> list[Path]:
    """Files of a folder, sorted; none where it does not exist."""
    return sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []


def _is_case(entry: object) -> bool:
    """Whether an entry of 'dataset' names images and a label."""
    if not isinstance(entry, Mapping):
        return False
    images = entry.get("images")
    return (
        isinstance(images, list)
        and all(isinstance(image, str) for image in images)
        and isinstance(entry.get("label"), str)
    )


def _listed(
    folder: Path, description: Description, channels: int, faults: list[CaseFault]
) -> list[RawCase]:
    """The cases that dataset.json lists under 'dataset', with nnU-Net's own reading of their paths.

    Raises:
        UserError: it lists something else.
    """
    listed = description.content["dataset"]
    if not (isinstance(listed, Mapping) and all(map(_is_case, listed.values()))):
        raise UserError(
            f'{folder / "dataset.json"}: "dataset" must map the name of each case to {{"images": [FILE, ...], "label": '
            "FILE}, as nnU-Net reads it; rename the entry if it says something else, such as where the data are from"
        )
    entries = {name: dict(entry) for name, entry in listed.items()}
    content = {**description.content, "dataset": entries}
    cases = []
    for name, entry in get_filenames_of_train_images_and_targets(str(folder), content).items():
        case = RawCase(name, tuple(map(Path, entry["images"])), Path(entry["label"]))
        assert case.label is not None
        absent = [str(file) for file in (*case.images, case.label) if not file.is_file()]
        if absent:
            faults.append(CaseFault("missing", name, ", ".join(absent)))
        elif len(case.images) != channels:
            kind = "missing" if len(case.images) < channels else "surplus"
            faults.append(CaseFault(f"{kind} channel", name, f"{len(case.images)} images"))
        else:
            cases.append(case)
    return cases
