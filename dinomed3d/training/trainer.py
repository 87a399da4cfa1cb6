"""DinoMed3DTrainer: both stages inside nnU-Net's own training loop.

nnU-Net's data loading, augmentation, losses, logging, validation and files stay as they are. What
differs: the network, the two stages, AdamW with its schedule, and checkpoints that resume exactly.
"""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from dinomed3d import __version__
from dinomed3d.errors import UserError
from dinomed3d.lifting import DinoEncoder
from dinomed3d.networks import NetworkSpec, take_foundation
from dinomed3d.training.checkpoint import (
    random_state,
    read_checkpoint,
    remove_leftovers,
    set_aside_checkpoints,
    set_random_state,
    write_checkpoint,
)
from dinomed3d.training.foundation import read_foundation
from dinomed3d.training.plan import (
    NETWORK,
    RECIPE,
    check_other_folds,
    plan_spec,
    spec_difference,
    write_spec,
)
from dinomed3d.training.precision import autocast, fast_precision
from dinomed3d.training.recipe import Recipe, recipe_from, spec_from
from dinomed3d.training.slices import foreground
from dinomed3d.training.stages import FullSizeLogits, proxy_loss


class DinoMed3DTrainer(nnUNetTrainer):
    """nnU-Net's trainer with DINO-Med3D's network and stages; works with stock plans and our own."""

    # nnU-Net assigns these without types
    network: Any
    plans_manager: PlansManager
    optimizer: torch.optim.Optimizer
    grad_scaler: torch.amp.GradScaler | None
    enable_deep_supervision: bool
    _best_ema: float | None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net reads this signature
    ) -> None:
        """Settle network and recipe, and read foundation weights, before anything is written.

        Raises:
            UserError: settings that cannot be met.
            WeightsError: no foundation weights, or ones that do not fit.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise UserError(
                "DinoMed3DTrainer: several GPUs are not supported yet; train with -num_gpus 1"
            )
        if not (nnUNet_results.is_set() and nnUNet_preprocessed.is_set()):
            raise UserError(
                "DinoMed3DTrainer: set the environment variables nnUNet_preprocessed and nnUNet_results to the "
                "folders that nnU-Net reads from and writes to"
            )
        plans = deepcopy(plans)
        planned = PlansManager(plans).get_configuration(configuration)
        self.spec = spec_from(
            self._with_prior(plan_spec(planned), planned, dataset_json), os.environ
        )
        self.spec.check_patch(planned.patch_size)
        self.recipe = self._fit_recipe(
            recipe_from(planned.configuration.get(RECIPE, {}), os.environ)
        )
        self.foundation: DinoEncoder | None = None
        name = f"{type(self).__name__}__{plans['plans_name']}__{configuration}"
        folder = Path(nnUNet_results) / plans["dataset_name"] / name
        earlier = {path.name for path in (folder / f"fold_{fold}").glob("checkpoint_*.pth")}
        if not (plans["continue_training"] and earlier):  # else load_checkpoint says what it is
            check_other_folds(folder, configuration, fold, self.spec)
            if "checkpoint_final.pth" not in earlier:  # a finished fold may only want --val
                self.foundation = read_foundation(self.spec, self.recipe.weights)
        write_spec(plans, configuration, self.spec)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self._apply_recipe()
        self.save_every = 1  # checkpoints are atomic; a kill costs at most one epoch
        self.initial_lr = self.recipe.rate_decoder
        self.weight_decay = self.recipe.weight_decay
        self.resumed = False
        self.stage = self.recipe.stage(0)
        self.iteration = 0
        self.pending_random_state: dict[str, Any] | None = None
        if fast_precision(self.device) != torch.float16:
            self.grad_scaler = None  # bfloat16 has float32's range

    # ---- settings -------------------------------------------------------------------------------

    @staticmethod
    def _with_prior(
        spec: NetworkSpec, planned: ConfigurationManager, dataset_json: dict
    ) -> NetworkSpec:
        """In nnU-Net's cascade the labels of the stage before come as channels after the image's."""
        if planned.previous_stage_name is None:
            return spec
        labels = LabelManager(dataset_json["labels"], dataset_json.get("regions_class_order"))
        return replace(spec, prior_channels=len(labels.foreground_labels))

    def _fit_recipe(self, recipe: Recipe) -> Recipe:
        """Without an encoder there is nothing for stage I to adapt."""
        return recipe if "encoder" in self.spec.parts else replace(recipe, stage1_epochs=0)

    def _apply_recipe(self) -> None:
        self.num_epochs = self.recipe.stage1_epochs + self.recipe.stage2_epochs
        self.num_iterations_per_epoch = self.recipe.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.recipe.val_iterations_per_epoch

    # ---- network, optimizer, loss ---------------------------------------------------------------

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network of the plan, encoder random: weights come afterwards, from a checkpoint or not."""
        return get_network_from_plans(
            NETWORK,
            plan_spec(configuration_manager).to_arch_kwargs(),
            [],
            num_input_channels,
            num_output_channels,
            allow_init=False,
            deep_supervision=enable_deep_supervision,
        )

    def initialize(self) -> None:
        """nnU-Net's, then the foundation weights go in, unless a checkpoint brings its own."""
        super().initialize()
        if self.resumed:
            return
        foundation = (
            read_foundation(self.spec, self.recipe.weights)
            if self.foundation is None
            else self.foundation
        )
        if self.recipe.weights == "none" and "encoder" in self.spec.parts:
            self.print_to_log_file(
                "WARNING: the encoder starts RANDOM (DINOMED3D_WEIGHTS=none), for tests and demonstrations only"
            )
        if foundation is not None:
            take_foundation(self.network, foundation)
            self.print_to_log_file(
                f"encoder {self.spec.encoder}: weights from {self.recipe.weights}"
            )
        self.foundation = None

    def _do_i_compile(self) -> bool:
        # declined until it is shown to be safe through the change of stages
        return False

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, None]:
        """AdamW over what learns in the running stage; rates are set before each step, so no scheduler."""
        self.network.begin_stage(self.stage)
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                kept = name.endswith(("cls_token", "reg_token", "pos_embed"))
                role = (name.startswith("encoder."), parameter.ndim > 1 and not kept)
                groups.setdefault(role, []).append(parameter)
        optimizer = torch.optim.AdamW(
            # by role, not by rate: a resume with other rates finds its groups again. The first one's
            # rate is what nnU-Net logs and plots: that of the parts outside the encoder
            [{"params": groups[r], "inside": r[0], "decayed": r[1]} for r in sorted(groups)],
            lr=self.recipe.rate_decoder,
            betas=(0.9, 0.98),
            fused=self.device.type in ("cuda", "cpu"),
        )
        self._set_peaks(optimizer)
        return optimizer, None

    def _set_peaks(self, optimizer: torch.optim.Optimizer) -> None:
        """Peak rates and decay of every group, as the recipe has them now."""
        r = self.recipe
        outside, inside = (
            (r.rate_proxy, r.rate_encoder) if self.stage == 1 else (r.rate_decoder, r.rate_adapters)
        )
        for group in optimizer.param_groups:
            group["peak"] = inside if group["inside"] else outside
            group["weight_decay"] = r.weight_decay if group["decayed"] else 0.0

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        if not self.enable_deep_supervision:
            return None
        levels = self.spec.levels if "encoder" in self.spec.parts else len(self.spec.detail_widths)
        heads = min(self.spec.supervised_levels, levels - 1)
        *depth, height, width = self.configuration_manager.patch_size
        # exactly the sizes that the network gives, also where a side is odd
        return [
            [1.0] * len(depth) + [-(-side // 2**head) / side for side in (height, width)]
            for head in range(heads)
        ]

    def _build_loss(self) -> nn.Module:
        """nnU-Net's loss at every supervised size; its plain form, over the whole batch, for stage I."""
        deep, self.enable_deep_supervision = self.enable_deep_supervision, False
        plain = super()._build_loss()
        self.enable_deep_supervision = deep
        self.proxy_loss = deepcopy(plain)
        self.proxy_loss.dc.batch_dice = True  # a single slice often shows no foreground at all
        scales = self._get_deep_supervision_scales()
        if scales is None:
            return plain
        weights = np.array([1 / 2**i for i in range(len(scales))])
        return DeepSupervisionWrapper(plain, weights / weights.sum())

    # ---- the loop -------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """nnU-Net's, then a first checkpoint, so that a kill at any moment can be resumed."""
        super().on_train_start()
        self.print_to_log_file(
            f"DINO-Med3D {__version__}\n{self.spec}\n{self.recipe}", add_timestamp=False
        )
        folder = Path(self.output_folder)
        remove_leftovers(folder)
        if not self.resumed and not self.disable_checkpointing:
            for kept in set_aside_checkpoints(folder):
                self.print_to_log_file(f"kept the checkpoint of an earlier run as {kept}")
            self.current_epoch -= 1  # save_checkpoint counts the running epoch as done
            self.save_checkpoint(str(folder / "checkpoint_latest.pth"))
            self.current_epoch += 1

    def on_train_epoch_start(self) -> None:
        """Change stages where it is time, restore random generators after a resume, log the rate."""
        stage = self.recipe.stage(self.current_epoch)
        if stage != self.stage:
            self.stage = stage
            self.optimizer, self.lr_scheduler = self.configure_optimizers()
            self._best_ema = None  # the proxy head's Dice says nothing about stage II's
        if self.pending_random_state is not None:
            set_random_state(self.pending_random_state)
            self.pending_random_state = None
        self.network.train()
        self.iteration = 0
        self._set_rates()
        what = "2.5D proxy task" if stage == 1 else "adapters, detail stream, decoder"
        self.print_to_log_file("")
        self.print_to_log_file(
            f"Epoch {self.current_epoch} of {self.num_epochs}, stage {stage} ({what})"
        )
        self.print_to_log_file(f"Current learning rate: {self.optimizer.param_groups[0]['lr']:.6f}")
        self.logger.log("lrs", self.optimizer.param_groups[0]["lr"], self.current_epoch)

    def _set_rates(self) -> None:
        factor = self.recipe.rate_factor(self.current_epoch, self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    def train_step(self, batch: dict) -> dict:
        """One optimizer step of the running stage; raises FloatingPointError if the loss is not finite."""
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        target = target if isinstance(target, list) else [target]
        target = [t.to(self.device, non_blocking=True) for t in target]
        self._set_rates()
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device):
            loss = self._loss(data, target)
        value = self._step(loss)
        self.iteration += 1
        return {"loss": value}

    def _loss(self, data: Tensor, target: list[Tensor]) -> Tensor:
        if self.stage == 1:
            shown = foreground(
                target[0],
                ignore_label=self.label_manager.ignore_label,
                regions=self.label_manager.has_regions,
            )
            return proxy_loss(
                self.network, data, target[0], shown, recipe=self.recipe, loss=self.proxy_loss
            )
        output = self.network(data)
        if not self.enable_deep_supervision:
            return self.loss(output.float(), target[0])
        return self.loss([x.float() for x in output], target)

    def _step(self, loss: Tensor) -> np.ndarray:
        """Backward and update; the loss as nnU-Net logs it. Nothing is updated by what is not finite."""
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        scaler = self.grad_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(learning, self.recipe.clip)
        value, norm = torch.stack([loss.detach().float(), norm.float()]).cpu().numpy()
        # with float16 an overflowing gradient is the scaler's to skip, and it lowers its scale
        if not np.isfinite(value) or (scaler is None and not np.isfinite(norm)):
            raise FloatingPointError(
                f"DinoMed3DTrainer: loss {value}, gradient norm {norm} in epoch {self.current_epoch}. Continue from "
                "the end of the epoch before with --c and lower rates (DINOMED3D_RATE_DECODER, _ADAPTERS, _ENCODER)"
            )
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        return value

    def validation_step(self, batch: dict) -> dict:
        """nnU-Net's, on the logits of the running stage and in its precision."""
        network = self.network
        scales = self._get_deep_supervision_scales()
        heads = None if scales is None else len(scales)
        self.network = FullSizeLogits(network, stage=self.stage, heads=heads)
        try:
            with autocast(self.device):
                return super().validation_step(batch)
        finally:
            self.network = network

    def on_epoch_end(self) -> None:
        """nnU-Net's; but stage I's network is never the best one to predict with."""
        if self.stage == 1:
            self._best_ema = float("inf")  # nothing is better, so no checkpoint_best
        elif self.current_epoch == self.recipe.stage1_epochs:
            # the moving average begins anew: the proxy head's Dice is no part of stage II's
            averages = self.logger.get_value("ema_fg_dice", step=None)
            averages[-1] = self.logger.get_value("mean_fg_dice", step=-1)
        super().on_epoch_end()
        if self.stage == 1:
            self._best_ema = None

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Logits of several levels, or of the finest alone."""
        self.network.decoder.deep_supervision = enabled

    # ---- checkpoints ----------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        """Everything that training goes on with and prediction needs; atomic, plain data only."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        write_checkpoint(
            {
                "network_weights": self.network.state_dict(),
                "optimizer_state": self.optimizer.state_dict(),
                "grad_scaler_state": None
                if self.grad_scaler is None
                else self.grad_scaler.state_dict(),
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
                    "random_state": random_state(),
                },
            },
            filename,
        )

    def _best_so_far(self) -> float | None:
        """nnU-Net updates its own mark only after the epoch's checkpoint is written."""
        averages = self.logger.get_value("ema_fg_dice", step=None)
        if self.stage == 1 or not averages:
            return None
        return float(averages[-1] if self._best_ema is None else max(self._best_ema, averages[-1]))

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Continue exactly there: network, stage, optimizer, log, random generators.

        Raises:
            UserError: unreadable, of another trainer, or of another network than is asked for.
        """
        content = (
            read_checkpoint(filename_or_checkpoint)
            if isinstance(filename_or_checkpoint, str)
            else filename_or_checkpoint
        )
        own = content["dinomed3d"]
        name = filename_or_checkpoint if isinstance(filename_or_checkpoint, str) else "checkpoint"
        self._take_settings(own, name)
        self.foundation = None
        self.current_epoch = content["current_epoch"]
        self.stage = own["stage"]
        if self.stage == 2 and self.recipe.stage(self.current_epoch) == 1:
            raise UserError(
                f"DinoMed3DTrainer: {name} is in stage II after {self.current_epoch} epochs, so stage I cannot be "
                f"{self.recipe.stage1_epochs} epochs long any more; unset DINOMED3D_STAGE1_EPOCHS"
            )
        self.resumed = True
        if not self.was_initialized:
            self.initialize()
        self.network.load_state_dict(content["network_weights"])
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        self.optimizer.load_state_dict(content["optimizer_state"])
        self._set_peaks(self.optimizer)  # loading brought those of the earlier run
        if self.grad_scaler is not None and content["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(content["grad_scaler_state"])
        self.logger.load_checkpoint(content["logging"])
        self._best_ema = content["_best_ema"]
        self.inference_allowed_mirroring_axes = content["inference_allowed_mirroring_axes"]
        self.pending_random_state = own["random_state"]

    def _take_settings(self, own: dict[str, Any], name: str) -> None:
        """Network and recipe of the checkpoint; the environment may change lengths and rates, not the network."""
        stored = NetworkSpec.from_arch_kwargs(own["spec"])
        if spec_from(stored, os.environ) != stored:
            raise UserError(
                f"DinoMed3DTrainer: {name} holds another network than the environment asks for "
                f"({spec_difference(stored, spec_from(stored, os.environ))}); unset these DINOMED3D_ variables"
            )
        if self.was_initialized and stored != self.spec:
            raise UserError(
                f"DinoMed3DTrainer: {name} holds another network ({spec_difference(stored, self.spec)})"
            )
        self.spec = stored
        write_spec(self.plans_manager.plans, self.configuration_name, stored)
        self.plans_manager = PlansManager(
            self.plans_manager.plans
        )  # the old one remembers the old plan
        self.configuration_manager = self.plans_manager.get_configuration(self.configuration_name)
        self.recipe = self._fit_recipe(recipe_from(own["recipe"], os.environ))
        self._apply_recipe()
