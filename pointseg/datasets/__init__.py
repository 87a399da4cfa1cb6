"""Labelled clouds: public datasets, a person's own, and rooms generated on the fly."""

from __future__ import annotations

from pathlib import Path

from pointseg.datasets.dataset import ClassList, Dataset, DatasetError
from pointseg.datasets.scale import check_scale

__all__ = ["DATASETS", "ClassList", "Dataset", "DatasetError", "check_scale", "open_dataset"]

DATASETS = (
    "synthetic",
    "folder",
    "scannet",
    "scannet200",
    "s3dis",
    "semantickitti",
    "nuscenes",
)
"""What :func:`open_dataset` knows."""


def open_dataset(
    name: str, root: Path | None = None, *, config: Path | None = None, labelled: bool = True
) -> Dataset:
    """A dataset by name.

    Args:
        name: one of ``DATASETS``.
        root: its folder, as ``pointseg-prepare`` left it, or one's own; ``synthetic`` has none.
        config: for ``folder``: its description, where that is not ``root``/dataset.yaml.
        labelled: whether what is learned from must have labels: False for learning from images.

    Raises:
        DatasetError: an unknown name, a root that is missing or was not prepared, a description that
            does not fit.
    """
    if name not in DATASETS:
        raise DatasetError(f"dataset '{name}': unknown; there are: {', '.join(DATASETS)}")
    if config is not None and name != "folder":
        raise DatasetError(f"dataset '{name}': has no description to give; only 'folder' takes one")
    if name == "synthetic":
        from pointseg.datasets.synthetic.dataset import Synthetic

        if root is not None:
            raise DatasetError("dataset 'synthetic': is generated on the fly and takes no folder")
        return Synthetic()
    root = _existing_root(name, root)
    if name == "folder":
        from pointseg.datasets.folder.dataset import Folder

        return Folder(root, config, labelled=labelled)
    if name == "scannet":
        from pointseg.datasets.scannet.dataset import ScanNet

        return ScanNet(root)
    if name == "scannet200":
        from pointseg.datasets.scannet.dataset import ScanNet200

        return ScanNet200(root)
    if name == "s3dis":
        from pointseg.datasets.s3dis.dataset import S3DIS

        return S3DIS(root)
    if name == "semantickitti":
        from pointseg.datasets.semantickitti.dataset import SemanticKITTI

        return SemanticKITTI(root)
    from pointseg.datasets.nuscenes.dataset import NuScenes

    return NuScenes(root)


def _existing_root(name: str, root: Path | None) -> Path:
    found = "none was given" if root is None else f"{root} is not there"
    if root is not None and root.is_dir():
        return root
    if root is not None and root.exists():
        found = f"{root} is a file"
    if name == "folder":
        raise DatasetError(
            f"dataset 'folder': --root must name the folder with your clouds and its dataset.yaml, {found}"
        )
    raise DatasetError(
        f"dataset '{name}': --root must name the prepared data, {found}; prepare it from the official "
        f"download with: pointseg-prepare --dataset {name} --source DOWNLOADED --out PREPARED"
    )
