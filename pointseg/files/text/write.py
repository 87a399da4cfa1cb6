"""Scenes as lines of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.columns.from_scene import columns_of
from pointseg.files.table.text_rows import as_texts
from pointseg.scene import Scene


def write_text(path: Path, scene: Scene) -> None:
    """A scene as text with a line of names: commas in ``.csv``, otherwise blanks and ``#``."""
    columns = columns_of(scene)
    delimiter = "," if path.suffix.lower() == ".csv" else " "
    texts = [as_texts(values) for values in columns.values()]
    names = [re.sub(r"\s", "_", name) for name in columns]
    with new_file(path) as part, open(part, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(header_line(path, names, delimiter) + "\n")
        stream.writelines(delimiter.join(row) + "\n" for row in zip(*texts, strict=True))


def header_line(path: Path, names: Sequence[str], delimiter: str) -> str:
    """The line of names of a file: a comment, but for ``.csv``."""
    mark = "" if path.suffix.lower() == ".csv" else "# "
    return mark + delimiter.join(names)
