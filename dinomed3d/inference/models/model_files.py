"""The files of one model, wherever they lie: in a folder, or in a zip somebody sent."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.safe_zip import check_archive, read_member

MANIFEST = "model.json"
"""Makes a folder or zip a package of ours."""
LARGEST_TEXT = 256 << 20
"""Bytes of a JSON file, at most."""
BLOCK = 1 << 20


@dataclass(frozen=True)
class Holdings:
    """Files by their names below the model's own folder, `/` between folders."""

    path: Path
    """The folder, or the zip."""
    members: Mapping[str, zipfile.ZipInfo] | None = None
    """Of the zip, those below the model's folder."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each file."""

    def read(self, name: str, *, largest: int | None = None) -> bytes:
        """The whole of a file.

        Args:
            name: of the file.
            largest: bytes that are expected at most.

        Raises:
            UserError: it is not there, larger, or damaged.
        """
        if name not in self.sizes:
            raise UserError(f"model {self.path}: holds no {name}")
        if self.members is not None:
            return read_member(self.path, self.members[name], max_bytes=largest)
        if largest is not None and self.sizes[name] > largest:
            raise UserError(
                f"model {self.path}: {name} has {self.sizes[name]} bytes, at most {largest} are expected"
            )
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise UserError(f"model {self.path}: {name} cannot be read ({error})") from error

    def source(self, name: str) -> Path | IO[bytes]:
        """Where a file can be read from its middle: its path, or its content where that is packed."""
        return self.path / name if self.members is None else io.BytesIO(self.read(name))

    def sha256(self, name: str) -> str:
        """Of a file, as hexadecimal."""
        if self.members is not None:
            return hashlib.sha256(self.read(name)).hexdigest()
        digest = hashlib.sha256()
        with open(self.path / name, "rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()


def open_holdings(path: Path) -> Holdings:
    """Find a model in a folder or zip.

    Args:
        path: a trained-model folder of nnU-Net v2, a zip of one, or a package of ours, packed or not.

    Raises:
        UserError: nothing there, no model, or several; says which.
    """
    if path.is_dir():
        names = {name: (path / name).stat().st_size for name in sorted(_of_a_model(path))}
        if MANIFEST in names or "plans.json" in names:
            return Holdings(path, None, names)
        raise UserError(_elsewhere(path))
    if not path.exists():
        raise UserError(
            f"model {path}: no such folder or file; give nnU-Net's folder of a trained model "
            "(nnUNet_results/DatasetXXX_Name/Trainer__Plans__configuration) or a zip of it"
        )
    if path.suffix in (".pth", ".safetensors", ".json"):
        raise UserError(
            f"model {path}: is one file of a model; give its folder (which holds plans.json), and choose with "
            "--folds and --checkpoint"
        )
    members = {member.filename: member for member in check_archive(path)}
    root = _root(path, members)
    inside = {n[len(root) :]: member for n, member in members.items() if n.startswith(root)}
    return Holdings(path, inside, {name: member.file_size for name, member in inside.items()})


def _of_a_model(folder: Path) -> Iterator[str]:
    """Names of the files in a folder that belong to a model; there may be others."""
    for pattern in ("*.json", "*.txt", "fold_*/checkpoint*.pth", "fold_*/checkpoint*.safetensors"):
        for file in folder.glob(pattern):
            if file.is_file():
                yield file.relative_to(folder).as_posix()


def _root(path: Path, members: Mapping[str, zipfile.ZipInfo]) -> str:
    """The model's folder in a zip, with a slash at its end, or nothing."""
    for wanted in (MANIFEST, "plans.json"):
        roots = sorted(name.removesuffix(wanted) for name in members if _named(name, wanted))
        if len(roots) == 1:
            return roots[0]
        if roots:
            raise UserError(
                f"model {path}: holds {len(roots)} models ({', '.join(roots)}); unpack it and give the folder of one"
            )
    raise UserError(
        f"model {path}: holds no plans.json, so no model of nnU-Net v2; it has "
        f"{', '.join(list(members)[:4]) or 'no files'}"
    )


def _named(name: str, wanted: str) -> bool:
    """Whether a member is that file, and not what macOS keeps about it."""
    return PurePosixPath(name).name == wanted and not name.startswith("__MACOSX/")


def _elsewhere(path: Path) -> str:
    """Why a folder is no model, and where one is."""
    if (path.parent / "plans.json").is_file():
        fold = path.name.removeprefix("fold_")
        return f"model {path}: is one fold of a model; give the folder above it, and --folds {fold}"
    below = sorted(
        file.parent.relative_to(path).as_posix()
        for pattern in ("*/plans.json", "*/*/plans.json")
        for file in path.glob(pattern)
    )
    if below:
        some = ", ".join(below[:5]) + (", ..." if len(below) > 5 else "")
        return f"model {path}: holds models in {some}; give the folder of one of them"
    return (
        f"model {path}: holds no plans.json; give nnU-Net's folder of a trained model "
        "(nnUNet_results/DatasetXXX_Name/Trainer__Plans__configuration)"
    )
