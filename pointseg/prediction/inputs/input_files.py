"""The files to predict, and where each result goes."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from pointseg.files import SUFFIXES, cloud_name, cloud_suffix, result_suffix

COPC_SUFFIX = ".copc.laz"
COLMAP = ("cameras.txt", "images.txt", "points3D.txt")
"""Files of a COLMAP text model, which are not clouds if the first two are in one folder."""


@dataclass(frozen=True)
class Source:
    """A cloud to read, which is a file or a folder of arrays, and the file to write."""

    path: Path
    """The input."""
    target: Path
    """The result."""


def find_sources(inputs: Sequence[Path], out: Path) -> list[Source]:
    """List the given files, and those in the given folders in alphabetical order.

    A result has the name of its file, below ``out``, with the subfolders in which the file was found. ``out``
    is the result itself if there is one file and ``out`` has the ending of a cloud. Files below ``out``, hidden
    files and files of a COLMAP model are skipped.

    Raises:
        UserError: a path that does not exist, no clouds, two results with one name, a result that would
            replace its input.
    """
    found: list[tuple[Path, Path]] = []
    for path in inputs:
        if not path.exists():
            pattern = (
                "; no file fits this pattern, or the shell fills in none (Windows): give the folder"
            )
            raise UserError(f"{path}: does not exist{pattern if '*' in path.name else ''}")
        if path.is_dir() and cloud_suffix(path) is None:
            clouds = [(cloud, _name(cloud.relative_to(path))) for cloud in walk_clouds(path, out)]
            if not clouds:
                raise UserError(
                    f"{path}: no clouds in this folder and those below it (files that end in "
                    f"{', '.join(SUFFIXES)}, or folders with coord.npy)"
                )
            found += clouds
        else:
            found.append((path, _name(Path(path.resolve().name))))
    if cloud_suffix(out) and not out.is_dir():
        if len(found) > 1:
            raise UserError(
                f"-o {out}: must be a folder, because there are {len(found)} clouds to predict"
            )
        return [_checked(Source(found[0][0], out))]
    if out.is_file():
        raise UserError(f"-o {out}: must be a folder, or have the ending of a cloud")
    sources = [Source(path, out / name) for path, name in found]
    _check_distinct(sources)
    return [_checked(source) for source in sources]


def _check_distinct(sources: Sequence[Source]) -> None:
    """Refuse results that would replace each other, or another input, here or where they are copied to."""
    owners: dict[str, tuple[Source, Path]] = {}
    for source in sources:
        for file in _written(source.target):
            other, theirs = owners.setdefault(_key(file), (source, file))
            if other is not source:
                alike = (
                    "" if file == theirs else f" ({theirs.name} is the same file on many systems)"
                )
                raise UserError(
                    f"{other.path} and {source.path} would both write {file}{alike}; predict them with different -o, "
                    "or rename one"
                )
    inputs = {_identity(source.path): source for source in sources}
    for source in sources:
        replaced = inputs.get(_identity(source.target)) if source.target.exists() else None
        if replaced not in (None, source):
            raise UserError(
                f"{source.path}: the result would replace {source.target}, another input; choose another -o"
            )


def _written(target: Path) -> Iterator[Path]:
    """The files that hold the result."""
    yield target
    if (cloud_suffix(target) or "").endswith(".bin"):
        yield target.with_name(f"{cloud_name(target)}.label")


def _key(path: Path) -> str:
    """The same for names that some system takes for one."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _identity(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_dev, state.st_ino


def _name(path: Path) -> Path:
    """The name of a result: as its input, but COPC becomes plain LAZ, and types without a place for classes PLY."""
    ending, result = cloud_suffix(path) or "", result_suffix(path)
    if ending != result:
        return path.with_name(path.name[: len(path.name) - len(ending)] + result)
    if not path.name.lower().endswith(COPC_SUFFIX):
        return path
    return path.with_name(path.name[: -len(COPC_SUFFIX)] + path.suffix)


def _checked(source: Source) -> Source:
    if source.target.exists() and source.target.samefile(source.path):
        raise UserError(f"{source.path}: the result would replace it; choose another -o")
    return source


def walk_clouds(folder: Path, out: Path | None = None) -> Iterator[Path]:
    """The clouds in a folder and those below it, in alphabetical order.

    Args:
        folder: where to look; hidden files and files of a COLMAP model are skipped.
        out: folder or file that is skipped.
    """
    skipped = None if out is None else out.resolve()
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    is_model = set(COLMAP[:2]) <= {entry.name for entry in entries}
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or path.resolve() == skipped:
            continue
        if is_model and entry.name in COLMAP:
            continue
        if cloud_suffix(path) is not None:
            yield path
        elif entry.is_dir(follow_symlinks=False):
            yield from walk_clouds(path, out)
