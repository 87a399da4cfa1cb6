"""dataset.json: whether it says what nnU-Net v2 needs, and the way nnU-Net reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager

from dinomed3d.dataset.findings import Finding
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.data.dataset_labels import check_labels, turned_round

TOPIC = "dataset.json"
REQUIRED = ("labels", "channel_names", "numTraining", "file_ending")
"""Entries that nnU-Net v2 needs; ``modality`` stands for ``channel_names`` in old files."""


@dataclass(frozen=True)
class Description:
    """What the checks need of dataset.json."""

    content: Mapping[str, Any]
    """All of it."""
    channels: tuple[str, ...]
    """Names of the channels, in order."""
    ending: str
    """Ending of all files."""
    labels: Mapping[int, str]
    """Label value -> name, with the ignore label; empty where dataset.json has none that can be read."""


def read_description(folder: Path) -> Mapping[str, Any]:
    """Read dataset.json of a raw dataset.

    Raises:
        UserError: there is none, or it is no JSON object.
    """
    path = folder / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); a raw dataset needs one"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: is no valid JSON ({error}); correct it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a JSON object, it is a {type(content).__name__}")
    return content


def check_description(content: Mapping[str, Any]) -> tuple[Description, list[Finding]]:
    """Look dataset.json over."""
    findings = []
    if "modality" in content and "channel_names" not in content:
        findings.append(
            _finding(
                "has 'modality', the name of nnU-Net v1; v2 still reads it",
                "rename it to 'channel_names'",
                "note",
            )
        )
    names = content.get("channel_names", content.get("modality"))
    missing = [
        key for key in REQUIRED if key not in {*content, *(("channel_names",) if names else ())}
    ]
    if missing:
        fix = "add them: nnUNetv2's dataset_conversion/generate_dataset_json.py writes a whole file"
        findings.append(_finding(f"has no {', '.join(missing)}", fix))
    channels, problem = _channels(names)
    findings += [problem] if problem is not None else []
    ending = content.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not ending.startswith("."):
        fix = 'write it with its dot, such as ".nii.gz"'
        findings.append(_finding(f"file_ending must be text with a dot, got {ending!r}", fix))
        ending = f".{str(ending).lstrip('.')}"
    labels, problem = _labels(content)
    findings += [problem] if problem is not None else []
    if not findings:
        named = ", ".join(f"{value} {name}" for value, name in labels.items())
        says = f"channels {', '.join(channels)}; labels {named}"
        findings.append(Finding(topic=TOPIC, says=says))
    return Description(content, channels, ending, labels), findings


def _finding(says: str, fix: str, state: Any = "error") -> Finding:
    return Finding(topic=TOPIC, says=says, fix=fix, state=state)


def _channels(names: object) -> tuple[tuple[str, ...], Finding | None]:
    """Names of the channels, and what is wrong with them."""
    if not isinstance(names, Mapping) or not names:
        fix = 'write "channel_names": {"0": "CT"}, or a name for each channel'
        return ("?",), _finding(f"channel_names must map numbers to names, got {names!r}", fix)
    keys, values = list(map(str, names)), list(map(str, names.values()))
    if not any(key.isdecimal() for key in keys) and all(value.isdecimal() for value in values):
        turned = json.dumps(dict(zip(values, keys, strict=True)), ensure_ascii=False)
        return tuple(keys), _finding(
            f"channel_names are written the wrong way round ({json.dumps(dict(names))})",
            f'write "channel_names": {turned}',
        )
    if sorted(keys) != sorted(map(str, range(len(keys)))):
        fix = "number the channels 0, 1, 2, ... as the files are (CASE_0000, CASE_0001, ...)"
        return tuple(values), _finding(f"channel_names are numbered {', '.join(keys)}", fix)
    return tuple(str(names[key]) for key in sorted(names, key=int)), None


def _labels(content: Mapping[str, Any]) -> tuple[dict[int, str], Finding | None]:
    """Label value -> name, and what is wrong with the labels: our words first, then nnU-Net's own."""
    try:
        check_labels(content)
    except UserError as error:
        says, _, fix = str(error).removeprefix("dataset.json: ").partition(": write ")
        labels = content.get("labels")
        turned = (turned_round(labels) if isinstance(labels, Mapping) else None) or {}
        values = {number: name for name, number in turned.items()}
        return values, _finding(says, f"write {fix}" if fix else "correct it in dataset.json")
    named: dict[int, str] = {}
    for name, value in content["labels"].items():
        for one in value if isinstance(value, list) else [value]:
            named[int(one)] = f"{named[int(one)]} and {name}" if int(one) in named else name
    same = [name for name in named.values() if " and " in name]
    regions = any(isinstance(value, list) for value in content["labels"].values())
    if same and not regions:
        fix = "give each label a number of its own, also in the files, or make one label of them"
        return named, _finding(f"labels {'; '.join(same)} have one number", fix)
    named = dict(sorted(named.items()))
    try:
        LabelManager(dict(content["labels"]), content.get("regions_class_order"))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        fix = "correct 'labels' and 'regions_class_order' (nnU-Net's documentation/region_based_training.md)"
        return named, _finding(f"nnU-Net refuses the labels: {_line(error)}", fix)
    if list(named) != list(range(len(named))):
        return named, _finding(
            f"labels must be 0, 1, 2, ... without gaps, got {', '.join(map(str, named))}",
            "number them again, in dataset.json and in all files of labelsTr",
        )
    return named, None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
