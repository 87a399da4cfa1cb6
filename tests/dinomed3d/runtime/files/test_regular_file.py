"""Pipes, devices, sockets and folders in place of a file are refused at once; reading them might never end."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.models.model import open_model
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.regular_file import special_kind
from dinomed3d.runtime.files.safe_zip import check_archive
from dinomed3d.runtime.files.tensor_files import read_safetensors, read_tensor_file, read_torch
from pointseg.files import check_labelled, read_cloud
from pointseg.models.checkpoint import read_checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of Unix")
READERS = {
    "-m": open_model,
    "-i": lambda path: find_cases(path, channels=["CT"]),
    "zip": check_archive,
    "torch": read_torch,
    "safetensors": read_safetensors,
    "tensors": read_tensor_file,
    "cloud": read_cloud,
    "labelled": lambda path: check_labelled(path, path.with_name(f"other{path.suffix}")),
    "checkpoint": read_checkpoint,
}
ENDINGS = {"-m": "", "-i": ".nii.gz", "zip": ".zip", "safetensors": ".safetensors"}
CLOUDS = ("cloud", "labelled")


@pytest.fixture(autouse=True)
def in_time():
    """A reader that waits at a pipe is interrupted."""

    def stop(*_):
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 10)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


@pytest.fixture
def short():
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def special(path: Path, kind: str) -> None:
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
@pytest.mark.parametrize("reader", READERS)
def test_is_refused_by_name(short, reader, kind):
    path = short / f"x{ENDINGS.get(reader, '.ply' if reader in CLOUDS else '.pt')}"
    special(path, kind)
    with pytest.raises(UserError) as caught:
        READERS[reader](path)
    assert str(path) in str(caught.value) and f"is {kind}" in str(caught.value)


@pytest.mark.parametrize("reader", ["zip", "torch", "safetensors", "checkpoint"])
def test_a_folder_is_no_file(tmp_path, reader):
    with pytest.raises(UserError, match="is a folder"):
        READERS[reader](tmp_path)


def test_files_and_what_is_not_there_are_not_special(tmp_path):
    (tmp_path / "file").touch()
    assert special_kind(tmp_path / "file") is None
    assert special_kind(tmp_path / "absent") is None
    assert special_kind(Path("a\0b")) is None


def test_a_link_to_a_device_among_scans_is_not_called_missing(short):
    special(short / "endless.nii.gz", "a device")
    with pytest.raises(UserError, match="1 x neither file nor folder"):
        find_cases(short, channels=["CT"])
