"""Pipes whose other end is closed, also as Windows reports it."""

from __future__ import annotations

import errno
import os
import sys
import threading
from types import SimpleNamespace

import pytest

from dinomed3d.runtime.commands import pipe_ends
from dinomed3d.runtime.commands.pipe_ends import unless_hung_up, wait_for_hang_up


def test_waits_until_the_other_end_is_closed() -> None:
    read, write = os.pipe()
    waiting = threading.Thread(target=wait_for_hang_up, args=(read,))
    waiting.start()
    os.write(write, b"more")
    waiting.join(0.05)
    assert waiting.is_alive()
    os.close(write)
    waiting.join(5)
    assert not waiting.is_alive()
    os.close(read)


def test_on_windows_looks_and_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([(0, 0), (3, 0), BrokenPipeError(errno.EPIPE, "the pipe has been ended")])
    asked = []

    def peek(handle: int, size: int) -> tuple[int, int]:
        asked.append((handle, size))
        found = next(looks)
        if isinstance(found, OSError):
            raise found
        return found

    def read(*_: int) -> bytes:
        raise AssertionError("a read that waits holds up everybody who asks about the pipe")

    monkeypatch.setitem(sys.modules, "_winapi", SimpleNamespace(PeekNamedPipe=peek))
    handles = SimpleNamespace(get_osfhandle=lambda pipe: 100 + pipe)
    monkeypatch.setitem(sys.modules, "msvcrt", handles)
    monkeypatch.setattr(pipe_ends, "POLL_S", 0.0)
    monkeypatch.setattr(pipe_ends, "os", SimpleNamespace(read=read))
    monkeypatch.setattr(pipe_ends, "sys", SimpleNamespace(platform="win32"))
    wait_for_hang_up(0)
    assert asked == [(100, 0)] * 3


@pytest.mark.parametrize(
    ("error", "windows", "is_quiet"),
    [
        (BrokenPipeError(errno.EPIPE, "broken"), False, True),
        (OSError(errno.EINVAL, "invalid argument"), True, True),
        (OSError(errno.EINVAL, "invalid argument"), False, False),
        (OSError(errno.ENOSPC, "full"), True, False),
    ],
)
def test_writing_to_nobody_is_quiet(error: OSError, windows: bool, is_quiet: bool) -> None:
    caught: list[OSError] = []
    try:
        with unless_hung_up(windows=windows):
            raise error
    except OSError as raised:
        caught.append(raised)
    assert caught == ([] if is_quiet else [error])
