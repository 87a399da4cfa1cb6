"""Labelled point clouds: public datasets, your own folder, and rooms generated on the fly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pointseg.conventions import DATASETS
from pointseg.datasets.errors import DatasetError
from pointseg.plugins import FORM, is_plugin

if TYPE_CHECKING:
    from pointseg.datasets.dataset import Dataset

__all__ = ["DATASETS", "DatasetError", "open_dataset"]


def open_dataset(
    name: str, root: Path | None = None, *, config: Path | None = None, labelled: bool = True
) -> Dataset:
    """Open a dataset by name.

    Args:
        name: one of ``DATASETS``; or ``package.module:Class``, a ``Dataset`` of your own, which is imported: never
            pass a name that a file gave.
        root: its folder, as ``pointseg-prepare`` wrote it, or your own; None for ``synthetic``.
        config: the description of a ``folder`` dataset, where that is not ``root``/dataset.yaml.
        labelled: whether training and validation clouds must have labels; False to learn from images alone.

    Raises:
        DatasetError: an unknown name, a root that is missing or was not prepared, or a description that
            does not fit.
        PluginError: your own class cannot be imported, or failed.
    """
    if is_plugin(name):
        from pointseg.datasets.plugin import open_plugin

        return open_plugin(name, root, config)
    if name not in DATASETS:
        raise DatasetError(f"dataset '{name}': must be one of {', '.join(DATASETS)} or {FORM}")
    if config is not None and name != "folder":
        raise DatasetError(f"dataset '{name}': takes no description (config); only 'folder' does")
    if name == "synthetic":
        from pointseg.datasets.synthetic.dataset import Synthetic

        if root is not None:
            raise DatasetError(f"dataset 'synthetic': is generated and takes no folder, got {root}")
        return Synthetic()
    root = _existing_root(name, root)
    if name == "folder":
        from pointseg.datasets.folder.dataset import Folder

        return Folder(root, config, labelled=labelled)
    if name == "s3dis":
        from pointseg.datasets.s3dis.dataset import S3DIS

        return S3DIS(root)
    if name == "structured3d":
        from pointseg.datasets.structured3d.dataset import Structured3D

        return Structured3D(root)
    if name == "semantickitti":
        from pointseg.datasets.semantickitti.dataset import SemanticKITTI

        return SemanticKITTI(root)
    if name == "waymo":
        from pointseg.datasets.waymo.dataset import Waymo

        return Waymo(root)
    if name == "nuscenes":
        from pointseg.datasets.nuscenes.dataset import NuScenes

        return NuScenes(root)
    from pointseg.datasets.scannet.dataset import ScanNet, ScanNet200

    return ScanNet(root) if name == "scannet" else ScanNet200(root)


def _existing_root(name: str, root: Path | None) -> Path:
    if root is not None and root.is_dir():
        return root
    found = "got none" if root is None else f"{root} is {'a file' if root.exists() else 'missing'}"
    if name == "folder":
        raise DatasetError(
            f"dataset 'folder': --root must be the folder with your clouds and dataset.yaml, {found}"
        )
    raise DatasetError(
        f"dataset '{name}': --root must be the prepared data, {found}; prepare the official download with: "
        f"pointseg-prepare --dataset {name} --source DOWNLOADED --out PREPARED"
    )
