"""Clouds in the subfolders of a split's folder, which the folder's name does not name."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pointseg.files import SUFFIXES, cloud_suffix
from pointseg.files.arrays.folder import is_npy_folder


def unnamed_note(root: Path, split: str, folder: Path, named: Collection[Path]) -> str:
    """What to say of clouds below a folder that no split names; "" if there are none.

    Args:
        root: of the dataset.
        split: that has the clouds of the folder itself.
        folder: of clouds. Below it those of the same types count: poses of cameras are text, too.
        named: clouds of all splits.
    """
    own = {cloud_suffix(path) for path in named if path.parent == folder}
    missed = [p for p in _clouds_below(folder) if p not in named and cloud_suffix(p) in own]
    if not missed:
        return ""
    whole, below = folder.relative_to(root).as_posix(), _pattern(root, folder, missed[0])
    return (
        f"{folder}: {len(missed)} clouds in its subfolders, such as {missed[0].relative_to(root)}, are in no split; if "
        f"they belong to {split}, name them in 'splits' of the description: {split}: [{whole}, '{below}']"
    )


def pattern_below(root: Path, folders: Iterable[Path]) -> str:
    """A pattern for clouds in the subfolders of some folders; "" if there are none."""
    found = ((folder, cloud) for folder in folders for cloud in _clouds_below(folder))
    return next((_pattern(root, folder, cloud) for folder, cloud in found), "")


def _pattern(root: Path, folder: Path, cloud: Path) -> str:
    """A pattern that names one of the clouds below a folder and others like it."""
    suffix = cloud_suffix(cloud)
    if not suffix:  # a folder of arrays, which "**" would take for clouds of their own
        return cloud.parent.relative_to(root).as_posix()
    return (folder.relative_to(root) / "**" / f"*{cloud.name[-len(suffix) :]}").as_posix()


def _clouds_below(folder: Path) -> Iterator[Path]:
    """Clouds in the subfolders of a folder and those below, in order; hidden ones are none."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if here != folder and is_npy_folder(here):
            folders.clear()
            yield here
            continue
        folders[:] = sorted(name for name in folders if name[0] != ".")
        if here != folder:
            yield from (here / n for n in sorted(names) if n[0] != "." and _is_cloud(n))


def _is_cloud(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
