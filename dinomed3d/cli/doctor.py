"""Looks at an installation and says what is there, what is wrong, and how to mend it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import platform
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import dinomed3d
from dinomed3d.cli.nnunet_commands import FOLDERS

TRAINER = "DinoMed3DTrainer"
PLANNER = "DinoMed3DPlanner"
PACKAGES = ("torch", "nnunetv2", "timm", "monai", "SimpleITK", "torchio", "safetensors")
DEFAULT_ENCODER = "vit_small_patch16_dinov3"

_TRAINERS = Path("training/nnUNetTrainer/variants")
_PLANNERS = Path("experiment_planning/experiment_planners")
_REINSTALL = "in dinomed3d's source folder: pip install --force-reinstall --no-deps ."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    says: str
    state: Literal["ok", "note", "mend"] = "ok"
    """ok; note: worth knowing; mend: training will not work like this."""
    advice: str = ""
    """What to do; needed for ``mend``."""

    def text(self) -> str:
        """Return one line, and a second one with the advice if there is any."""
        line = f"[{self.state}]".ljust(7) + f"{self.topic}: {self.says}"
        return f"{line}\n       -> {self.advice}" if self.advice else line


def examine() -> list[Finding]:
    """Look at versions, devices, nnU-Net's look-ups, weights and folders, in this order."""
    return [
        *_versions(),
        *_devices(),
        *_look_ups(),
        *_weights(),
        *(_folder(name) for name in FOLDERS),
    ]


def _versions() -> Iterator[Finding]:
    yield Finding(topic="python", says=f"{platform.python_version()} on {platform.platform()}")
    try:
        requirements = importlib.metadata.requires("dinomed3d") or []
        says = importlib.metadata.version("dinomed3d")
        yield Finding(topic="dinomed3d", says=says)
    except importlib.metadata.PackageNotFoundError:
        requirements = []
        yield Finding(
            topic="dinomed3d",
            says=f"{dinomed3d.__version__}, run from its source folder and not installed",
            state="mend",
            advice="in that folder: pip install .",
        )
    from packaging.requirements import Requirement

    wanted = {r.name.lower(): r for r in map(Requirement, requirements) if r.marker is None}
    for name in PACKAGES:
        requirement = wanted.get(name.lower())
        install = f"pip install '{requirement or name}'"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(topic=name, says="not installed", state="mend", advice=install)
            continue
        if requirement is None or requirement.specifier.contains(version, prereleases=True):
            yield Finding(topic=name, says=version)
        else:
            says = f"{version}, but dinomed3d needs {requirement.specifier}"
            yield Finding(topic=name, says=says, state="mend", advice=install)


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding(
            topic="devices",
            says=f"torch cannot be imported: {error}",
            state="mend",
            advice="reinstall it: pip install --force-reinstall torch",
        )
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory_gib = properties.total_memory / 2**30
        says = f"{properties.name}, {memory_gib:.0f} GiB, {_precision('cuda')}"
        yield Finding(topic=f"device cuda:{index}", says=says)
    if torch.backends.mps.is_available():
        yield Finding(topic="device mps", says=f"available, {_precision('mps')}")
    elif not torch.cuda.is_available():
        yield Finding(
            topic="device cuda",
            says="none",
            state="note",
            advice="give nnU-Net's commands '-device cpu'; training will be slow",
        )
    says = f"{os.cpu_count() or 1} cores, {_precision('cpu')}"
    yield Finding(topic="device cpu", says=says)


def _precision(device: str) -> str:
    import torch

    from dinomed3d.training.precision import fast_precision

    precision = fast_precision(torch.device(device)) or torch.float32
    return f"trains in {str(precision).removeprefix('torch.')}"


def _look_ups() -> Iterator[Finding]:
    try:
        with _quiet():
            import nnunetv2

            if nnunetv2.__file__ is None:
                yield _hidden_nnunet(list(nnunetv2.__path__))
                return
            from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
            from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except ImportError as error:
        yield Finding(
            topic="nnU-Net",
            says=f"cannot be imported: {_one_line(error)}",
            state="mend",
            advice="reinstall it: pip install --force-reinstall 'nnunetv2>=2.8,<2.9'",
        )
        return
    home = Path(nnunetv2.__path__[0])
    clone = _is_editable("nnunetv2")
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

    mend_trainer = f"export nnUNet_extTrainer='{_shim('trainer').parent}'"
    mend_planner = (
        f"plan with 'dinomed3d plan -d DATASET', or copy '{_shim('planner')}' to "
        f"'{home / _PLANNERS / 'dinomed3d_planner.py'}'"
    )
    yield _look_up(
        f"trainer {TRAINER}",
        lambda: recursive_find_trainer_class_by_name(TRAINER),
        present=(home / _TRAINERS / "dinomed3d_trainer.py").is_file(),
        mend=mend_trainer if clone else _REINSTALL,
    )
    yield _look_up(
        f"planner {PLANNER}",
        find_planner,
        present=(home / _PLANNERS / "dinomed3d_planner.py").is_file(),
        mend=mend_planner if clone else _REINSTALL,
        # Stock plans do without our planner, so a clone without it can still be trained with.
        state="note" if clone else "mend",
    )


