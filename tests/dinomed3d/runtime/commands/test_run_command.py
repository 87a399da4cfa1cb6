"""Errors that end a command: one clean line and exit code 2, whatever raised them."""

from __future__ import annotations

import errno
import io
import logging
import sys

import pytest

from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.shared_memory import explain_full_shared_memory


def raised(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("\x1b[1mthe file\nmust exist"), r"\x1b[1mthe file must exist"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/out"),
            "/out: Permission denied",
        ),
        (OSError(errno.EXDEV, "Another device", "/a", None, "/b"), "/a -> /b: Another device"),
        (FileNotFoundError("No usable folder"), "No usable folder"),
        (OSError(), "OSError"),
    ],
)
def test_errors_are_one_line(capsys, error, line):
    assert run_command("name", raised(error)) == 2
    assert capsys.readouterr() == ("", f"name: {line}\n")


def test_a_bug_keeps_its_traceback_and_ctrl_c_its_code(capsys):
    with pytest.raises(RuntimeError):
        run_command("name", raised(RuntimeError("a bug")))
    assert run_command("name", raised(KeyboardInterrupt())) == 130
    assert run_command("name", lambda: 1) == 1


def test_names_that_the_terminal_cannot_show_are_printed_nevertheless(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    assert run_command("name", raised(UserError("Müller"))) == 2
    assert logging.lastResort is not None
    logging.lastResort.handle(logging.makeLogRecord({"msg": "a\x1b[2Jb", "levelno": logging.ERROR}))
    stream.flush()
    shown = stream.buffer.getvalue().decode()
    assert shown.splitlines() == [r"name: M\xfcller", r"a\x1b[2Jb"]


@pytest.mark.parametrize(
    "text",
    [
        "Caught RuntimeError ...\nunable to allocate shared memory(shm) for file </torch_7_8_0>: No space left",
        "DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that ...",
        "unable to write to file </torch_1_2_0>: No space left on device (28)",
    ],
)
def test_full_shared_memory_names_itself_and_the_way_out(capsys, text):
    assert run_command("name", raised(RuntimeError(text)), alone="--workers 1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "/dev/shm" in line
    assert "--workers 1" in line


def test_a_refused_lock_is_shared_memory_and_a_full_disk_is_not():
    full = "def write(): raise OSError(28, 'No space left on device')"
    for module, is_shared_memory in (("zipfile", False), ("multiprocessing.synchronize", True)):
        namespace = {"__name__": module}
        exec(full, namespace)  # the lock's own code is in C and raises in the line that calls it
        with pytest.raises(OSError, match="space") as caught:
            namespace["write"]()
        explained = explain_full_shared_memory(caught.value, alone="--workers 0")
        assert (explained is not None) == is_shared_memory
    exec("def write(): raise OSError(28, 'No space left on device', '/out/a')", namespace)
    with pytest.raises(OSError, match="space") as caught:
        namespace["write"]()
    assert explain_full_shared_memory(caught.value, alone="--workers 0") is None
