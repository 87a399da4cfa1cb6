"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys

import pytest

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import (
    WriteError,
    atomic_write,
    new_file,
    new_folder,
    remove_leftovers,
    temp_path,
    write_once,
)


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_the_name_appears_at_the_end(tmp_path):
    path = tmp_path / "deep" / "a.ply"
    with new_file(path) as part:
        part.write_text("new")
        assert not path.exists() and part.parent == path.parent and part.suffix == ".ply"
    assert path.read_text() == "new" and names(path.parent) == ["a.ply"]
    atomic_write(path, b"newer")
    assert path.read_bytes() == b"newer" and names(path.parent) == ["a.ply"]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "a.ply"
    path.write_text("old")
    with pytest.raises(RuntimeError), new_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and names(tmp_path) == ["a.ply"]


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_errors_of_the_disk_name_the_file(new, tmp_path):
    with pytest.raises(WriteError) as caught, new(tmp_path / "a.ply"):
        raise OSError(errno.ENOSPC, "No space left on device")
    error = pickle.loads(pickle.dumps(caught.value))  # as worker processes hand it on
    assert isinstance(error, UserError) and error.errno == errno.ENOSPC
    assert str(error) == f"{tmp_path / 'a.ply'}: could not be written: No space left on device"
    assert names(tmp_path) == []


def test_a_folder_replaces_an_older_one(tmp_path):
    path = tmp_path / "scene"
    for name in ("old", "new"):
        with new_folder(path) as part:
            (part / name).write_text(name)
    assert names(tmp_path) == ["scene"] and names(path) == ["new"]


def test_the_first_of_several_writers_stays(tmp_path):
    for content in (b"first", b"second"):
        write_once(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == b"first" and names(tmp_path) == ["a"]


def test_temporary_names_are_unique(tmp_path):
    assert temp_path(tmp_path / "a.nii.gz") != temp_path(tmp_path / "a.nii.gz")
    assert temp_path(tmp_path / "a.nii.gz").name.endswith(".part.a.nii.gz")


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    host = temp_path(tmp_path / "a").name[1:].split("-")[0]
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    alive = tmp_path / f".{host}-{process.pid}-00000000.part.a.nii.gz"
    others = [tmp_path / ".00000000-1-00000000.part.a.nii.gz", tmp_path / ".part.notes"]
    try:
        for path in (alive, *others):
            path.write_text("", encoding="utf-8")
        folder = alive.with_suffix(".folder")
        folder.mkdir()
        (folder / "coord.npy").write_text("", encoding="utf-8")
        now = temp_path(tmp_path / "b")
        earlier = "0" if now.name.split("-")[2][0] != "0" else "f"
        before = tmp_path / f".{host}-{os.getpid()}-{earlier * 8}.part.b"  # of the same number
        for path in (now, before):
            path.write_text("", encoding="utf-8")
        remove_leftovers([tmp_path])
        assert alive.exists() and now.exists() and not before.exists()
    finally:
        process.communicate()
    remove_leftovers([tmp_path])
    assert not alive.exists() and not folder.exists() and all(path.exists() for path in others)
