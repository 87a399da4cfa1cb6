"""Folders that one process at a time may work in: locks that end with their process, however it ends."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

LOCKED_AT = 1 << 30
"""The byte that is locked, behind all content: Windows keeps others from reading what is locked."""
HELD_BY_ANOTHER = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
"""What systems say of a file that another process has locked; other errors say that there are no locks."""
PATIENCE_S, PAUSE_S = 2.0, 0.05
"""How long a lock is waited for, and between tries: a killed process holds its own until its memory is given back."""

_held: set[str] = set()
"""Locks of this process, as absolute paths."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as it says itself."""

    pid: int = 0
    """Its number; 0: it is not known."""
    host: str = ""
    """The name of its machine."""
    command: str = ""
    """What it runs; empty if it does not say."""

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        where = "" if self.host == platform.node() else f" on {self.host}"
        return f"process {self.pid}{where}" + (f" ({self.command})" if self.command else "")


class HeldError(Exception):
    """A lock that another process holds."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(str(holder))
        self.holder = holder
        """That process."""


@contextmanager
def hold(path: Path, *, private: bool = False) -> Iterator[None]:
    """Keep other processes from whatever a lock file stands for, until the block ends.

    A lock ends with its process: what a killed one leaves is taken over. Processes that are forked meanwhile do not
    hold it. On a disk without locks, a process of this machine that the file names and that still runs counts as the
    holder.

    Args:
        path: the lock file, in a folder that is made if need be; it is removed at the end.
        private: whether the file leaves out the command, which may name folders.

    Raises:
        HeldError: another process holds it, and still does after ``PATIENCE_S``, or this one does already.
        OSError: the system refuses to write there.
    """
    name = os.path.abspath(path)
    if name in _held:  # opening the file again would end the lock on some systems
        raise HeldError(_this_process(private=private))
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = _locked(path, _this_process(private=private))
    _held.add(name)
    try:
        yield
    finally:
        _held.discard(name)
        _release(path, stream)


def is_held_here(path: Path) -> bool:
    """Whether this process holds a lock."""
    return os.path.abspath(path) in _held


def holder_of(path: Path) -> Holder | None:
    """The process that holds a lock, this one included; None if none does.

    Raises:
        OSError: the file cannot be opened.
    """
    if is_held_here(path):  # opening the file again would end the lock on some systems
        return _this_process(private=True)
    try:
        with open(path, "r+b") as stream:
            return None if _is_free(path, stream) else _read_holder(path)
    except FileNotFoundError:
        return None


def _locked(path: Path, holder: Holder) -> IO[bytes]:
    """The lock file, locked, with a word on who holds it."""
    refused_at = time.monotonic() + PATIENCE_S
    while True:
        stream = open(path, "a+b")  # noqa: SIM115  (stays open as long as the lock is held)
        try:
            is_free = _is_free(path, stream)
            if is_free and _is_still(path, stream):
                _write_holder(stream, holder)
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()
        if is_free:
            continue  # its former holder has just removed it
        if time.monotonic() >= refused_at:
            raise HeldError(_read_holder(path))
        time.sleep(PAUSE_S)


def _is_free(path: Path, stream: IO[bytes]) -> bool:
    """Whether no other process holds the lock; it is locked then, if its disk knows locks."""
    try:
        return _lock(stream) or not _runs_here(_read_holder(path))
    except BlockingIOError:
        return False


def _lock(stream: IO[bytes]) -> bool:
    """Lock a file until it is closed; False if its disk knows no locks.

    Raises:
        BlockingIOError: another process has locked it.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            stream.seek(LOCKED_AT)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # of the process, not of the open file: data loaders that outlive a killed process do not hold it
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, LOCKED_AT)
    except OSError as error:
        if error.errno in HELD_BY_ANOTHER:
            raise BlockingIOError(error.errno, str(error)) from error
        return False
    return True


def _is_still(path: Path, stream: IO[bytes]) -> bool:
    """Whether an open file is the one that others find under the name."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except OSError:
        return False


def _release(path: Path, stream: IO[bytes]) -> None:
    with suppress(OSError):
        if sys.platform == "win32":  # removes no open files
            stream.close()
        path.unlink(missing_ok=True)
    stream.close()


def _this_process(*, private: bool) -> Holder:
    if private:
        return Holder(os.getpid(), platform.node())
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    return Holder(os.getpid(), platform.node(), f"{command:.200}")


def _write_holder(stream: IO[bytes], holder: Holder) -> None:
    stream.truncate(0)
    stream.write(json.dumps(asdict(holder)).encode())
    stream.flush()


def _read_holder(path: Path) -> Holder:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return Holder()


def _runs_here(holder: Holder) -> bool:
    import psutil

    if holder.pid in (0, os.getpid()) or holder.host != platform.node():
        return False
    try:  # a process that has ended keeps its number until its parent asks for its exit status
        return psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
