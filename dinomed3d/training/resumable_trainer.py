"""The part of the trainer that writes checkpoints and resumes from them."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from dinomed3d import __version__
from dinomed3d.networks import NetworkSpec
from dinomed3d.training.checkpoints.checkpoint import read_checkpoint, snapshot
from dinomed3d.training.checkpoints.fold_folder import newest
from dinomed3d.training.checkpoints.pending_checkpoints import PendingCheckpoints
from dinomed3d.training.checkpoints.random_state import random_state
from dinomed3d.training.data.stage_one_loader import finish
from dinomed3d.training.settings.environment import recipe_changes, recipe_from, resumed_recipe
from dinomed3d.training.settings.nnunet_plan import stored_spec, write_spec
from dinomed3d.training.settings.recipe import Recipe
from dinomed3d.training.start.network_start import NetworkStart
from dinomed3d.training.step.distributed import gathered
from dinomed3d.training.step.optimizer import load_optimizer, set_peaks


class ResumableTrainer(nnUNetTrainer):
    """nnU-Net's trainer with our network and recipe, whose checkpoints resume exactly."""

    spec: NetworkSpec
    """The network."""
    recipe: Recipe
    """Stages, learning rates and schedule."""
    stage: int
    """The current stage, 1 or 2."""
    resumed: bool
    """Whether a checkpoint has been loaded."""
    continuing: bool
    """Whether training is to continue (--c) and no checkpoint has been loaded yet."""
    network_start: NetworkStart | None
    """What a new network starts from, until training begins."""
    running: torch.nn.Module | None
    """The network as it trains; None before the first epoch begins."""
    pending_random_states: list[dict[str, Any]]
    """Random states of a loaded checkpoint by process, until the next epoch begins."""

    pending: PendingCheckpoints
    """Checkpoints of the last whole epoch and of the best one, until they are written."""
    epoch_is_ending: bool = False
    """Whether checkpoints wait to be written, because nnU-Net saves them at the end of each epoch."""
    epoch_content: dict[str, Any] | None = None
    """Content of the checkpoints of the epoch that is ending; all of them have the same."""

    # nnU-Net assigns these without types
    network: Any
    plans_manager: PlansManager
    optimizer: torch.optim.Optimizer
    grad_scaler: torch.amp.GradScaler | None
    dataloader_train: Any
    dataloader_val: Any
    enable_deep_supervision: bool
    is_ddp: bool
    _best_ema: float | None

    def _apply_recipe(self) -> None:
        self.num_epochs = self.recipe.stage1_epochs + self.recipe.stage2_epochs
        self.num_iterations_per_epoch = self.recipe.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.recipe.val_iterations_per_epoch
        self.pending = PendingCheckpoints(minutes=self.recipe.checkpoint_minutes)

    def run_training(self) -> None:
        """As nnU-Net; if training is interrupted or fails, the last whole epoch is written first."""
        try:
            super().run_training()
        except BaseException:
            written = self.pending.write()
            latest = Path(self.output_folder, "checkpoint_latest.pth")
            if written or (self.running is not None and latest.is_file()):
                names = " and ".join(path.name for path in written)
                self.print_to_log_file(
                    f"training stopped in epoch {self.current_epoch} of {self.num_epochs}"
                    f"{f'; {names} written' if names else ''}; the same command with --c goes on from the last "
                    "whole epoch"
                )
            # left to the end of the program, their threads would report the worker processes as lost
            for loader in (self.dataloader_train, self.dataloader_val):
                finish(loader)
            raise

    def on_epoch_end(self) -> None:
        """As nnU-Net, which saves checkpoints here: they are kept, and written if it is time or a stage is over."""
        self.epoch_is_ending = True
        try:
            super().on_epoch_end()  # counts the epoch
        finally:
            self.epoch_is_ending, self.epoch_content = False, None
        is_last = self.current_epoch >= self.num_epochs  # on_train_end writes
        stage_is_over = self.recipe.stage(self.current_epoch) != self.stage
        if not is_last and (stage_is_over or self.pending.is_due()):
            self.pending.write()

    def on_train_end(self) -> None:
        """As nnU-Net, which writes checkpoint_final.pth; the best is written before."""
        self.pending.discard(Path(self.output_folder, "checkpoint_latest.pth"))  # final is newer
        self.pending.write()
        super().on_train_end()

    def save_checkpoint(self, filename: str) -> None:
        """Write everything that resuming and prediction need, atomically; while an epoch ends, let it wait.

        All processes call this, because each has random generators; the first one writes.
        """
        if self.disable_checkpointing:
            return
        content = self._content() if self.epoch_content is None else self.epoch_content
        if self.epoch_is_ending:
            self.epoch_content = content
        if self.local_rank != 0:
            return
        self.pending.keep(Path(filename), content)
        if not self.epoch_is_ending:
            self.pending.write()

    def _content(self) -> dict[str, Any]:
        """The content of a checkpoint at the end of this epoch; empty but in the first process."""
        random_states = gathered(random_state())
        if self.local_rank != 0:
            return {}
        scaler = self.grad_scaler
        content: dict[str, Any] = snapshot(
            {
                "network_weights": self.network.state_dict(),
                "optimizer_state": self.optimizer.state_dict(),
                "grad_scaler_state": scaler.state_dict() if scaler is not None else None,
                "logging": self.logger.get_checkpoint(),
                "_best_ema": self._best_so_far(),
                "current_epoch": self.current_epoch + 1,
                "init_args": self.my_init_kwargs,
                "trainer_name": self.__class__.__name__,
                "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
                "dinomed3d": {
                    "version": __version__,
                    "stage": self.stage,
                    "spec": self.spec.to_arch_kwargs(),
                    "recipe": asdict(self.recipe),
                    "random_states": random_states,
                },
            }
        )
        return content

    def _best_so_far(self) -> float | None:
        """The best moving average; nnU-Net updates its own only after writing the epoch's checkpoint."""
        averages = self.logger.get_value("ema_fg_dice", step=None)
        if self.stage == 1 or not averages:
            return None
        return float(averages[-1] if self._best_ema is None else max(self._best_ema, averages[-1]))

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Restore network, stage, optimizer, log and random generators.

        If training is to continue (--c), the checkpoint with most epochs in the folder of the given
        one counts: nnU-Net gives checkpoint_final.pth, also where a longer training has gone further.

        Raises:
            UserError: unreadable, of another trainer, or of another network than the settings say.
        """
        others = ""
        if self.continuing and isinstance(filename_or_checkpoint, str):
            filename_or_checkpoint, others = newest(Path(filename_or_checkpoint))
        verb = "Continuing from" if self.continuing else "Loaded"
        self.continuing = False
        if isinstance(filename_or_checkpoint, str):
            name, content = filename_or_checkpoint, read_checkpoint(filename_or_checkpoint)
        else:
            name, content = "checkpoint", filename_or_checkpoint
        changes = self._restore(content, name)
        self.print_to_log_file(
            f"{verb} {name}: {self.current_epoch} of {self.num_epochs} epochs done, stage "
            f"{self.recipe.stage(self.current_epoch)}; network and recipe are the checkpoint's"
            f"{f', except {changes}' if changes else ''}{others}"
        )

    def _restore(self, content: dict[str, Any], name: str) -> str:
        """Restore everything from a checkpoint; returns what the environment changes in its recipe."""
        own = content["dinomed3d"]
        changes = self._restore_settings(own, content["current_epoch"], name)
        self.network_start = None
        self.current_epoch = content["current_epoch"]
        self.stage = own["stage"]
        self.recipe.check_stage(self.stage, epoch=self.current_epoch, name=name)
        self.resumed = True
        if not self.was_initialized:
            self.initialize()
        self.network.load_state_dict(content["network_weights"])
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        load_optimizer(self.optimizer, content["optimizer_state"])
        set_peaks(self.optimizer, self.recipe, stage=self.stage)  # loading restored the former ones
        if self.grad_scaler is not None and content["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(content["grad_scaler_state"])
        self.logger.load_checkpoint(content["logging"])
        self._best_ema = content["_best_ema"]
        self.inference_allowed_mirroring_axes = content["inference_allowed_mirroring_axes"]
        self.pending_random_states = own["random_states"]
        return changes

    def _restore_settings(self, own: dict[str, Any], epoch: int, name: str) -> str:
        """Restore network and recipe; the environment may change lengths and learning rates, not the network.

        Returns:
            What the environment changes in the recipe (`recipe_changes`).
        """
        self.spec = stored = stored_spec(
            own["spec"], self.spec if self.was_initialized else None, name
        )
        write_spec(self.plans_manager.plans, self.configuration_name, stored)
        # the manager caches the old plan
        self.plans_manager = PlansManager(self.plans_manager.plans)
        self.configuration_manager = self.plans_manager.get_configuration(self.configuration_name)
        recipe = resumed_recipe(own["recipe"], os.environ).for_network(stored)
        self.recipe = recipe.resumed_in(own["stage"], epoch=epoch)
        self._apply_recipe()
        return recipe_changes(recipe_from(own["recipe"], {}).for_network(stored), self.recipe)
