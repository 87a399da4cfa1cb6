"""The verb `export`: writes a trained model's network as ONNX, or as a program of torch.export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.cli.verbs.model_arguments import add_model_arguments

if TYPE_CHECKING:
    from dinomed3d.inference.deployment.export_model import ExportedNetwork

MIB = 1 << 20


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "export",
        help="write a model's network as ONNX or for torch.export",
        example="dinomed3d export liver.zip -o liver.onnx",
        description="Writes the network alone of a trained nnU-Net v2 model or of a package, in float32 (half "
        "precision is not offered), and OUT.json with everything that happens around it: channels, normalisation, "
        "spacing, resampling, windows, mirroring, labels, checksums. After writing, each file is read back and run; "
        "logits that differ from torch's by more than 1e-4 of their range are refused, and nothing is written.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "-o",
        dest="out",
        required=True,
        type=Path,
        metavar="OUT",
        help="file.onnx, or file.pt2 of torch.export; of several folds each gets a file, file_fold_F",
    )
    parser.add_argument(
        "--dynamic",
        action="store_true",
        help="leave the number of windows free, and the patch if the network is a CNN alone; with an encoder the patch "
        "is always the plan's (default: one window of the plan's patch)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the files, and print their paths with what the comparison found."""
    from dinomed3d.hub.local_model import VOLUME, local_model
    from dinomed3d.inference.deployment.export_model import export_model

    description, networks = export_model(
        local_model(arguments.model, VOLUME),
        arguments.out,
        folds=arguments.folds,
        checkpoint=arguments.checkpoint,
        dynamic=arguments.dynamic,
        overwrite=arguments.overwrite,
    )
    for network in networks:
        print(_line(network))
    print(f"{description}: what happens around {'it' if len(networks) == 1 else 'them'}")
    return 0


def _line(network: ExportedNetwork) -> str:
    """One network: its file, its input, and how far it is from torch."""
    shapes, found = network.shapes, network.agreement
    sides = " x ".join(map(str, shapes.input_shape(1, shapes.patch)[2:]))
    taken = f"one window of {sides} voxels"
    if shapes.multiple is not None:
        multiple = " x ".join(map(str, shapes.multiple))
        taken = f"any number of windows whose sides are multiples of {multiple} voxels"
    elif shapes.is_dynamic:
        taken = f"any number of windows of {sides} voxels"
    halo = f" ({shapes.halo} of them before and after the patch)" if shapes.halo else ""
    data = ""
    if len(network.sizes) > 1:
        data = f", its weights in {list(network.sizes)[1]} next to it (one file cannot hold 2 GiB)"
    return (
        f"{network.path}: fold {network.fold}, {sum(network.sizes.values()) / MIB:.1f} MiB{data}, takes {taken}{halo}; "
        f"largest difference from torch {found.difference:.2g}, {found.relative:.2g} of the logits' range"
    )
