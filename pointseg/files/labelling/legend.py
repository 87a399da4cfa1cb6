"""Comments that name the classes in a labelled copy, of types whose headers have comments."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pointseg.files.labelling.labels import Labels

LONGEST = 400
"""Bytes of a line; some readers take no longer ones than 1024."""


def legend_lines(labels: Labels, field: str, existing: Collection[str]) -> list[str]:
    """The field, a number and the class that it stands for; in the field of ASPRS codes the classes of each code.

    Args:
        labels: with the names of the classes; without, there are no lines.
        field: that holds the classes.
        existing: names of the fields that the file has.
    """
    names = [" ".join(name.split()) for name in labels.legend]
    found = [(field, number, name) for number, name in enumerate(names)]
    if names and labels.codes is not None:
        (of_codes, *_) = labels.added_names(existing)
        for code in sorted(set(labels.codes)):
            shared = [name for name, own in zip(names, labels.codes, strict=True) if own == code]
            found.append((of_codes, code, ", ".join(shared)))
    lines = (f"{where} {number} {name}".encode()[:LONGEST] for where, number, name in found)
    return [line.decode("utf-8", "ignore") for line in lines]


def is_replaced(comment: bytes, legend: Sequence[str], existing: Collection[str]) -> bool:
    """Whether a comment of the file names a class where now others are.

    Args:
        comment: without what marks it as one.
        legend: the new lines.
        existing: names of the fields that the file had: of these, all numbers have a new meaning.
    """
    words = comment.decode("utf-8", "replace").split()[:2]
    begun = [line.split()[:2] for line in legend]
    if words in begun:
        return True
    rewritten = {field for field, _ in begun} & {*existing}
    return len(words) == 2 and words[0] in rewritten and words[1].isdecimal()
