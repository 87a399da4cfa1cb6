"""Which files a prediction is asked for, and where each result goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from pointseg.files import SUFFIXES, cloud_suffix

COPC_SUFFIX = ".copc.laz"
COLMAP = ("cameras.txt", "images.txt", "points3D.txt")
"""Files of a text model, which are no clouds where the first two lie together."""


@dataclass(frozen=True)
class Source:
    """One cloud to be read, a file or a folder of arrays, and the one to be written."""

    path: Path
    target: Path


def find_sources(inputs: Sequence[Path], out: Path) -> list[Source]:
    """Files as they were named, folders walked in alphabetical order.

    A result has the name of its file, below ``out``; below folders also the folders in between. ``out``
    is itself the result where there is one file, and ``out`` ends as a cloud's file does. What is below
    ``out`` is no source, and neither is what is hidden or of a COLMAP model.

    Raises:
        UserError: a path that is not there, no cloud at all, two results with one name, a result
            that would replace its source.
    """
    found: list[tuple[Path, Path]] = []
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path}: is not there")
        if path.is_dir() and cloud_suffix(path) is None:
            clouds = [(cloud, _name(cloud.relative_to(path))) for cloud in _walk(path, out)]
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
                f"-o {out}: must be a folder, for there are {len(found)} clouds to predict"
            )
        return [_checked(Source(found[0][0], out))]
    if out.is_file():
        raise UserError(f"-o {out}: must be a folder, or end as a cloud's file does")
    by_target: dict[Path, Path] = {}
    for path, name in found:
        target = out / name
        if target in by_target:
            raise UserError(
                f"{path} and {by_target[target]} would both become {target}; predict them with "
                "different -o"
            )
        by_target[target] = path
    return [_checked(Source(path, target)) for target, path in by_target.items()]


def _name(path: Path) -> Path:
    """What a result is called: as its source, but that cloud-optimised LAZ becomes plain LAZ."""
    if not path.name.lower().endswith(COPC_SUFFIX):
        return path
    return path.with_name(path.name[: -len(COPC_SUFFIX)] + path.suffix)


def _checked(source: Source) -> Source:
    if source.target.exists() and source.target.samefile(source.path):
        raise UserError(f"{source.path}: the result would replace it; choose another -o")
    return source


def _walk(folder: Path, out: Path) -> Iterator[Path]:
    spared = out.resolve()
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    is_model = set(COLMAP[:2]) <= {entry.name for entry in entries}
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or path.resolve() == spared:
            continue
        if is_model and entry.name in COLMAP:
            continue
        if cloud_suffix(path) is not None:
            yield path
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(path, out)
