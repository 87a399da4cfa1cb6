"""Folders that one process at a time may work in."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from dinomed3d.runtime.files import file_lock
from dinomed3d.runtime.files.file_lock import HeldError, hold, is_held_here

HOLDS = """
import os, sys
from pathlib import Path
from dinomed3d.runtime.files.file_lock import hold
with hold(Path(sys.argv[1])):
    if hasattr(os, "fork") and os.fork() == 0:  # as the workers of a data loader
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(file_lock, "PATIENCE_S", 0.0)


def taken(path):
    """Whether the lock could be taken."""
    with hold(path):
        return path.exists()


def test_a_lock_names_its_process_and_ends_with_it(tmp_path):
    path = tmp_path / "run" / ".lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline().strip() == b"held"
        with pytest.raises(HeldError, match=rf"process {process.pid} .*-c "):
            taken(path)
    finally:
        process.kill()  # its fork lives on, and holds nothing
        process.wait()
    assert path.exists() and taken(path)
    process.stdin.close()
    process.stdout.close()
    assert list(path.parent.iterdir()) == []


def test_a_lock_is_taken_once_and_given_back(tmp_path):
    path = tmp_path / ".lock"
    with hold(path):
        assert is_held_here(path)
        with pytest.raises(HeldError, match=f"process {os.getpid()} "):
            taken(path)
        assert path.exists()
    with pytest.raises(ValueError), hold(path):
        raise ValueError
    assert taken(path) and not path.exists() and not is_held_here(path)


def test_a_disk_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(file_lock, "_lock", lambda stream: False)
    path = tmp_path / ".lock"
    for pid, is_free in ((os.getppid(), False), (2**31 - 7, True)):
        holder = file_lock.Holder(pid, file_lock.platform.node(), "train")
        path.write_text(file_lock.json.dumps(vars(holder)), encoding="utf-8")
        if is_free:
            assert taken(path)
        else:
            with pytest.raises(HeldError, match=f"process {pid} "):
                taken(path)


@pytest.mark.skipif(sys.platform == "win32", reason="of POSIX systems")
@pytest.mark.parametrize(
    ("number", "is_held"), [(errno.EACCES, True), (errno.EAGAIN, True), (errno.ENOLCK, False)]
)
def test_what_systems_say_of_a_lock(tmp_path, monkeypatch, number, is_held):
    import fcntl

    def refuse(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    if is_held:
        with pytest.raises(HeldError, match="another process"):
            taken(tmp_path / ".lock")
    else:
        assert taken(tmp_path / ".lock")


def test_a_lock_that_is_given_back_in_a_moment_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(file_lock, "PATIENCE_S", 60.0)
    monkeypatch.setattr(file_lock, "PAUSE_S", 0.0)
    answers = iter([False, False, True])
    monkeypatch.setattr(file_lock, "_is_free", lambda path, stream: next(answers))
    assert taken(tmp_path / ".lock") and next(answers, None) is None


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="of Linux")
def test_a_process_that_ended_and_was_not_asked_for_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(file_lock, "_lock", lambda stream: False)
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        holder = file_lock.Holder(process.pid, file_lock.platform.node(), "train")
        path = tmp_path / ".lock"
        path.write_text(file_lock.json.dumps(vars(holder)), encoding="utf-8")
        assert taken(path)
    finally:
        process.wait()
