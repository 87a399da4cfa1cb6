"""ASPRS codes of a model's classes, for ``classification`` of LAS files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.classes import ClassList


def class_codes(
    classes: ClassList,
    given: Mapping[str, int],
    *,
    keep: bool,
    log: Callable[[str], None],
    required: bool = False,
) -> tuple[int, ...] | None:
    """The code of each class, as the model knows it from its training files or as it is given.

    Args:
        classes: of the model.
        given: codes by name of class, which count more than the model's.
        keep: whether ``classification`` stays as it is.
        log: receives a note if the model knows the codes of some classes alone, or several have the same.
        required: whether every class must have a code.

    Returns:
        K codes; None: ``classification`` stays as it is.

    Raises:
        UserError: a name that is no class; classes without a code although others are given, or all are required.
    """
    if unknown := [name for name in given if name not in classes.names]:
        raise UserError(
            f"--class-code {unknown[0]}: the model's classes are {', '.join(classes.names)}"
        )
    if keep:
        if given or required:
            option = "--class-code" if given else "--write-classification"
            raise UserError(f"{option}, --keep-classification: give one or the other")
        return None
    known = classes.codes or (None,) * len(classes)
    codes = [given.get(name, code) for name, code in zip(classes.names, known, strict=True)]
    found = [code for code in codes if code is not None]
    if len(found) == len(codes):
        _tell_shared(classes, found, log)
        return tuple(found)
    missing = ", ".join(
        name for name, code in zip(classes.names, codes, strict=True) if code is None
    )
    advice = f"no ASPRS code is known for {missing}; give --class-code NAME=CODE"
    if given or required:
        raise UserError(f"{'--class-code' if given else '--write-classification'}: {advice}")
    if found:
        log(f"classification of LAS files stays as it is: {advice}")
    return None


def _tell_shared(classes: ClassList, codes: Sequence[int], log: Callable[[str], None]) -> None:
    """Say which classes share a code."""
    for code in sorted({code for code in codes if codes.count(code) > 1}):
        shared = [name for name, own in zip(classes.names, codes, strict=True) if own == code]
        log(f"classes {', '.join(shared)} have the same code, {code}, in 'classification'")
