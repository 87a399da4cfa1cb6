"""What has been planned and preprocessed already: whether it still belongs to the dataset, and can be trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinomed3d.dataset.findings import Finding
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.data.preprocessed_data import check_preprocessed

TOPIC = "plans"


def read_plans(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The plans of a dataset in nnUNet_preprocessed, by name."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        content = _json(path)
        if isinstance(content, dict) and isinstance(content.get("configurations"), dict):
            found[path.stem] = content
    return found


def check_plans(
    folder: Path, plans: Mapping[str, Mapping[str, Any]], cases: Sequence[str], number: int
) -> list[Finding]:
    """Compare plans, preprocessed data and splits with the cases of the dataset.

    Args:
        folder: of the dataset in nnUNet_preprocessed.
        plans: as `read_plans` gives them.
        cases: names of the training cases.
        number: of the dataset.
    """
    findings = _fingerprint(folder, len(cases), number) + _splits(folder, cases)
    if not plans:
        fix = (
            f"nnUNetv2_plan_and_preprocess -d {number} -pl DinoMed3DPlanner -gpu_memory_target GIB"
        )
        return [*findings, Finding(topic=TOPIC, says="none yet", state="note", fix=fix)]
    for name, plan in plans.items():
        findings += _one_plan(folder, name, plan, len(cases), number)
    return findings


def _one_plan(
    folder: Path, name: str, plan: Mapping[str, Any], cases: int, number: int
) -> list[Finding]:
    """Whether the data of each configuration of a plan are there; one is enough to train."""
    findings, absent, complete = [], [], []
    for configuration in plan["configurations"]:
        identifier = _identifier(plan, configuration)
        if identifier is None:
            continue
        there = len(list((folder / identifier).glob("*.pkl")))
        if not there:
            absent.append(configuration)
            continue
        todo = f"nnUNetv2_preprocess -d {number} -plans_name {name} -c {configuration}"
        if there < cases:
            says = f"{name} {configuration}: {there} of {cases} cases are preprocessed"
            findings.append(Finding(topic=TOPIC, says=says, state="error", fix=todo))
            continue
        try:
            check_preprocessed(folder / identifier, plan, configuration)
            complete.append(configuration)
        except (UserError, OSError, RuntimeError, ValueError, KeyError) as error:
            says = f"{name} {configuration}: {' '.join(str(error).split())}"
            findings.append(Finding(topic=TOPIC, says=says, state="error", fix=todo))
    if complete:
        findings.append(Finding(topic=TOPIC, says=f"{name}: {', '.join(complete)} can be trained"))
    if absent:
        findings.append(
            Finding(
                topic=TOPIC,
                says=f"{name}: {', '.join(absent)} not preprocessed"
                + ("" if complete or findings else ", so that training would end at once"),
                state="note" if complete or findings else "error",
                fix=f"nnUNetv2_preprocess -d {number} -plans_name {name} -c {' '.join(absent)}",
            )
        )
    return findings


def _identifier(plan: Mapping[str, Any], configuration: str) -> str | None:
    """The folder of a configuration's data, which it may inherit from another one."""
    seen: set[str] = set()
    while configuration not in seen:
        seen.add(configuration)
        entry = plan["configurations"].get(configuration)
        if not isinstance(entry, dict):
            return None
        if isinstance(entry.get("data_identifier"), str):
            return str(entry["data_identifier"])
        configuration = str(entry.get("inherits_from"))
    return None


def _fingerprint(folder: Path, cases: int, number: int) -> list[Finding]:
    content = _json(folder / "dataset_fingerprint.json")
    counted = len(content.get("spacings", ())) if isinstance(content, dict) else cases
    if counted == cases:
        return []
    says = f"the fingerprint is of {counted} cases, and there are {cases}"
    fix = f"nnUNetv2_extract_fingerprint -d {number} --clean, then plan and preprocess again"
    return [Finding(topic=TOPIC, says=says, state="error", fix=fix)]


def _splits(folder: Path, cases: Sequence[str]) -> list[Finding]:
    content = _json(folder / "splits_final.json")
    if not isinstance(content, list):
        return []
    try:
        named = {str(c) for fold in content for part in ("train", "val") for c in fold[part]}
        both = {str(c) for fold in content for c in set(fold["train"]) & set(fold["val"])}
    except (KeyError, TypeError):
        fix = (
            'write a list of {"train": [...], "val": [...]}, or delete it: nnU-Net makes a new one'
        )
        says = "splits_final.json is no list of folds"
        return [Finding(topic=TOPIC, says=says, state="error", fix=fix)]
    findings = []
    for says, names, state in (
        ("names cases that are not in imagesTr", named - set(cases), "error"),
        ("has cases in training and validation of one fold", both, "error"),
        ("leaves cases out", set(cases) - named, "note"),
    ):
        if names:
            some = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            findings.append(
                Finding(
                    topic=TOPIC,
                    says=f"splits_final.json {says}: {len(names)} ({some})",
                    state="error" if state == "error" else "note",
                    fix=f"correct or delete {folder / 'splits_final.json'}: nnU-Net makes a new one",
                    cases=len(names),
                )
            )
    return findings


def _json(path: Path) -> Any:
    """Content of a JSON file, None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
