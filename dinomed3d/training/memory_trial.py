"""What a trainer does about the memory of stage II before stage I begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.memory import free_bytes
from dinomed3d.training.loading_trainer import LoadingTrainer
from dinomed3d.training.step.trial_step import full_size_step, try_step, undone, without_exchange


def settle_memory(trainer: LoadingTrainer, step: Callable[[bool], int] | None = None) -> None:
    """Make sure that a step of stage II fits, with activation checkpointing if it must, and log its peak.

    Args:
        trainer: that is about to begin; its recipe and encoder may be changed.
        step: the step to try, for `try_step`; None for a real one of full size, which is made on CUDA alone:
            elsewhere it takes minutes, and memory that is short is swapped.

    Raises:
        UserError: it does not fit.
    """
    if step is None and trainer.device.type != "cuda":
        trainer.print_to_log_file(
            f"memory: not tried on {trainer.device.type}; 'dinomed3d explain' counts what a step takes"
        )
        return
    planned, encoder = trainer.recipe.activation_checkpointing, trainer.network.encoder
    found = try_step(
        step or (lambda checkpointing: real_step(trainer, checkpointing)),
        checkpointing=planned,
        can_recompute=encoder is not None,
    )
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()
    if found is None:
        raise UserError(refusal(trainer))
    note = ""
    if found.checkpointing and not planned:
        trainer.recipe = replace(trainer.recipe, activation_checkpointing=True)
        encoder.encoder.checkpointing = True
        note = (
            ", with activation checkpointing: without it, it does not fit, so it is ON from now on"
        )
    trainer.print_to_log_file(
        f"memory: a step of stage II takes {found.peak / 2**30:.2f} GiB{note}"
    )


def real_step(trainer: LoadingTrainer, checkpointing: bool) -> int:
    """A step of stage II on one of the validation's batches, undone; its peak in bytes."""
    deep = trainer.enable_deep_supervision
    with undone(trainer.network, stage=trainer.stage, deep_supervision=deep):
        return full_size_step(
            trainer.network,
            next(trainer.dataloader_val),
            without_exchange(trainer.loss),
            device=trainer.device,
            deep_supervision=deep,
            checkpointing=checkpointing,
            halo=trainer.halo,
        )


def available_gib(device: torch.device) -> int:
    """Whole GiB that this process can have on a device, at least 1."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    else:
        free = free_bytes()
    return max(1, int(free / 2**30))


def refusal(trainer: LoadingTrainer) -> str:
    """The line for a plan that does not fit."""
    number = int(trainer.plans_manager.dataset_name.removeprefix("Dataset").partition("_")[0])
    patch = " x ".join(map(str, trainer.configuration_manager.patch_size))
    gib = available_gib(trainer.device)
    return (
        f"DinoMed3DTrainer: a step of stage II on {trainer.batch_size} patches of {patch} voxels does not fit into "
        f"the {gib} GiB that are available, with activation checkpointing neither; plan for them: "
        f"nnUNetv2_plan_and_preprocess -d {number} -pl DinoMed3DPlanner -gpu_memory_target {gib}, and train with "
        "-p DinoMed3DPlans"
    )
