"""The encoder that training starts from, and its weights: a file, the hub, or none."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from dinomed3d.cli.doctor.folders import ONLY_TRAINING
from dinomed3d.cli.doctor.imports import REINSTALL, one_line_of
from dinomed3d.dataset.findings import Finding, State
from dinomed3d.runtime.commands.library_output import quiet
from dinomed3d.runtime.messages.shell_words import set_variable
from dinomed3d.runtime.messages.suggestion import suggestion


def encoder_weights(*, unset: State) -> Iterator[Finding]:
    """The encoder and its weights.

    Args:
        unset: how bad it is that no weights are chosen where the default ones cannot be had.
    """
    setting = os.environ.get("DINOMED3D_WEIGHTS") or "hub"
    try:
        with quiet():
            from dinomed3d.lifting import WeightsError, find_weights
            from dinomed3d.lifting.dino import (
                DEFAULT_ENCODER,
                MODELS,
                hub_repository,
                needs_licence,
            )
            from dinomed3d.lifting.missing_weights import VOLUMES
    except Exception as error:  # a library that does not load is an OSError
        says = f"dinomed3d.lifting cannot be imported: {one_line_of(error)}"
        yield Finding(topic="encoder", says=says, state="error", fix=REINSTALL)
        return
    yield from _unknown_variables()
    name = os.environ.get("DINOMED3D_ENCODER", DEFAULT_ENCODER)
    if name not in MODELS:
        fix = f"set it to one of {', '.join(MODELS)}"
        says = f"DINOMED3D_ENCODER={name} is not known{suggestion([name], MODELS)}"
        yield Finding(topic="encoder", says=says, state="error", fix=fix)
        return
    overrides = os.environ.get("DINOMED3D_ENCODER_OVERRIDES")
    yield Finding(topic="encoder", says=f"{name} with {overrides}" if overrides else name)

    if setting == "none":
        says = "none: training would start from random numbers"
        fix = f"for real work name a checkpoint: {set_variable('DINOMED3D_WEIGHTS', 'FILE')}"
        yield Finding(topic="weights", says=says, state="note", fix=fix)
    elif setting == "hub":
        advice = f"; without a licence: {VOLUMES.without_licence}" if needs_licence(name) else ""
        is_unset = not os.environ.get("DINOMED3D_WEIGHTS")
        yield _hub_weights(hub_repository(name), advice, unset if is_unset else "error")
    else:
        try:
            yield _weights_file(find_weights(setting, hub_repository=""))
        except WeightsError as error:
            fix = "set DINOMED3D_WEIGHTS to a file, a directory, 'hub' or 'none'"
            yield Finding(topic="weights", says=one_line_of(error), state="error", fix=fix)


def _unknown_variables() -> Iterator[Finding]:
    """Variables that look like ours and that nothing reads."""
    from dinomed3d.training.settings.environment import unknown_variables

    for name, meant in unknown_variables(os.environ).items():
        says, fix = f"nothing reads it{meant}", "correct its name, or unset it"
        state: State = "error" if meant else "note"
        yield Finding(topic=f"variable {name}", says=says, state=state, fix=fix)


def _weights_file(path: Path) -> Finding:
    """Check a checkpoint's outside only: reading large ones takes minutes."""
    size_mib = path.stat().st_size / 2**20
    says = f"{path}, {size_mib:.0f} MiB"
    again = f"download '{path}' again, or name another file in DINOMED3D_WEIGHTS"
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                says += f", {len(list(file.keys()))} tensors"
        elif path.suffix in (".pth", ".pt", ".bin") and not zipfile.is_zipfile(path):
            # Torch's files are zip archives; a truncated one has lost its directory.
            return Finding(
                topic="weights",
                says=f"{says}: truncated, or not a PyTorch file",
                state="error",
                fix=again,
            )
    except Exception as error:
        return Finding(
            topic="weights",
            says=f"{says}: cannot be read: {one_line_of(error)}",
            state="error",
            fix=again,
        )
    return Finding(topic="weights", says=says)


def _hub_weights(repository: str, advice: str, unreachable: State) -> Finding:
    """Whether the weights are in the hub's cache; `unreachable`: how bad it is that they cannot be downloaded."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(cached, str):
        return Finding(topic="weights", says=f"hub: {repository}, in the cache")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    return Finding(
        topic="weights",
        says=f"hub: {repository}, not in the cache"
        + (
            f" and HF_HUB_OFFLINE is set; {ONLY_TRAINING}"
            if offline
            else "; downloaded for training"
        ),
        state=unreachable if offline else "note",
        fix=f"without network: {set_variable('DINOMED3D_WEIGHTS', 'FILE')}, in Meta's, Hugging Face's or "
        f"timm's layout{advice}; for a test without weights: DINOMED3D_WEIGHTS=none",
    )
