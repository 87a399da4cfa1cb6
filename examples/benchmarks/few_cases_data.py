"""What `few_cases.py` prepares: plans, preprocessed cases, and a random control of the encoder's weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from few_cases_arms import CONFIGURATION, Arm

from dinomed3d.lifting.weights import read_checkpoint


def prepare(dataset: Path, work: Path, *, small: bool, splits: Path | None = None) -> None:
    """Plan and preprocess with nnU-Net, and keep the test cases on the network's grid.

    Args:
        dataset: raw, of nnU-Net.
        work: folder of the benchmark.
        small: halve the CNN's channels and take batches of 2.
        splits: nnU-Net's splits_final.json, whose first fold's validation cases are the test; None for the images
            in labelsTs, or a fifth of the training cases where there are none.
    """
    if (work / "plans.json").is_file():
        return
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    number = number_of(dataset)
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(parents=True, exist_ok=True)
    link = work / "raw" / dataset.name
    if not link.exists():
        link.symlink_to(dataset.resolve(), target_is_directory=True)
    extract_fingerprints([number], num_processes=1)
    plan_experiments([number])
    preprocess([number], configurations=(CONFIGURATION,), num_processes=(1,))
    folder = work / "preprocessed" / dataset.name
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    keep_tests(dataset, work, plans, splits)
    # written last: without it all is prepared anew
    (work / "plans.json").write_text(json.dumps(made_small(plans) if small else plans))


def number_of(dataset: Path) -> int:
    """Of a raw dataset of nnU-Net."""
    return int(dataset.name[7:10])


def keep_tests(dataset: Path, work: Path, plans: dict[str, Any], splits: Path | None) -> None:
    """Write the names of the training cases, and the test cases as preprocessed for `plans`."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    description = json.loads((dataset / "dataset.json").read_text())
    preprocessed = work / "preprocessed" / dataset.name / configuration.data_identifier
    cases = {p.name.removesuffix(".pkl") for p in preprocessed.glob("*.pkl")}
    ending = description["file_ending"]
    tests = {p.name.removesuffix(ending) for p in (dataset / "labelsTs").glob(f"*{ending}")}
    images, labels = "imagesTs", "labelsTs"
    if splits is not None or not tests:
        images, labels = "imagesTr", "labelsTr"
        order = np.random.default_rng(0).permutation(sorted(cases))
        tests = set(order[: max(1, len(order) // 5)].tolist())
    if splits is not None:
        tests = set(json.loads(splits.read_text())[0]["val"])
    (work / "training.txt").write_text("\n".join(sorted(cases - tests)))
    (work / "tests").mkdir(exist_ok=True)
    for test in sorted(tests):
        files = sorted(str(p) for p in (dataset / images).glob(f"{test}_[0-9]*{ending}"))
        data, truth, _ = DefaultPreprocessor(verbose=False).run_case(
            files, str(dataset / labels / f"{test}{ending}"), manager, configuration, description
        )
        np.savez(work / "tests" / f"{test}.npz", data=data.astype(np.float32), truth=truth[0])


def made_small(plans: dict[str, Any]) -> dict[str, Any]:
    """A plan with half the channels and batches of 2, changed in place."""
    entry = plans["configurations"][CONFIGURATION]
    entry["batch_size"] = 2
    kwargs = entry["architecture"]["arch_kwargs"]
    kwargs["features_per_stage"] = [width // 2 for width in kwargs["features_per_stage"]]
    return plans


def plan_arms(dataset: Path, work: Path, arms: Iterable[Arm], *, small: bool) -> None:
    """Make the plans of arms with planners of their own, where they are missing; all read the same voxels."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments

    shared = json.loads((work / "plans.json").read_text())["configurations"][CONFIGURATION]
    for planner in {arm.planner for arm in arms} - {""}:
        if (work / f"{planner}.json").is_file():
            continue
        identifier = plan_experiments([number_of(dataset)], planner)
        plans = json.loads(
            (work / "preprocessed" / dataset.name / f"{identifier}.json").read_text()
        )
        found = plans["configurations"][CONFIGURATION]["data_identifier"]
        assert found == shared["data_identifier"], f"{planner} preprocesses otherwise: {found}"
        (work / f"{planner}.json").write_text(json.dumps(made_small(plans) if small else plans))


def plans_of(arm: Arm, work: Path) -> dict[str, Any]:
    """The plan that an arm is trained with, after `prepare` and `plan_arms`."""
    plans: dict[str, Any] = json.loads((work / f"{arm.planner or 'plans'}.json").read_text())
    entry = plans["configurations"][CONFIGURATION]
    multiple = arm.patch_multiple
    entry["patch_size"] = [-(-side // multiple) * multiple for side in entry["patch_size"]]
    return plans


def permute(weights: Path, out: Path) -> None:
    """The same tensors with their entries in another order: a random control of the same statistics.

    Args:
        weights: file of the encoder's, in any layout that training reads.
        out: safetensors file to write, unless it is there.
    """
    from safetensors.torch import save_file

    if out.is_file():
        return
    generator = torch.Generator().manual_seed(0)
    permuted = {}
    for name, tensor in sorted(read_checkpoint(weights).items()):
        learned = not name.endswith(("rope_embed.periods", "bias_mask"))  # these are constants
        order = torch.randperm(tensor.numel(), generator=generator) if learned else slice(None)
        permuted[name] = tensor.flatten()[order].view_as(tensor)
    save_file(permuted, out)
