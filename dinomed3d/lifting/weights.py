"""Find, read and load encoder checkpoints of Meta, Hugging Face, timm and our own.

A checkpoint is read without running code from it, freed of wrappers and prefixes, renamed to timm's
names (`checkpoint_layouts`), and then compared with the model key by key: a tensor that is missing,
left over or of another shape is an error.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dinomed3d.hub.ask import file_on_hub
from dinomed3d.lifting.checkpoint_layouts import WeightsError, check_periods, to_timm
from dinomed3d.runtime.files.tensor_files import TensorFileError, read_safetensors, read_tensor_file

log = logging.getLogger(__name__)

FILE_NAMES = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin")
HUB_FILE = "model.safetensors"
"""The file of a repository on the hub that holds its weights."""
ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
# Keys under which checkpoints of DINO, timm, nnU-Net and Lightning hold a state dict, outermost first.
CONTAINERS = ("teacher", "model_ema", "network_weights", "model_state_dict", "state_dict", "model")


class HubError(WeightsError):
    """The Hugging Face hub gives no weights: no network, no licence accepted, or no such repository."""


def load_weights(model: nn.Module, source: str | os.PathLike[str], *, hub_repository: str) -> None:
    """Load a checkpoint into a timm DINOv3 or DINOv2 model, completely or not at all.

    Args:
        model: timm's `Eva` (DINOv3) or `VisionTransformer` (DINOv2), changed in place.
        source: a file, a directory with one checkpoint, or "hub".
        hub_repository: Hugging Face repository with `model.safetensors`, for "hub".

    Raises:
        WeightsError: no checkpoint, an unreadable one, or one that does not match the model in every key.
    """
    path = find_weights(source, hub_repository=hub_repository)
    state = to_timm(read_checkpoint(path), model, path)
    periods = state.pop("rope_embed.periods", None)
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    shapes = [
        f"{key} is {tuple(state[key].shape)}, must be {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & state.keys())
        if state[key].shape != wanted[key].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of wrong shape", shapes),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"weights {path} do not fit the encoder (is it another size or architecture?): "
            + "; ".join(problems)
        )
    if periods is not None:
        check_periods(periods, model, path)
    model.load_state_dict(state)
    log.info("loaded %d tensors from %s", len(state), path)


def find_weights(source: str | os.PathLike[str], *, hub_repository: str) -> Path:
    """The checkpoint file that a setting names.

    Args:
        source: a file, a directory with exactly one checkpoint, or "hub".
        hub_repository: see `load_weights`.

    Raises:
        WeightsError: there is no checkpoint, or more than one; HubError: the hub gives none.
    """
    if str(source) == "hub":
        return _download(hub_repository)
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if not path.is_dir() or not str(source):  # an empty setting is not the current directory
        raise WeightsError(
            f"weights {str(source)!r}: no such file or directory. Give a checkpoint file (Meta "
            '.pth, Hugging Face or timm .safetensors), a directory with one, "hub", or "none" for '
            "random weights"
        )
    for name in FILE_NAMES:
        if (path / name).is_file():
            return path / name
    files = sorted(f for f in path.iterdir() if f.suffix in ENDINGS and not f.name.startswith("."))
    if len(files) != 1:
        found = ", ".join(f.name for f in files) or "none"
        raise WeightsError(
            f"weights {path}: the directory must hold one checkpoint ({', '.join(ENDINGS)}), "
            f"found {found}; name the file itself"
        )
    return files[0]


def _download(repository: str) -> Path:
    """`model.safetensors` of a Hugging Face repository, from the local cache if it is there: then nobody is asked."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    kept = try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(kept, str):
        log.warning("loading encoder weights of %s from the cache", repository)
        return Path(kept)
    log.warning("loading encoder weights from the hub: %s", repository)
    try:
        file_on_hub(
            repository, HUB_FILE
        )  # the download itself would try again for most of a minute
        return Path(hf_hub_download(repository, HUB_FILE))
    except Exception as error:  # the hub's client raises many kinds, from OSError to its own
        licence = (
            ", accept the model's licence there and log in with `hf auth login`"
            if "dinov3" in repository
            else ""
        )
        raise HubError(
            f"no weights from the hub repository {repository} ({type(error).__name__}): they are not in the cache "
            f"{constants.HF_HUB_CACHE}, from where they are read without a network; connect to the network "
            f"once{licence}; or set 'weights' to a checkpoint file or directory"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name, without wrappers; no code in it is executed.

    Args:
        path: a `.safetensors` file, an index of several, or a torch file.

    Raises:
        WeightsError: damaged, not a checkpoint, or one that would run code.
    """
    try:
        state = _read(path)
    except TensorFileError as error:
        raise WeightsError(f"weights {error}") from error
    while isinstance(state, Mapping):
        inner = next((state[c] for c in CONTAINERS if isinstance(state.get(c), Mapping)), None)
        if inner is None:
            break
        state = dict(inner)
    if not isinstance(state, Mapping):
        raise WeightsError(f"weights {path}: holds a {type(state).__name__}, not named tensors")
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def _read(path: Path) -> Any:
    """The content of a tensor file, or of all files of an index."""
    if not path.name.endswith(".index.json"):
        return read_tensor_file(path)
    try:
        names = sorted(
            {os.fspath(name) for name in json.loads(path.read_text())["weight_map"].values()}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"weights {path}: must be an index of Hugging Face with a 'weight_map' "
            f"({type(error).__name__}); download it again"
        ) from error
    state: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise WeightsError(f"weights {path}: the index names {name!r}, outside its folder")
        state |= read_safetensors(path.parent / name)
    return state
