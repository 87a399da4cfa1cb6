"""nnU-Net's cascade: a model whose input includes the labels of another, and where that one is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from dinomed3d.inference.models.model_files import (
    MANIFEST,
    PREVIOUS,
    ModelFiles,
    open_model_files,
)
from dinomed3d.inference.models.validate_plans import previous_stage_of
from dinomed3d.runtime.errors import UserError


def open_cascade_files(path: Path) -> ModelFiles:
    """As `open_model_files`; of several models that are one cascade, the files of its last one.

    Raises:
        UserError: as `open_model_files`.
    """
    return open_model_files(path, choose=_last_stage)


def previous_files(files: ModelFiles, configuration: str, previous: str) -> ModelFiles:
    """The files of the first model of a cascade.

    nnU-Net lays both out next to each other (`Trainer__Plans__3d_lowres` next to
    `Trainer__Plans__3d_cascade_fullres`), in nnUNet_results and in the zips that it exports. A package
    of ours holds it in a folder of its own.

    Args:
        files: of the second model.
        configuration: of the second model.
        previous: configuration of the first model.

    Raises:
        UserError: it is not there.
    """
    place = _place(files, configuration, previous)
    if place is not None:
        path, root = place
        try:
            return open_model_files(path, root=root)
        except UserError:
            pass  # says only that nothing is there; what belongs there is said below
    where = "in the same zip" if files.members is not None else "next to it"
    if place is not None:
        where += f", as {place[0] if place[1] is None else place[1].rstrip('/')}"
    raise UserError(
        f"model {files.path}: is the second of a cascade and needs the labels of the first, {previous}, which was "
        f"not found {where}; put its trained-model folder there as nnU-Net lays them out, or use the model of "
        "another configuration"
    )


def _place(files: ModelFiles, configuration: str, previous: str) -> tuple[Path, str | None] | None:
    """Path, and the folder in a zip, at which the first model belongs; None where names do not tell."""
    if MANIFEST in files.sizes:
        if files.members is None:
            return files.path / PREVIOUS, None
        return files.path, f"{files.root}{PREVIOUS}"
    folder = Path(os.path.abspath(files.path)) if files.members is None else None
    name = folder.name if folder is not None else PurePosixPath(files.root).name
    if not name.endswith(f"__{configuration}"):
        return None
    name = name.removesuffix(configuration) + previous
    if folder is not None:
        return folder.parent / name, None
    parent = PurePosixPath(files.root).parent
    return files.path, f"{parent / name}/"


def _last_stage(roots: Iterable[str], read: Callable[[str], bytes]) -> str | None:
    """The one of several models that all others precede in a cascade; None if there is none.

    Args:
        roots: folders of the models.
        read: root -> content of its plans.json.
    """
    names = {root.rstrip("/"): root for root in roots}
    for name, root in names.items():
        stages, current = {name}, name
        while True:
            prefix, _, configuration = current.rpartition("__")
            previous = previous_stage_of(read(names[current]), configuration)
            current = f"{prefix}__{previous}"
            if previous is None or current not in names or current in stages:
                break
            stages.add(current)
        if stages == names.keys():
            return root
    return None
