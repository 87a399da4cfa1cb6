"""From a model's name on the Hugging Face hub to a file on this computer, whose checksum is the hub's."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

from dinomed3d.hub.ask import file_on_hub
from dinomed3d.hub.lookup_errors import cannot_answer, explained
from dinomed3d.hub.name import HubName, hub_name
from dinomed3d.runtime.errors import UserError

log = logging.getLogger(__name__)

GIB, MIB = 1 << 30, 1 << 20
LARGEST = 64 * GIB
"""Bytes of a file that is downloaded; more is read from no package either."""
SPARE = 64 * MIB
"""Bytes of the disk that stay free."""
COMMIT = re.compile(r"[0-9a-f]{40}")
CHECKSUM = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
"""The hub's names of contents: sha256 of large files, git's hash of small ones."""

CACHED = re.compile(
    r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})/(?P<file>.+)"
)
"""Where huggingface_hub's cache has a file of a commit."""


@dataclass(frozen=True)
class ModelKind:
    """What a command takes as a model."""

    noun: str
    """What it is called."""
    file: str
    """Its file in a repository, where the name does not say another."""
    endings: tuple[str, ...]
    """Endings of files that the command reads."""
    command: str
    """The command that predicts with it."""


VOLUME = ModelKind("a model of volumes", "model.zip", (".zip",), "dinomed3d predict")
CLOUD = ModelKind("a model of point clouds", "model.pt", (".pt",), "pointseg-predict")
WEIGHTS = replace(CLOUD, endings=(".pt", ".pth", ".safetensors", ".bin"))
"""Weights that a training on clouds may start from, of other programs, too."""
KINDS = (VOLUME, CLOUD)


@dataclass(frozen=True)
class _Remote:
    """What the hub says about a file."""

    commit: str
    checksum: str
    size: int


def local_model(source: str | os.PathLike[str], kind: ModelKind) -> Path:
    """The local file or folder of a model; `hf:owner/name` is looked up in the cache, or downloaded into it.

    The hub is asked only for names. A commit that is in the cache, and any name if HF_HUB_OFFLINE is set or the hub
    cannot be reached, is read from the cache alone. What is used is logged, with its commit.

    Args:
        source: path, or `hf:owner/name[@revision][/file]`.
        kind: of model.

    Returns:
        A path as it is, whether it exists or not; for a name the file in huggingface_hub's cache.

    Raises:
        UserError: no such model, it is not public, of another kind, too large, or not what the hub says it is; or
            the hub cannot be reached, and the cache has no copy.
    """
    name = hub_name(source)
    if name is None:
        return Path(source)
    file = name.file or kind.file
    _check_ending(name, file, kind)
    kept = _cached(name, file, name.revision)
    if kept is not None and COMMIT.fullmatch(name.revision):
        return _from_cache(name, kept, "")
    try:
        remote = _ask(name, file)
    except Exception as error:  # the hub's client raises many kinds, from OSError to its own
        if kept is not None and (reason := cannot_answer(error)):
            hint = "" if "HF_HUB_OFFLINE" in reason else "; HF_HUB_OFFLINE=1 does not ask it"
            return _from_cache(name, kept, f" ({reason}{hint})")
        raise explained(error, name, file, lambda: _advice(name, kind)) from error
    return _downloaded(name, file, remote)


def name_in_cache(path: str | os.PathLike[str]) -> str | None:
    """The name with its commit, `hf:owner/name@commit`, of a file in the cache; None for any other file."""
    found = CACHED.search(PurePath(path).as_posix())
    if found is None:
        return None
    file = None if found["file"] in {kind.file for kind in KINDS} else found["file"]
    return str(HubName(f"{found['owner']}/{found['name']}", found["commit"], file))


def name_or_path(path: str | os.PathLike[str]) -> str:
    """How results name a model: as ``name_in_cache`` does, so that others find it; any other file by its path."""
    return name_in_cache(path) or os.fspath(path)


def _check_ending(name: HubName, file: str, kind: ModelKind) -> None:
    ending = PurePosixPath(file).suffix.lower()
    if ending in kind.endings:
        return
    other = next((other for other in KINDS if ending in other.endings), None)
    raise UserError(
        f"model {name}: {file} is {other.noun}; use {other.command}"
        if other is not None
        else f"model {name}: must be a file ending in {' or '.join(kind.endings)}, got {file}"
    )


