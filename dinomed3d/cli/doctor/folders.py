"""Folders that are written to, and how much fits: nnU-Net's, the temporary one, shared memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dinomed3d.dataset.findings import Finding, State
from dinomed3d.runtime.messages.shell_words import make_folder, set_variable

NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
"""nnU-Net's three folders, named as its environment variables are."""
ONLY_TRAINING = "needed for planning and training only"
"""Said of what a machine that predicts can do without."""
LITTLE_DISK_GIB = 20
"""Free space, GiB, below which preprocessing a dataset and a training's checkpoints may not fit."""
LITTLE_SHARED_GIB = 1
"""Shared memory, GiB, below which loaders of training and prediction may fail: containers have 64 MB by default."""
SHARED = Path("/dev/shm")
"""Where Linux keeps memory that processes share."""


def nnunet_folder(name: str, *, unset: State) -> Finding:
    """Check one of nnU-Net's folders; `unset`: how bad it is that there is none."""
    value = os.environ.get(name)
    if not value:
        fix = set_variable(name, f"/a/folder/of/yours/{name}")
        return Finding(topic=name, says=f"not set; {ONLY_TRAINING}", state=unset, fix=fix)
    path = Path(value)
    if not path.is_dir():
        fix = f"{make_folder(path)}, or set {name} to another folder"
        return Finding(topic=name, says=f"{path} is no folder", state="error", fix=fix)
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


def temporary_folder() -> Finding:
    """Where temporary files go, and how much fits."""
    topic = "temporary folder"
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        fix = "set TMPDIR to a folder that you may write to"
        return Finding(topic=topic, says=str(error), state="error", fix=fix)
    return Finding(topic=topic, says=f"{folder}, {free_space(folder)}")


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


def free_space(folder: str | Path) -> str:
    """How much fits on a folder's disk: `123 GiB free`."""
    return f"{shutil.disk_usage(folder).free / 2**30:,.0f} GiB free"


def is_nearly_full(folder: str | Path) -> bool:
    """Whether less than LITTLE_DISK_GIB fits on a folder's disk."""
    return shutil.disk_usage(folder).free < LITTLE_DISK_GIB * 2**30