def _look_up(
    topic: str,
    find: Callable[[], type | None],
    *,
    present: bool,
    mend: str,
    state: Literal["note", "mend"] = "mend",
) -> Finding:
    """Ask nnU-Net for a class; ``present``: our module lies where nnU-Net looks."""
    try:
        with _quiet():
            found = find()
    except Exception as error:  # whatever it is, nnU-Net's commands would fail with it
        if present or not isinstance(error, RuntimeError):
            says = f"its import fails: {_one_line(error)}"
            advice = "mend what the message names, then run this again"
            return Finding(topic=topic, says=says, state="mend", advice=advice)
        found = None
    if found is None:
        return Finding(topic=topic, says="not found by nnU-Net", state=state, advice=mend)
    return Finding(topic=topic, says=f"found by nnU-Net, in {found.__module__}")


def _hidden_nnunet(folders: list[str]) -> Finding:
    """An editable clone behind a folder that holds only what our wheel once put there."""
    return Finding(
        topic="nnU-Net",
        says=f"hidden by {' '.join(folders)}, which holds no nnU-Net",
        state="mend",
        advice="install nnU-Net as a package: pip install 'nnunetv2>=2.8,<2.9'; or for an editable "
        "clone, in its folder: pip install -e . --config-settings editable_mode=compat",
    )


def _shim(kind: Literal["trainer", "planner"]) -> Path:
    """Where the module for nnU-Net lies: as the wheel put it, else in the source folder."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("dinomed3d") or []:
            if file.name == f"dinomed3d_{kind}.py":
                return Path(str(file.locate()))
    return Path(dinomed3d.__file__).parent / "shims" / f"{kind}.py"


def _weights() -> Iterator[Finding]:
    name = os.environ.get("DINOMED3D_ENCODER", DEFAULT_ENCODER)
    setting = os.environ.get("DINOMED3D_WEIGHTS") or "hub"
    try:
        with _quiet():
            from dinomed3d.lifting.dino import MODELS
            from dinomed3d.lifting.weights import WeightsError, find_weights
    except ImportError as error:
        yield Finding(
            topic="encoder",
            says=f"dinomed3d.lifting cannot be imported: {_one_line(error)}",
            state="mend",
            advice=_REINSTALL,
        )
        return
    if name not in MODELS:
        yield Finding(
            topic="encoder",
            says=f"DINOMED3D_ENCODER={name} is not known",
            state="mend",
            advice=f"set it to one of {', '.join(MODELS)}",
        )
        return
    overrides = os.environ.get("DINOMED3D_ENCODER_OVERRIDES")
    yield Finding(topic="encoder", says=f"{name} with {overrides}" if overrides else name)

    if setting == "none":
        yield Finding(
            topic="weights",
            says="none: training would start from random numbers",
            state="note",
            advice="for real work name a checkpoint: export DINOMED3D_WEIGHTS=FILE",
        )
    elif setting == "hub":
        yield _hub_weights(MODELS[name])
    else:
        try:
            path = find_weights(setting, hub_repository="")
        except WeightsError as error:
            yield Finding(
                topic="weights",
                says=_one_line(error),
                state="mend",
                advice="set DINOMED3D_WEIGHTS to a file, a directory, 'hub' or 'none'",
            )
        else:
            yield _weights_file(path)


def _weights_file(path: Path) -> Finding:
    """Look at a checkpoint's outside only: the big ones take minutes to read."""
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
            return Finding(
                topic="weights",
                says=f"{says}: truncated, or not a PyTorch file",
                state="mend",
                advice=again,
            )
    except Exception as error:
        return Finding(
            topic="weights",
            says=f"{says}: cannot be read: {_one_line(error)}",
            state="mend",
            advice=again,
        )
    return Finding(topic="weights", says=says)


def _hub_weights(model: str) -> Finding:
    import timm
    from huggingface_hub import try_to_load_from_cache

    repository = getattr(timm.get_pretrained_cfg(model), "hf_hub_id", None) or model
    cached = try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(cached, str):
        return Finding(topic="weights", says=f"hub: {repository}, in the cache")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    return Finding(
        topic="weights",
        says=f"hub: {repository}, not in the cache"
        + (" and HF_HUB_OFFLINE is set" if offline else "; it will be downloaded for training"),
        state="mend" if offline else "note",
        advice="without network: export DINOMED3D_WEIGHTS=FILE, in Meta's, Hugging Face's or "
        "timm's layout; for a test without weights: DINOMED3D_WEIGHTS=none",
    )


def _folder(name: str) -> Finding:
    value = os.environ.get(name)
    if not value:
        advice = f"export {name}=/a/folder/of/yours/{name}"
        return Finding(topic=name, says="not set", state="mend", advice=advice)
    path = Path(value)
    if not path.is_dir():
        advice = f"mkdir -p '{path}', or set {name} to another folder"
        return Finding(topic=name, says=f"{path} is no folder", state="mend", advice=advice)
    if not os.access(path, os.W_OK):
        # Raw data may well lie on a read-only share; the other two are written to.
        return Finding(
            topic=name,
            says=f"{path} is not writable",
            state="note" if name == "nnUNet_raw" else "mend",
            advice=f"give yourself write access, or set {name} to another folder",
        )
    return Finding(topic=name, says=str(path))


def _is_editable(distribution: str) -> bool:
    """Whether pip installed it as a link to a source folder (PEP 610)."""
    try:
        record = importlib.metadata.distribution(distribution).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return False
    return bool(record and json.loads(record).get("dir_info", {}).get("editable"))


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what nnU-Net's modules print while they are imported and searched."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