def _cached(name: HubName, file: str, revision: str) -> Path | None:
    """The file of a revision in the cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name.repository, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _ask(name: HubName, file: str) -> _Remote:
    """Ask the hub which commit the revision is, and what the file must be."""
    said = file_on_hub(name.repository, file, revision=name.revision)
    if said.commit_hash is None or said.size is None or not CHECKSUM.fullmatch(said.etag or ""):
        raise UserError(
            f"model {name}: {said.location} names no commit, size or checksum of it; if HF_ENDPOINT is set, check that "
            "it is a hub, or download the file yourself and give its path"
        )
    return _Remote(said.commit_hash, said.etag or "", said.size)


def _downloaded(name: HubName, file: str, remote: _Remote) -> Path:
    """The file of a commit, downloaded unless the cache has it."""
    from huggingface_hub import hf_hub_download

    kept = _cached(name, file, remote.commit)
    if kept is not None:
        path = kept
        log.warning("%s", _line(name, remote.commit, kept, "from the cache"))
    else:
        _check_room(name, file, remote.size)
        size = f"{remote.size / MIB:,.1f} MiB"
        log.warning("model %s: commit %s, downloading %s, %s", name, remote.commit, file, size)
        try:
            # by the revision: the cache then knows it without the hub
            path = Path(hf_hub_download(name.repository, file, revision=name.revision))
        except Exception as error:  # as above
            raise UserError(
                f"model {name}: the download of {file} was not finished ({type(error).__name__}: {error!s:.200}); run "
                "the command again"
            ) from error
    if remote.commit not in path.parts:
        raise UserError(f"model {name}: was changed on the hub meanwhile; run the command again")
    _verify(name, path, remote.checksum)
    return path


def _check_room(name: HubName, file: str, size: int) -> None:
    """Compare the size of a download with what is read at all, and with the disk."""
    from huggingface_hub import constants

    if size > LARGEST:
        raise UserError(
            f"model {name}: {file} has {size / GIB:.1f} GiB, at most {LARGEST / GIB:.0f} GiB are downloaded; if you "
            "trust it, download it yourself and give its path"
        )
    cache = Path(constants.HF_HUB_CACHE)
    place = next((folder for folder in (cache, *cache.parents) if folder.is_dir()), None)
    free = size + SPARE if place is None else shutil.disk_usage(place).free
    if free < size + SPARE:
        raise UserError(
            f"model {name}: {file} has {size / GIB:.2f} GiB, and {free / GIB:.2f} GiB are free in {cache}; make room, "
            "or set HF_HOME to a folder on another disk"
        )


def _from_cache(name: HubName, path: Path, why: str) -> Path:
    """A cached file without asking the hub; its checksum is the name that the cache keeps it under."""
    parts = path.parts
    commit = parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]
    log.warning("%s%s", _line(name, commit, path, "from the cache, without asking the hub"), why)
    kept = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
    if CHECKSUM.fullmatch(kept):  # not where the system has no links: there the hub alone knows it
        _verify(name, path, kept)
    return path


def _line(name: HubName, commit: str, path: Path, how: str) -> str:
    return (
        f"model {name}: commit {commit}, {path.name}, {path.stat().st_size / MIB:,.1f} MiB, {how}"
    )


def _verify(name: HubName, path: Path, checksum: str) -> None:
    """Compare a file with its checksum on the hub."""
    digest = hashlib.sha256()
    if len(checksum) == 40:  # small files lie in git itself
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(MIB):
            digest.update(block)
    if digest.hexdigest() != checksum:
        raise UserError(
            f"model {name}: {path} is not the file that the hub names (checksum differs): it is damaged or was "
            f"changed; delete {path.resolve()} and run the command again"
        )


def _advice(name: HubName, kind: ModelKind) -> str:
    """What to do about a repository that has no such file: what it has instead."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().list_repo_files(name.repository, revision=name.revision)
    except Exception:  # only an explanation
        return "name a file that it has"
    for other in KINDS:
        if other.file != kind.file and other.file in files:
            return f"it has {other.file}, {other.noun}: use {other.command}"
    if fitting := [file for file in files if file.endswith(kind.endings)]:
        start = HubName(name.repository, name.revision)
        return f"name one that it has: {', '.join(f'{start}/{file}' for file in fitting[:4])}"
    if any(PurePosixPath(file).name == "plans.json" for file in files) and kind is VOLUME:
        return "it has an unpacked model of nnU-Net: download it with 'hf download' and give the folder"
    some = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
    return f"it is no repository of {kind.noun.removeprefix('a ')}; it has {some or 'no files'}"
