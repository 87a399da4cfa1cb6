"""Names that the user gives to the columns of files without any, or over a file's own: one rule for all commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pointseg.files.columns.names import meaning_of, names_labels, tells_positions
from pointseg.files.table.errors import CloudFileError

HINT = "('columns' in dataset.yaml, --columns)"


def choices(given: Sequence[str]) -> list[list[str]]:
    """The names that a file may have been given: all, or without labels, which clouds to predict lack."""
    unlabelled = [name for name in given if not names_labels(name)]
    return [list(given)] if len(unlabelled) == len(given) else [list(given), unlabelled]


def given_names(
    path: Path, count: int, own: Sequence[str], given: Sequence[str]
) -> list[str] | None:
    """Names for the columns of a file; None: its own are to be taken.

    What is given replaces a file's own names where there are as many columns, or as many but for the labels.

    Args:
        path: the file, for messages.
        count: its columns.
        own: its names of them; () where it has none.
        given: names for the columns of all files, which the user states or a model remembers.

    Raises:
        CloudFileError: another number of columns in a file that does not name its positions; a column that is given
            another meaning than its own name has; a name twice.
    """
    if len(set(given)) != len(given):
        raise CloudFileError(path, f"the names given {HINT} must differ: {', '.join(given)}")
    for names in choices(given):
        if len(names) != count:
            continue
        for old, new in zip(own, names, strict=False):
            meant = meaning_of(old), meaning_of(new)
            if None not in meant and meant[0] != meant[1]:
                raise CloudFileError(
                    path,
                    f"calls a column '{old}' that is called '{new}' in the names given {HINT}; correct one of them",
                )
        return names
    if tells_positions(own):
        return None
    raise CloudFileError(
        path,
        f"has {count} columns without names, the names given {HINT} are {len(given)}: {', '.join(given)}; name those "
        "of this file in its first line, or give others",
    )
