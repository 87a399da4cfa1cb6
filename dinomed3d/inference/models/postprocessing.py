"""nnU-Net's postprocessing of a model: where it is, and what it does, read without running anything that it names.

`nnUNetv2_find_best_configuration` and `nnUNetv2_determine_postprocessing` leave `postprocessing.pkl`, a pickle of
functions and their arguments, and `postprocessing.json`, the same as names. nnU-Net has one such function: of the
voxels with certain labels, it keeps the largest connected component.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dinomed3d.inference.models.cascade import open_cascade_files
from dinomed3d.inference.models.model_files import ModelFiles
from dinomed3d.inference.models.validate_plans import parse
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.tensor_files import STAND_INS

Steps = tuple[tuple[int, ...], ...]
"""For each step, in their order: the labels whose voxels are one mask, of which the largest component stays."""

PACKED_POSTPROCESSING = "postprocessing.json"
"""Its name in a package, and in the folder of a model."""
_KEEP_LARGEST = "remove_all_but_largest_component_from_segmentation"
_MODULE = "nnunetv2.postprocessing.remove_connected_components"
_LABELS = "labels_or_regions"
_PLACES = re.compile(r"(crossval_results_folds_[0-9_]+/)?postprocessing\.(json|pkl)")
_LARGEST = 1 << 20
"""Bytes of a file, many more than nnU-Net writes."""
_MOST_STEPS, _MOST_LABELS = 1000, 65536
_IMPOSSIBLE = "nnUNetv2_apply_postprocessing applies it to the masks"


def postprocessing_files(files: ModelFiles, folds: Sequence[str] | None = None) -> list[str]:
    """The files of a model that may be meant, JSON before pickle; more than one if folds do not tell which.

    Args:
        files: of the model.
        folds: that are averaged; None for all.
    """
    folders: dict[str, str] = {}  # sorted, so JSON comes first
    for name in sorted(name for name in files.sizes if _PLACES.fullmatch(name)):
        folders.setdefault(name.rpartition("/")[0], name)
    if "" in folders:
        return [folders[""]]
    trained = {m[1] for name in files.sizes if (m := re.match(r"fold_(\d+)/", name))}
    chosen = sorted(trained if folds is None else {str(f) for f in folds}, key=lambda f: f.zfill(9))
    exact = f"crossval_results_folds_{'_'.join(chosen)}"
    return [folders[exact]] if exact in folders else list(folders.values())


def model_steps(path: Path, folds: Sequence[str] | None) -> Steps:
    """What a model's own postprocessing does.

    Raises:
        UserError: it has none, or several, or one that cannot be read.
    """
    files = open_cascade_files(path)
    found = postprocessing_files(files, folds)
    if not found:
        raise UserError(
            f"--postprocessing: model {path} has none (postprocessing.json or .pkl, in it or in "
            "crossval_results_folds_...); name the file that nnUNetv2_find_best_configuration wrote"
        )
    if len(found) > 1:
        raise UserError(
            f"--postprocessing: model {path} has several: {', '.join(found)}; name the file of one"
        )
    return read_steps(files.read(found[0], largest=_LARGEST), f"{path}: {found[0]}")


def file_steps(path: Path) -> Steps:
    """What the postprocessing in a file does.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"--postprocessing {path}: is too large to be one of nnU-Net's")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"--postprocessing {path}: cannot be read ({error.strerror or error})"
        ) from error
    return read_steps(content, str(path))


def read_steps(content: bytes, where: str) -> Steps:
    """Read a postprocessing, JSON or pickle.

    Args:
        content: of the file.
        where: name of the file, for messages; one that ends in `.pkl` is a pickle.

    Raises:
        UserError: it is damaged, or holds something else than nnU-Net's own function.
    """
    if where.endswith(".pkl"):
        functions, arguments = _read_pickle(content, where)
    else:
        found = parse(content, where)
        functions, arguments = found.get("postprocessing_fns"), found.get("postprocessing_kwargs")
    if (
        not isinstance(functions, list)
        or not isinstance(arguments, list)
        or not len(functions) == len(arguments) <= _MOST_STEPS
    ):
        raise UserError(f"{where}: is no postprocessing as nnU-Net writes it; copy it again")
    return tuple(
        _step(function, argument, where)
        for function, argument in zip(functions, arguments, strict=True)
    )


def to_json(steps: Steps) -> bytes:
    """The content of a `postprocessing.json`."""
    content = {
        "postprocessing_fns": [_KEEP_LARGEST] * len(steps),
        "postprocessing_kwargs": [{_LABELS: list(values)} for values in steps],
    }
    return (json.dumps(content, indent=1) + "\n").encode("ascii")


def check_labels(steps: Steps, known: Sequence[int], where: str) -> None:
    """Check that a postprocessing is about labels of the model.

    Raises:
        UserError: it names others, so it is of another model.
    """
    if strange := sorted({value for step in steps for value in step} - set(known)):
        raise UserError(
            f"--postprocessing {where}: is about labels {strange}, which this model does not predict; is it of "
            "another model?"
        )


def _step(function: object, arguments: object, where: str) -> tuple[int, ...]:
    if function != _KEEP_LARGEST:
        raise UserError(
            f"{where}: names the function {function!r}, which is not run; {_IMPOSSIBLE}"
        )
    if not isinstance(arguments, dict) or set(arguments) != {_LABELS}:
        raise UserError(
            f"{where}: {_KEEP_LARGEST} has other arguments than {_LABELS!r}; {_IMPOSSIBLE}"
        )
    values: set[int] = set()
    for count, value in enumerate(_flat(arguments[_LABELS], where)):
        if count >= _MOST_LABELS:
            raise UserError(f"{where}: names more than {_MOST_LABELS} labels; copy it again")
        values.add(value)
    return tuple(sorted(values))


def _flat(value: Any, where: str, depth: int = 0) -> Iterator[int]:
    """The labels of a label, of a region, or of a list of both: together they are one mask in any case."""
    if type(value) is int and 0 < value < _MOST_LABELS:
        yield value
    elif isinstance(value, (list, tuple)) and depth < 2:
        for part in value:
            yield from _flat(part, where, depth + 1)
    else:
        raise UserError(f"{where}: {_LABELS!r} must be labels and regions; copy it again")


class _Reader(pickle._Unpickler):  # in Python: the C one allocates as much as a bad index says
    """Takes numbers of numpy and the name of nnU-Net's function; nothing that a file names is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (_MODULE, _KEEP_LARGEST):
            return _KEEP_LARGEST
        for known in STAND_INS:
            if (module, name) == (known.__module__, known.__qualname__):
                return known
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run")


def _read_pickle(content: bytes, where: str) -> tuple[Any, Any]:
    try:
        found = _Reader(io.BytesIO(content)).load()
        functions, arguments = found
    except Exception as error:  # a damaged pickle raises anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{where}: is no postprocessing that nnU-Net wrote ({reason[:200]}); {_IMPOSSIBLE}"
        ) from error
    return functions, arguments
