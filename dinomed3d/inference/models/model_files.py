"""The files of one model, in a folder or in a zip."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.regular_file import special_kind
from dinomed3d.runtime.files.safe_zip import check_archive, read_member

MANIFEST = "model.json"
"""This file makes a folder or zip a package of ours."""
PREVIOUS = "previous_stage/"
"""Folder of a package that holds the first model of a cascade, a package as well."""
LARGEST_TEXT = 256 << 20
"""Largest size of a JSON file, bytes."""
BLOCK = 1 << 20
_CROSSVAL = "crossval_results_folds_"
"""Beginning of folders with what nnU-Net found out about the model; masks depend on it only where it is asked for."""
MODEL_FOLDER = (
    "the folder of a trained model (nnUNet_results/DatasetXXX_Name/Trainer__Plans__configuration)"
)


@dataclass(frozen=True)
class ModelFiles:
    """Files by their names below the folder of the model, `/` between folders."""

    path: Path
    """Path of the folder or zip."""
    members: Mapping[str, zipfile.ZipInfo] | None = None
    """Members of the zip below the folder of the model; None for a folder."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Size of each file, bytes."""
    root: str = ""
    """Folder of the model in the zip, ending with a slash; empty where it has none, and for folders."""

    def read(self, name: str, *, largest: int | None = None) -> bytes:
        """Read a file of at most `largest` bytes.

        Raises:
            UserError: it is missing, larger, or damaged.
        """
        if name not in self.sizes:
            raise UserError(f"model {self.path}: has no {name}")
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
        """The path of a file, or a stream of its content if it is in a zip."""
        return self.path / name if self.members is None else io.BytesIO(self.read(name))

    def sha256(self, name: str) -> str:
        """The sha256 of a file, as hexadecimal."""
        if self.members is not None:
            return hashlib.sha256(self.read(name)).hexdigest()
        digest = hashlib.sha256()
        with open(self.path / name, "rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()


Choice = Callable[[Iterable[str], Callable[[str], bytes]], str | None]
"""From the folders of several models, and a reader of their plans, to the one that is meant; None if none is."""


def open_model_files(
    path: Path, *, root: str | None = None, choose: Choice = lambda roots, read: None
) -> ModelFiles:
    """Find a model in a folder or zip.

    Args:
        path: a trained-model folder of nnU-Net v2, a zip of one, or a package of ours, packed or not.
        root: folder of the model in the zip; None to look for it.
        choose: among several models.

    Raises:
        UserError: it does not exist, or contains no model or several.
    """
    if path.is_dir():
        names = {name: (path / name).stat().st_size for name in sorted(_names(path))}
        if MANIFEST in names or "plans.json" in names:
            return ModelFiles(path, None, names)
        chosen = _chosen_folder(path, choose)
        if chosen is not None:
            return open_model_files(chosen)
        raise UserError(_why_no_model(path))
    if not path.exists():
        raise UserError(f"model {path}: no such folder or file; give {MODEL_FOLDER} or a zip of it")
    if kind := special_kind(path):
        raise UserError(f"model {path}: is {kind}; give {MODEL_FOLDER} or a zip of it")
    if path.suffix in (".pth", ".safetensors", ".json"):
        raise UserError(
            f"model {path}: is one file of a model; give the folder that contains plans.json, and choose weights "
            "with --folds and --checkpoint"
        )
    members = {member.filename: member for member in check_archive(path)}
    root = _root(path, members, choose) if root is None else root
    inside = {n[len(root) :]: member for n, member in members.items() if n.startswith(root)}
    inside = {n: member for n, member in inside.items() if not n.startswith(PREVIOUS)}
    if not {MANIFEST, "plans.json"} & inside.keys():
        raise UserError(f"model {path}: contains no model in {root or 'it'}")
    sizes = {name: member.file_size for name, member in inside.items()}
    return ModelFiles(path, inside, sizes, root)


def _chosen_folder(path: Path, choose: Choice) -> Path | None:
    """The one that is meant of several models in the folders of a folder."""
    folders = sorted(file.parent.name for file in path.glob("*/plans.json"))
    if len(folders) < 2:
        return None

    def read(name: str) -> bytes:
        return ModelFiles(path / name, None, dict.fromkeys(["plans.json"], 0)).read("plans.json")

    chosen = choose(folders, read)
    return None if chosen is None else path / chosen


def _names(folder: Path) -> Iterator[str]:
    """Names of the files in a folder that belong to a model."""
    patterns = ("*.json", "*.txt", "fold_*/checkpoint*.pth", "fold_*/checkpoint*.safetensors")
    for pattern in (*patterns, "postprocessing.pkl", f"{_CROSSVAL}*/postprocessing.*"):
        for file in folder.glob(pattern):
            if file.is_file():
                yield file.relative_to(folder).as_posix()


def _root(path: Path, members: Mapping[str, zipfile.ZipInfo], choose: Choice) -> str:
    """The folder of the model in a zip, ending with a slash, or an empty text."""

    def read(root: str) -> bytes:
        return read_member(path, members[f"{root}plans.json"], max_bytes=LARGEST_TEXT)

    for wanted in (MANIFEST, "plans.json"):
        names = (n for n in members if not n.startswith("__MACOSX/"))
        found = {n.removesuffix(wanted) for n in names if PurePosixPath(n).name == wanted}
        roots = sorted(r for r in found if r.removesuffix(PREVIOUS) not in found - {r})
        if len(roots) == 1:
            return roots[0]
        if wanted == "plans.json" and (chosen := choose(roots, read)) is not None:
            return chosen
        if roots:
            raise UserError(
                f"model {path}: contains {len(roots)} models ({', '.join(roots)}); unpack it and give the folder of one"
            )
    raise UserError(
        f"model {path}: contains no plans.json, so no model of nnU-Net v2, but "
        f"{', '.join(list(members)[:4]) or 'no files'}"
    )


def _why_no_model(path: Path) -> str:
    """Why a folder is no model, and where one is."""
    if (path.parent / "plans.json").is_file():
        fold = path.name.removeprefix("fold_")
        return f"model {path}: is one fold of a model; give the folder above it, and --folds {fold}"
    plans = [*path.glob("*/plans.json"), *path.glob("*/*/plans.json")]
    if plans:
        folders = sorted(file.parent.relative_to(path).as_posix() for file in plans)
        some = ", ".join(folders[:5]) + (", ..." if len(folders) > 5 else "")
        return f"model {path}: contains models in {some}; give the folder of one of them"
    return f"model {path}: contains no plans.json; give {MODEL_FOLDER}"


def digest_of(path: Path) -> str:
    """The sha256 of all plans and weights of a model, to tell whether it is the same in a later run.

    Raises:
        UserError: it is no model.
    """
    files = open_model_files(path)
    kept = sorted(n for n in files.sizes if n.endswith((".json", ".pth", ".safetensors")))
    kept = [name for name in kept if not name.startswith(_CROSSVAL)]
    lines = [f"{name} {files.sha256(name)}\n" for name in kept]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
