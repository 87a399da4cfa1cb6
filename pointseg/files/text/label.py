"""Clouds of text copied with a class at the end of each line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.columns.names import COLOR
from pointseg.files.labelling.labels import Labels
from pointseg.files.table.text_rows import as_texts
from pointseg.files.text.encoding import encoding_of, open_text
from pointseg.files.text.layout import layout_of
from pointseg.files.text.numbers import split_line
from pointseg.files.text.points import table_of
from pointseg.files.text.read import names_of
from pointseg.files.text.write import header_line


def label_text(
    source: Path, target: Path, labels: Labels, columns: Sequence[str] | None = None
) -> None:
    """Copy a cloud of text with a class, and what else labels have, at the end of each line; other text stays as it is.

    A file without names gets a line of names, those of ``columns`` if given.
    """
    layout = layout_of(source)
    table = table_of(source, layout)
    names = names_of(source, layout, table, columns)
    labels = labels.checked(source, len(table))
    taken = (*names, *layout.names)  # which may have been replaced
    values = _painted(names, table, labels) | {labels.field_in(source, taken): labels.whole}
    values.update(zip(labels.added_names(taken), labels.added_values(), strict=True))
    texts = {name: as_texts(column) for name, column in values.items()}
    if layout.has_decimal_commas:
        texts = {name: [text.replace(".", ",") for text in new] for name, new in texts.items()}
    replaced = {names.index(name): new for name, new in texts.items() if name in names}
    added = {name: new for name, new in texts.items() if name not in names}
    delimiter = layout.delimiter or " "
    encoding, errors = encoding_of(source, copy=True)
    with new_file(target) as part, open_text(source) as old, \
            open(part, "w", encoding=encoding, errors=errors, newline="") as stream:  # fmt: skip
        row = 0
        for number, line in enumerate(old):
            body = line.rstrip().rstrip(",;")
            end = "\r\n" if line.endswith("\r\n") else "\n"
            if number == layout.header:
                stream.write(delimiter.join([body, *added]) + end)
                continue
            if not layout.is_point(number, line):
                stream.write(line)
                continue
            if row == 0 and not layout.names:
                stream.write(header_line(target, [*names, *added], delimiter) + end)
            if replaced:
                words = split_line(body, layout.delimiter)
                for column, new in replaced.items():
                    words[column] = new[row]
                body = delimiter.join(words)
            stream.write(delimiter.join([body, *(new[row] for new in added.values())]) + end)
            row += 1


def _painted(
    names: Sequence[str], table: NDArray[np.float64], labels: Labels
) -> dict[str, NDArray[Any]]:
    """Columns of colour by name, if labels have colours, in the range of those that they replace."""
    if labels.colors is None:
        return {}
    painted, lower = labels.paint(labels.whole), [name.lower() for name in names]
    keys = next((c for c in COLOR if all(name in lower for name in c)), None)
    if keys is None:
        return dict(zip(COLOR[0], painted.T, strict=True))
    columns = [lower.index(name) for name in keys]
    is_unit = table[:, columns].max(initial=0) <= 1
    new = np.round(painted / 255, 4) if is_unit else painted
    return {names[column]: new[:, i] for i, column in enumerate(columns)}
