"""A trained model as files for other runtimes: the network of each fold, checked, and a description."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dinomed3d.inference.deployment.agreement import Agreement, compare, random_windows
from dinomed3d.inference.deployment.description import describe, to_bytes
from dinomed3d.inference.deployment.exported_program import (
    Run,
    WindowFunction,
    read_program,
    trace,
    write_program,
)
from dinomed3d.inference.deployment.onnx_file import (
    DATA,
    check_packages,
    read_onnx,
    write_onnx,
)
from dinomed3d.inference.deployment.window_shapes import WindowShapes, window_shapes
from dinomed3d.inference.models.model import FINAL, Model, fold_weights, open_model
from dinomed3d.inference.nnunet.build_network import build_network
from dinomed3d.inference.nnunet.plan import read_plan
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_files

log = logging.getLogger(__name__)

BLOCK = 1 << 20
"""Bytes that are read at once for a checksum."""
Write = Callable[[Any, Path], None]
KINDS: Mapping[str, tuple[Write, Callable[[Path], Run]]] = {
    ".onnx": (write_onnx, read_onnx),
    ".pt2": (write_program, read_program),
}
"""Ending of a file -> what writes it, and what reads it for the comparison."""


@dataclass(frozen=True, kw_only=True)
class ExportedNetwork:
    """One network as a file."""

    path: Path
    """The file; with `.data` at its end the weights, where one file cannot hold them."""
    fold: str
    """The fold it is of."""
    shapes: WindowShapes
    """What it takes."""
    agreement: Agreement
    """How far its logits are from torch's."""
    sizes: Mapping[str, int]
    """Names and bytes of its files."""


def export_model(
    source: Path,
    out: Path,
    *,
    folds: Sequence[str] | None = None,
    checkpoint: str = FINAL,
    dynamic: bool = False,
    overwrite: bool = False,
) -> tuple[Path, list[ExportedNetwork]]:
    """Write the networks of a model, each compared with torch after writing, and a description.

    All files appear once all networks agree.

    Args:
        source: a trained-model folder of nnU-Net v2, its exported zip, or a package.
        out: a `.onnx` or `.pt2` file; several folds become `NAME_fold_F` with its ending.
        folds: to export; None for all.
        checkpoint: name of the file in each fold.
        dynamic: leave the number of windows free, and the patch where the network allows it.
        overwrite: replace existing files.

    Returns:
        The description's path, which is `out` with `.json` at its end, and the networks.

    Raises:
        UserError: as `open_model`; another ending; packages of the extra are missing; files exist; the model is the
            second of a cascade; a network that cannot be exported, or whose logits differ from torch's.
    """
    out = Path(out)
    if out.suffix not in KINDS:
        raise UserError(f"-o must name a .onnx file, or a .pt2 file of torch.export, got {out}")
    if out.suffix == ".onnx":
        check_packages()
    model = open_model(source, folds=folds, checkpoint=checkpoint)
    if model.previous is not None:
        raise UserError(
            f"model {model.source}: is the second of a cascade and reads the labels of the first, which a network "
            "alone does not; export the model of a configuration without a previous stage"
        )
    names = {fold: _name(out, model, fold) for fold in model.folds}
    description = out.with_name(f"{out.name}.json")
    if not overwrite:
        _check_free(out.parent, [description.name, *names.values()])
    plan = read_plan(model)
    with new_files(out.parent) as folder:
        exported = [
            _export(model, fold, folder / name, inputs=plan.inputs, dynamic=dynamic)
            for fold, name in names.items()
        ]
        entries = [_entry(network) for network in exported]
        content = to_bytes(describe(model, plan, exported[0].shapes, entries))
        (folder / description.name).write_bytes(content)
    return description, [replace(e, path=out.with_name(e.path.name)) for e in exported]


def _name(out: Path, model: Model, fold: str) -> str:
    """Name of a fold's file."""
    return out.name if len(model.folds) == 1 else f"{out.stem}_fold_{fold}{out.suffix}"


def _check_free(folder: Path, names: Sequence[str]) -> None:
    """Refuse names that are taken."""
    taken = [n for name in names for n in (name, name + DATA) if (folder / n).exists()]
    if taken:
        raise UserError(
            f"-o: {', '.join(str(folder / name) for name in taken)} exists; name another file, or use --overwrite"
        )


def _export(model: Model, fold: str, part: Path, *, inputs: int, dynamic: bool) -> ExportedNetwork:
    """Write one network, read it back, and compare the two."""
    write, read = KINDS[part.suffix]
    network = build_network(model, fold_weights(model, fold))
    shapes = window_shapes(network, channels=inputs, patch=model.patch, dynamic=dynamic)
    windows = random_windows(shapes.trials)
    function = WindowFunction(network, shapes.halo)
    log.warning("fold %s: written, read back and compared with torch; minutes on a CPU", fold)
    with torch.inference_mode():
        expected = [function(given) for given in windows]
    write(trace(network, shapes), part)
    return ExportedNetwork(
        path=part,
        fold=fold,
        shapes=shapes,
        agreement=compare(read(part), windows, expected, f"{part.name} (fold {fold})"),
        sizes={p.name: p.stat().st_size for p in (part, Path(f"{part}{DATA}")) if p.exists()},
    )


def _entry(network: ExportedNetwork) -> dict[str, Any]:
    """What the description says of a network that lies in the temporary folder."""
    files = [
        {"file": name, "bytes": size, "sha256": _sha256(network.path.with_name(name))}
        for name, size in network.sizes.items()
    ]
    return {
        **files[0],
        "fold": network.fold,
        "external_data": files[1:],
        "largest_difference": network.agreement.difference,
        "logits_range": network.agreement.range,
    }


def _sha256(path: Path) -> str:
    """The sha256 of a file, as hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
