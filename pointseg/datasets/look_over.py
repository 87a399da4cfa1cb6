"""All files of a dataset are looked at before work begins, so that none ends it when its turn comes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.dataset import Dataset
from pointseg.datasets.errors import DatasetError, EmptySceneError
from pointseg.datasets.named_scenes import NamedScenes

LISTED = 50
"""Scenes, at most, that a message tells of."""


@dataclass(frozen=True)
class Finding:
    """A scene that cannot be used."""

    split: str
    """Its split."""
    scene: str
    """Its name."""
    reason: str
    """What is wrong with which file, and what to do."""
    is_empty: bool
    """Whether it merely has no points."""


def look_over(dataset: Dataset, splits: Iterable[str]) -> list[Finding]:
    """Scenes of some splits that cannot be used, as far as a cheap look tells: headers, counts, sizes, small files.

    Raises:
        DatasetError: there is no such split.
    """
    if not isinstance(dataset, NamedScenes):
        return []  # a dataset of the user's own, whose files are not known
    scenes = [(split, name) for split in dict.fromkeys(splits) for name in dataset.scenes(split)]
    found = []
    for split, name in tqdm(scenes, "looking at files", file=sys.stderr, delay=2, leave=False):
        try:
            dataset.look_at(split, name)
        except UserError as error:
            is_empty = isinstance(error, EmptySceneError)
            found.append(Finding(split, name, str(error), is_empty))
        except OSError as error:  # a link without a file
            reason = f"{error.filename or f'{split}/{name}'}: {error.strerror or error}"
            found.append(Finding(split, name, reason, is_empty=False))
    return found


def leave_out(dataset: Dataset, findings: Sequence[Finding], log: Callable[[str], None]) -> None:
    """Leave the scenes without points out of a dataset, with a note; refuse all others that cannot be used.

    Args:
        dataset: which was looked over.
        findings: what was found.
        log: receives the note.

    Raises:
        DatasetError: some scene is damaged, or lacks what the dataset needs; the message tells of all of them.
    """
    damaged = [found for found in findings if not found.is_empty]
    if damaged:
        raise DatasetError(
            f"{dataset.name}: {len(damaged)} of its scenes cannot be used, nothing was begun: "
            f"{_listed([found.reason for found in damaged])}. Mend these files, or remove them from their split, and "
            "start again"
        )
    empty = [(found.split, found.scene) for found in findings]
    if empty:
        assert isinstance(dataset, NamedScenes)  # others are not looked over
        dataset.leave_out(empty)
        names = ", ".join("/".join(scene) for scene in empty[:LISTED])
        more = f" and {len(empty) - LISTED} more" if len(empty) > LISTED else ""
        log(f"{dataset.name}: left out as they have no points: {names}{more}")


def tell_remarks(dataset: Dataset, log: Callable[[str], None]) -> None:
    """Say what the user should know of the files that were looked at.

    Args:
        dataset: which was looked over.
        log: receives each remark.
    """
    if isinstance(dataset, NamedScenes):
        for line in dataset.remarks():
            log(line)


def _listed(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - LISTED} more" if len(reasons) > LISTED else ""
    return "; ".join(reason.rstrip(".") for reason in reasons[:LISTED]) + more
