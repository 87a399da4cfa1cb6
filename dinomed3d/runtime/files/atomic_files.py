"""Files that appear complete or not at all: written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dinomed3d.runtime.errors import UserError

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_PROCESS = secrets.token_hex(2)
_NUMBERS = itertools.count()
_TEMPORARY = re.compile(r"^\.([0-9a-f]{8})-(\d+)-([0-9a-f]{4})[0-9a-f]{4}\.part\.")


class WriteError(OSError, UserError):
    """The system refuses to write a file: its `filename`, `errno` and `strerror`."""

    def __str__(self) -> str:
        return f"{self.filename}: could not be written: {self.strerror}"


def temp_path(path: Path) -> Path:
    """A unique temporary name in the folder of `path`, with its ending; it holds machine and process.

    Args:
        path: the name that the file or folder will get.
    """
    unique = f"{_HOST}-{os.getpid()}-{_PROCESS}{next(_NUMBERS) % 0x10000:04x}"
    return path.with_name(f".{unique}.part.{path.name}")


def fsync_path(path: Path) -> None:
    """Flush a file that a library has written to the disk."""
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def move_into_place(part: Path, path: Path) -> None:
    """Flush a complete temporary file to the disk and give it its name, replacing an older file."""
    fsync_path(part)
    os.replace(part, path)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; it becomes `path` when the block ends, and is removed if it fails.

    Args:
        path: the file to write, in a folder that is made if need be; it may be the file that is read.

    Raises:
        WriteError: the system refuses to write there.
    """
    part = temp_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        move_into_place(part, path)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to write files into; it becomes `path` when the block ends, as `new_file`.

    Args:
        path: the folder to make; an older one is replaced.

    Raises:
        WriteError: the system refuses to write there.
    """
    part = temp_path(path)
    try:
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            fsync_path(file)
        if path.exists():
            shutil.rmtree(path)
        os.replace(part, path)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def new_files(folder: Path) -> Iterator[Path]:
    """A temporary folder to write files into; they move to `folder` when the block ends, `.json` files last.

    Args:
        folder: where the files belong; it is made if need be, older files of the same names are replaced.

    Raises:
        WriteError: the system refuses to write there.
    """
    part = temp_path(folder / "files")
    try:
        part.mkdir(parents=True)
        yield part
        for file in sorted(part.iterdir(), key=lambda file: (file.suffix == ".json", file.name)):
            move_into_place(file, folder / file.name)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(folder)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file, which appears under its name only when it is complete and on the disk.

    Raises:
        WriteError: the system refuses to write there.
    """
    with new_file(path) as part:
        part.write_bytes(content)


def write_once(path: Path, content: bytes) -> None:
    """Write a file unless it exists; of several processes that do so at once, the first one's stays.

    Raises:
        OSError: the system refuses to write there.
    """
    if path.exists():
        return
    part = temp_path(path)
    try:
        part.write_bytes(content)
        fsync_path(part)
        with suppress(FileExistsError):
            try:
                os.link(part, path)
            except (OSError, NotImplementedError) as error:
                if isinstance(error, FileExistsError):
                    raise
                os.replace(part, path)  # a file system without links
    finally:
        part.unlink(missing_ok=True)


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Delete temporary files and folders of killed processes of this machine; those of running ones stay."""
    import psutil

    for folder in folders:
        if not folder.is_dir():
            continue
        for path in list(folder.iterdir()):
            found = _TEMPORARY.match(path.name)
            if found is None or found[1] != _HOST:
                continue
            pid, process = int(found[2]), found[3]
            # in a container every run may have the same number
            runs = process == _PROCESS if pid == os.getpid() else psutil.pid_exists(pid)
            if runs:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):  # Windows: somebody reads it
                    path.unlink(missing_ok=True)
