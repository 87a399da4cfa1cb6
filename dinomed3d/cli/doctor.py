"""The verb `doctor`: checks the installation, or a raw dataset, each error with a fix."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import os
import platform
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dinomed3d
from dinomed3d.cli.machine_checks import (
    cloud_files,
    extras,
    free_space,
    is_nearly_full,
    kernels,
    shared_memory,
    temporary_folder,
)
from dinomed3d.cli.nnunet_commands import FOLDERS
from dinomed3d.dataset.findings import Finding, State, table
from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.extras import is_editable
from dinomed3d.runtime.messages.shell_words import make_folder, set_variable
from dinomed3d.runtime.messages.suggestion import suggestion
from dinomed3d.runtime.messages.terminal_text import lines_of

TRAINER = "DinoMed3DTrainer"
PLANNER = "DinoMed3DPlanner"
PACKAGES = ("torch", "nnunetv2", "timm", "monai", "SimpleITK", "torchio", "safetensors")

ONLY_TRAINING = "needed for planning and training only"
"""Said of what a machine that predicts can do without."""

_TRAINERS = Path("training/nnUNetTrainer")
_PLANNERS = Path("experiment_planning/experiment_planners")
_REINSTALL = "in dinomed3d's source folder: pip install --force-reinstall --no-deps ."
_HIDDEN = "in nnU-Net's folder: pip install -e . --config-settings editable_mode=compat"
"""Puts the clone itself on Python's path, where it comes before a folder that holds two modules only."""


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "doctor",
        help="check the installation, or with -d a raw dataset",
        example="dinomed3d doctor -d 17",
        description="Prints versions, devices, whether nnU-Net's own look-ups find our trainer and planner, which "
        "weights are configured, nnU-Net's three folders and their free space, readers of clouds, CUDA kernels, shared "
        "memory, and which extras can be used; each problem with what to do next. With -d it looks a raw dataset over "
        "instead: dataset.json, missing and surplus files, geometry of images, channels and labels, values of images "
        "and labels, copies, memory and disk of preprocessing, plans, weights, devices; and prints a table at the end.",
        epilog="Exit codes: 0 no errors; 1 there are errors; 2 there is no such dataset, or nothing in it. Weights and "
        "folders of nnU-Net that are not set are notes, since only planning and training need them; with -d they "
        "are errors.",
    )
    parser.add_argument(
        "-d", dest="dataset", metavar="DATASET", help="number, name or folder of a raw dataset"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes that read voxels, each with one case in memory (default: one per core, at most 8)",
    )
    parser.add_argument(
        "--headers-only", action="store_true", help="with -d: read no voxels, only headers"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, and print the findings."""
    findings: list[Finding] = []
    if arguments.dataset is None:
        if arguments.headers_only:
            raise UserError("--headers-only is for a dataset: name it with -d")
        checks: Iterator[Finding] = iter(examine())
    else:
        checks = _dataset(arguments)
    with json_alone(arguments.json):
        for finding in checks:
            if not arguments.json:
                print(lines_of(finding.text()), flush=True)
            findings.append(finding)
    if arguments.json:
        print_json("dinomed3d-doctor-1", {"findings": findings})
    elif arguments.dataset is not None:
        print(f"\n{table(findings)}")
    return 1 if any(finding.state == "error" for finding in findings) else 0


def _dataset(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Look a dataset over, and what its training needs of this machine.

    Raises:
        UserError: there is no such dataset, or nothing in it, or a wrong number of processes.
    """
    if arguments.processes < 1:
        raise UserError(f"--processes must be 1 or more, got {arguments.processes}")
    with _quiet():  # nnU-Net says which of its folders are not set; so do we
        from dinomed3d.cli.dataset_progress import DatasetProgress
        from dinomed3d.dataset.check import check_dataset, dataset_folder
    folder = dataset_folder(arguments.dataset)
    yield Finding(topic="dataset", says=str(folder))
    yield from check_dataset(
        folder,
        processes=arguments.processes,
        with_voxels=not arguments.headers_only,
        progress=DatasetProgress(),
    )
    yield from _weights(unset="error")
    yield from _devices()
    yield from (_folder(name, unset="error") for name in FOLDERS)


def examine() -> list[Finding]:
    """Check versions, devices, nnU-Net's look-ups, weights, folders, memory and extras, in this order.

    What only training needs may be unset on a machine that predicts; what is set must be right.
    """
    return [
        *_versions(),
        *cloud_files(),
        *_devices(),
        kernels(),
        *_nnunet(),
        *_weights(unset="note"),
        *(_folder(name, unset="note") for name in FOLDERS),
        temporary_folder(),
        *shared_memory(),
        *extras(),
    ]


def _error(topic: str, says: str, fix: str) -> Finding:
    return Finding(topic=topic, says=says, state="error", fix=fix)


def _versions() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    yield Finding(topic="python", says=f"{platform.python_version()} on {platform.platform()}")
    try:
        requirements = importlib.metadata.requires("dinomed3d") or []
        yield Finding(topic="dinomed3d", says=importlib.metadata.version("dinomed3d"))
    except importlib.metadata.PackageNotFoundError:
        requirements = []
        says = f"{dinomed3d.__version__}, run from its source folder and not installed"
        yield _error("dinomed3d", says, "in that folder: pip install .")
    wanted = {r.name.lower(): r for r in map(Requirement, requirements) if r.marker is None}
    for name in PACKAGES:
        requirement = wanted.get(name.lower())
        install = f"pip install '{requirement or name}'"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield _error(name, "not installed", install)
            continue
        if requirement is None or requirement.specifier.contains(version, prereleases=True):
            yield Finding(topic=name, says=version)
        else:
            says = f"{version}, but dinomed3d needs {requirement.specifier}"
            yield _error(name, says, install)


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        fix = "reinstall it: pip install --force-reinstall torch"
        yield _error("devices", f"torch cannot be imported: {error}", fix)
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory_gib = properties.total_memory / 2**30
        says = f"{properties.name}, {memory_gib:.0f} GiB, {_precision('cuda')}"
        yield Finding(topic=f"device cuda:{index}", says=says)
    if torch.backends.mps.is_available():
        yield Finding(topic="device mps", says=f"available, {_precision('mps')}")
    elif not torch.cuda.is_available():
        fix = "give nnU-Net's commands '-device cpu'; training will be slow"
        yield Finding(topic="device cuda", says="none", state="note", fix=fix)
    says = f"{os.cpu_count() or 1} cores, {_precision('cpu')}"
    yield Finding(topic="device cpu", says=says)


def _precision(device: str) -> str:
    import torch

    from dinomed3d.training.step.precision import fast_precision

    precision = fast_precision(torch.device(device)) or torch.float32
    return f"trains in {str(precision).removeprefix('torch.')}"


def _nnunet() -> Iterator[Finding]:
    """Where nnU-Net is, and whether its own look-ups find our trainer and planner."""
    try:
        import nnunetv2

        if nnunetv2.__file__ is None:
            # Python found the folder with our two modules before the finder of an editable clone.
            says = f"an editable clone is hidden by {' '.join(nnunetv2.__path__)}, which holds only our modules"
            yield _error("nnU-Net", says, _HIDDEN)
            return
        with _quiet():
            from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
            from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except ImportError as error:
        fix = "reinstall it: pip install --force-reinstall 'nnunetv2>=2.8,<2.9'"
        yield _error("nnU-Net", f"cannot be imported: {_one_line(error)}", fix)
        return
    home, clone = Path(nnunetv2.__path__[0]), is_editable("nnunetv2")
    if clone:
        says = f"{home}, an editable clone, into which our wheel cannot put modules"
        yield Finding(topic="nnU-Net", says=says, state="note")
    else:
        yield Finding(topic="nnU-Net", says=str(home))

    def find_planner() -> type | None:
        found: type | None = recursive_find_python_class(
            str(home / "experiment_planning"), PLANNER, "nnunetv2.experiment_planning"
        )
        return found

    yield _look_up(
        f"trainer {TRAINER}",
        lambda: recursive_find_trainer_class_by_name(TRAINER),
        present=(home / _TRAINERS / "dinomed3d_trainer.py").is_file(),
        fix=set_variable("nnUNet_extTrainer", _trainer_folder()) if clone else _REINSTALL,
    )
    yield _look_up(
        f"planner {PLANNER}",
        find_planner,
        present=(home / _PLANNERS / "dinomed3d_planner.py").is_file(),
        fix="plan with 'dinomed3d plan -d DATASET'" if clone else _REINSTALL,
        # Stock plans do without our planner, so a clone that does not find it can still train.
        state="note" if clone else "error",
    )


def _look_up(
    topic: str,
    find: Callable[[], type | None],
    *,
    present: bool,
    fix: str,
    state: State = "error",
) -> Finding:
    """Ask nnU-Net for a class.

    Args:
        topic: what it is.
        find: nnU-Net's look-up.
        present: whether our module is in the folder where nnU-Net looks.
        fix: what to do where nnU-Net does not find the class.
        state: how bad that is.
    """
    try:
        with _quiet():
            found = find()
    except Exception as error:  # whatever it is, nnU-Net's commands would fail with it
        if present or not isinstance(error, RuntimeError):
            says = f"its import fails: {_one_line(error)}"
            return _error(topic, says, "repair what the message names, then run this again")
        found = None
    if found is None:
        return Finding(topic=topic, says="not found by nnU-Net", state=state, fix=fix)
    return Finding(topic=topic, says=f"found by nnU-Net, in {found.__module__}")


def _trainer_folder() -> Path:
    """The folder of the trainer's module: where the wheel put it, else in the source folder."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("dinomed3d") or []:
            if file.name == "dinomed3d_trainer.py":
                return Path(str(file.locate())).parent
    return Path(dinomed3d.__file__).parent / "shims"


def _weights(*, unset: State) -> Iterator[Finding]:
    """The encoder and its weights.

    Args:
        unset: how bad it is that no weights are chosen where the default ones cannot be had.
    """
    setting = os.environ.get("DINOMED3D_WEIGHTS") or "hub"
    try:
        with _quiet():
            from dinomed3d.lifting import WeightsError, find_weights
            from dinomed3d.lifting.dino import (
                DEFAULT_ENCODER,
                MODELS,
                hub_repository,
                needs_licence,
            )
            from dinomed3d.lifting.missing_weights import VOLUMES
    except ImportError as error:
        says = f"dinomed3d.lifting cannot be imported: {_one_line(error)}"
        yield _error("encoder", says, _REINSTALL)
        return
    yield from _unknown_variables()
    name = os.environ.get("DINOMED3D_ENCODER", DEFAULT_ENCODER)
    if name not in MODELS:
        fix = f"set it to one of {', '.join(MODELS)}"
        says = f"DINOMED3D_ENCODER={name} is not known{suggestion([name], MODELS)}"
        yield _error("encoder", says, fix)
        return
    overrides = os.environ.get("DINOMED3D_ENCODER_OVERRIDES")
    yield Finding(topic="encoder", says=f"{name} with {overrides}" if overrides else name)

    if setting == "none":
        says = "none: training would start from random numbers"
        fix = f"for real work name a checkpoint: {set_variable('DINOMED3D_WEIGHTS', 'FILE')}"
        yield Finding(topic="weights", says=says, state="note", fix=fix)
    elif setting == "hub":
        advice = f"; without a licence: {VOLUMES.without_licence}" if needs_licence(name) else ""
        is_unset = not os.environ.get("DINOMED3D_WEIGHTS")
        yield _hub_weights(hub_repository(name), advice, unset if is_unset else "error")
    else:
        try:
            yield _weights_file(find_weights(setting, hub_repository=""))
        except WeightsError as error:
            fix = "set DINOMED3D_WEIGHTS to a file, a directory, 'hub' or 'none'"
            yield _error("weights", _one_line(error), fix)


def _unknown_variables() -> Iterator[Finding]:
    """Variables that look like ours and that nothing reads."""
    from dinomed3d.training.settings.environment import unknown_variables

    for name, meant in unknown_variables(os.environ).items():
        says, fix = f"nothing reads it{meant}", "correct its name, or unset it"
        state: State = "error" if meant else "note"
        yield Finding(topic=f"variable {name}", says=says, state=state, fix=fix)


def _weights_file(path: Path) -> Finding:
    """Check a checkpoint's outside only: reading large ones takes minutes."""
    size_mib = path.stat().st_size / 2**20
    says = f"{path}, {size_mib:.0f} MiB"
    again = f"download '{path}' again, or name another file in DINOMED3D_WEIGHTS"
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                says += f", {len(list(file.keys()))} tensors"
        elif path.suffix in (".pth", ".pt", ".bin") and not zipfile.is_zipfile(path):
            # Torch's files are zip archives; a truncated one has lost its directory.
            return _error("weights", f"{says}: truncated, or not a PyTorch file", again)
    except Exception as error:
        return _error("weights", f"{says}: cannot be read: {_one_line(error)}", again)
    return Finding(topic="weights", says=says)


def _hub_weights(repository: str, advice: str, unreachable: State) -> Finding:
    """Whether the weights are in the hub's cache; `unreachable`: how bad it is that they cannot be downloaded."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(cached, str):
        return Finding(topic="weights", says=f"hub: {repository}, in the cache")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    return Finding(
        topic="weights",
        says=f"hub: {repository}, not in the cache"
        + (
            f" and HF_HUB_OFFLINE is set; {ONLY_TRAINING}"
            if offline
            else "; downloaded for training"
        ),
        state=unreachable if offline else "note",
        fix=f"without network: {set_variable('DINOMED3D_WEIGHTS', 'FILE')}, in Meta's, Hugging Face's or "
        f"timm's layout{advice}; for a test without weights: DINOMED3D_WEIGHTS=none",
    )


def _folder(name: str, *, unset: State) -> Finding:
    """Check one of nnU-Net's folders; `unset`: how bad it is that there is none."""
    value = os.environ.get(name)
    if not value:
        fix = set_variable(name, f"/a/folder/of/yours/{name}")
        return Finding(topic=name, says=f"not set; {ONLY_TRAINING}", state=unset, fix=fix)
    path = Path(value)
    if not path.is_dir():
        fix = f"{make_folder(path)}, or set {name} to another folder"
        return _error(name, f"{path} is no folder", fix)
    if not os.access(path, os.W_OK):
        return Finding(
            topic=name,
            says=f"{path} is not writable",
            # Raw data may well lie on a read-only share; nnU-Net writes to the other two.
            state="note" if name == "nnUNet_raw" else "error",
            fix=f"give yourself write access, or set {name} to another folder",
        )
    if name != "nnUNet_raw" and is_nearly_full(path):
        fix = f"make room, or set {name} to a folder on another disk"
        return Finding(topic=name, says=f"{path}, {free_space(path)}", state="note", fix=fix)
    return Finding(topic=name, says=f"{path}, {free_space(path)}")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what nnU-Net's modules print while they are imported and searched."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
