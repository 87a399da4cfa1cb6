"""What `doctor` says about the machine and about what only some people need: extras, kernels, memory, disks."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.dataset.findings import Finding
from dinomed3d.runtime.messages.extras import how_to_install

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PURPOSES = {
    "completion": "completion of commands in a shell",
    "dicom": "DICOM segmentations and structure sets",
    "e57": "E57 clouds",
    "hub": "models of the Hugging Face hub",
    "onnx": "dinomed3d export to ONNX",
    "ray": "prediction on a Ray cluster",
    "view": "pointseg-view in a browser",
    "waymo": "preparing the Waymo Open Dataset",
}
"""What each extra is for."""
OF_DEVELOPERS = ("test", "docs")
"""Extras that no user needs."""
LITTLE_DISK_GIB = 20
"""Free space, GiB, below which preprocessing a data set and a training's checkpoints may not fit."""
LITTLE_SHARED_GIB = 1
"""Shared memory, GiB, below which loaders of training and prediction may fail: containers have 64 MB by default."""
SHARED = Path("/dev/shm")


def extras() -> Iterator[Finding]:
    """Which extras are installed and can be imported, and how to install the others."""
    from packaging.requirements import Requirement

    try:
        names = importlib.metadata.metadata("dinomed3d").get_all("Provides-Extra") or []
        requirements = [
            Requirement(text) for text in importlib.metadata.requires("dinomed3d") or []
        ]
    except importlib.metadata.PackageNotFoundError:
        return
    for extra in sorted(set(names) - {*OF_DEVELOPERS}):
        wanted = [r for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
        wanted = [r for r in wanted if not r.marker.evaluate({"extra": ""})]  # type: ignore[union-attr]
        yield _extra(extra, wanted)


def _extra(extra: str, wanted: list[Requirement]) -> Finding:
    topic, purpose = f"extra {extra}", PURPOSES.get(extra, "")
    needed = f", for {purpose}" if purpose else ""
    versions = []
    for requirement in wanted:
        name = requirement.name
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            says = f"{name} is not installed{needed}"
            return Finding(topic=topic, says=says, state="note", fix=how_to_install(extra))
        if not requirement.specifier.contains(version, prereleases=True):
            says = f"{name} {version}, but it needs {requirement.specifier}"
            return Finding(topic=topic, says=says, state="error", fix=how_to_install(extra))
        if reason := _import_error(name):
            fix = f"reinstall it: pip install --force-reinstall '{requirement.name}{requirement.specifier}'"
            says = f"{name} {version} cannot be imported: {reason}"
            return Finding(topic=topic, says=says, state="error", fix=fix)
        versions.append(f"{name} {version}")
    return Finding(topic=topic, says=f"{', '.join(versions)}{needed}")


def cloud_files() -> Iterator[Finding]:
    """Whether compressed LAS files can be read and written."""
    for name, fix in (("laspy", "laspy[lazrs]>=2.5"), ("lazrs", "laspy[lazrs]>=2.5")):
        what = "LAS files" if name == "laspy" else "LAZ files"
        install = f"pip install --force-reinstall '{fix}'"
        if reason := _import_error(name):
            says = f"cannot be imported, for {what}: {reason}"
            yield Finding(topic=name, says=says, state="error", fix=install)
        else:
            yield Finding(topic=name, says=f"{importlib.metadata.version(name)}, for {what}")


def _import_error(name: str) -> str:
    """Why a package cannot be imported; empty if it can."""
    try:
        importlib.import_module(name.replace("-", "_"))
    except Exception as error:  # whatever it is, our import would fail with it
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


def kernels() -> Finding:
    """Whether clouds on CUDA run through Triton's kernels, and what is compiled."""
    import torch

    if not torch.cuda.is_available():
        return Finding(
            topic="Triton", says="not needed without CUDA: plain PyTorch gives the same numbers"
        )
    if importlib.util.find_spec("triton") is None:
        says = "not installed: clouds and compiled networks take the slower, plain path, with the same numbers"
        if os.name == "nt":
            return Finding(topic="Triton", says=says)
        fix = "reinstall PyTorch's own wheel for Linux, which brings it: pip install --force-reinstall torch"
        return Finding(topic="Triton", says=says, state="note", fix=fix)
    if reason := _import_error("triton"):
        fix = "reinstall PyTorch, which brings it: pip install --force-reinstall torch"
        return Finding(topic="Triton", says=f"cannot be imported: {reason}", state="error", fix=fix)
    says = f"{importlib.metadata.version('triton')}, used for clouds and compiled networks on CUDA"
    if shutil.which("cc") is None and shutil.which("gcc") is None and shutil.which("clang") is None:
        fix = "install a C compiler, such as gcc: Triton compiles a small module with it"
        return Finding(
            topic="Triton", says=f"{says}, but there is no C compiler", state="note", fix=fix
        )
    return Finding(topic="Triton", says=says)


def shared_memory() -> Iterator[Finding]:
    """Whether worker processes have memory to share; systems without /dev/shm have no such limit."""
    if not SHARED.is_dir():
        return
    usage = shutil.disk_usage(SHARED)
    says = f"{usage.free / 2**30:.2g} of {usage.total / 2**30:.2g} GiB are free in {SHARED}"
    if usage.free < LITTLE_SHARED_GIB * 2**30:
        fix = "give a container more (docker run --shm-size=2g), or use --workers 0 (nnUNet_n_proc_DA=0)"
        yield Finding(topic="shared memory", says=says, state="note", fix=fix)
    else:
        yield Finding(topic="shared memory", says=says)


def temporary_folder() -> Finding:
    """Where temporary files go, and how much fits."""
    topic = "temporary folder"
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        fix = "set TMPDIR to a folder that you may write to"
        return Finding(topic=topic, says=str(error), state="error", fix=fix)
    return Finding(topic=topic, says=f"{folder}, {free_space(folder)}")


def free_space(folder: str | Path) -> str:
    """How much fits on a folder's disk: `123 GiB free`."""
    return f"{shutil.disk_usage(folder).free / 2**30:,.0f} GiB free"


def is_nearly_full(folder: str | Path) -> bool:
    """Whether less than LITTLE_DISK_GIB fits on a folder's disk."""
    return shutil.disk_usage(folder).free < LITTLE_DISK_GIB * 2**30
