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
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from dinomed3d import __version__
from dinomed3d.lifting import DinoEncoder
from dinomed3d.networks import load_pretrained_encoder
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.checkpoint import (
    random_state,
    read_checkpoint,
    remove_leftovers,
    set_aside_checkpoints,
    set_random_state,
    write_checkpoint,
)
from dinomed3d.training.distributed import check_batch, gathered, processes, rank, wait
from dinomed3d.training.optimizer import build_optimizer, load_optimizer, set_peaks, set_rates
from dinomed3d.training.optimizer_step import Update, check_finite
from dinomed3d.training.plan import (
    NETWORK,
    RECIPE,
    check_other_folds,
    plan_spec,
    stored_spec,
    with_prior,
    write_spec,
)
from dinomed3d.training.precision import autocast, fast_precision
from dinomed3d.training.pretrained import read_foundation
from dinomed3d.training.recipe import Recipe, recipe_from, spec_from
from dinomed3d.training.slices import draw_slices, foreground
from dinomed3d.training.stages import FullSizeLogits, begin_stage, proxy_loss
from dinomed3d.training.wrap_ddp_compile import compiler, running_network


class DinoMed3DTrainer(nnUNetTrainer):
    """nnU-Net's trainer with DINO-Med3D's network and stages; works with stock plans and our own."""

    # nnU-Net assigns these without types
    network: Any
    plans_manager: PlansManager
    optimizer: torch.optim.Optimizer
    grad_scaler: torch.amp.GradScaler | None
    enable_deep_supervision: bool
    is_ddp: bool
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
        if not (nnUNet_results.is_set() and nnUNet_preprocessed.is_set()):
            raise UserError(
                "DinoMed3DTrainer: set the environment variables nnUNet_preprocessed and nnUNet_results to the "
                "folders that nnU-Net reads from and writes to"
            )
        plans = deepcopy(plans)
        planned = PlansManager(plans).get_configuration(configuration)
        self.spec = spec_from(with_prior(plan_spec(planned), planned, dataset_json), os.environ)
        check_batch(planned.batch_size)
        self.spec.check_patch(planned.patch_size)
        self.recipe = self._fit_recipe(
            recipe_from(planned.configuration.get(RECIPE, {}), os.environ)
        )
        self.foundation: DinoEncoder | None = None
        name = f"{type(self).__name__}__{plans['plans_name']}__{configuration}"
        folder = Path(nnUNet_results, plans["dataset_name"], name)
        earlier = {path.name for path in (folder / f"fold_{fold}").glob("checkpoint_*.pth")}
        if not (plans["continue_training"] and earlier):  # else load_checkpoint says what it is
            check_other_folds(folder, configuration, fold, self.spec)
            if "checkpoint_final.pth" not in earlier:  # a finished fold may only want --val
                self.foundation = read_foundation(self.spec, self.recipe.weights)
        write_spec(plans, configuration, self.spec)
        if rank() > 0:
            os.environ["nnUNet_wandb_enabled"] = "0"  # one training is one run there
        super().__init__(plans, configuration, fold, dataset_json, device)
        if device.type != "cuda":
            self.device = device  # several processes mean GPUs to nnU-Net
        self._apply_recipe()
        self.save_every = 1  # checkpoints are atomic; a kill costs at most one epoch
        self.initial_lr = self.recipe.rate_decoder
        self.weight_decay = self.recipe.weight_decay
        self.resumed = False
        self.stage = self.recipe.stage(0)
        self.iteration = 0
        self.running: nn.Module | None = None  # made when a stage's first epoch begins
        self.compile_backend = compiler(self.device)
        self.pending_random_states: list[dict[str, Any]] = []  # of a checkpoint, by process
        if fast_precision(self.device) != torch.float16:
            self.grad_scaler = None  # bfloat16 has float32's range

    # ---- settings -------------------------------------------------------------------------------

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
        # nnU-Net would wrap the network itself, for good; `running` is what several GPUs run
        parallel, self.is_ddp = self.is_ddp, False
        super().initialize()
        self.is_ddp = parallel
        if parallel:
            self._set_batch_size_and_oversample()
            self.loss = self._build_loss()
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
            load_pretrained_encoder(self.network, foundation)
            self.print_to_log_file(
                f"encoder {self.spec.encoder}: weights from {self.recipe.weights}"
            )
        self.foundation = None

    def _do_i_compile(self) -> bool:
        # nnU-Net would compile the network itself, for good; `running` is what is compiled
        return False

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, None]:
        """AdamW over what learns in the running stage; rates are set before each step, so no scheduler."""
        self.running = None
        begin_stage(
            self.network, self.recipe, stage=self.stage, supervised=self.enable_deep_supervision
        )
        optimizer = build_optimizer(self.network, self.recipe, stage=self.stage, device=self.device)
        self.update = Update(optimizer, clip=self.recipe.clip, scaler=self.grad_scaler)
        return optimizer, None

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
        if self.is_ddp:
            if self.local_rank == 0:
                self.do_split()  # perhaps writes it; the others read
            wait()
        super().on_train_start()
        self.print_to_log_file(
            f"DINO-Med3D {__version__}\n{self.spec}\n{self.recipe}\n"
            f"GPUs or processes: {processes()}; torch.compile: {self.compile_backend or 'off'}",
            add_timestamp=False,
        )
        folder = Path(self.output_folder)
        first = not self.resumed and not self.disable_checkpointing
        if self.local_rank == 0:
            remove_leftovers(folder)
            for kept in set_aside_checkpoints(folder) if first else []:
                self.print_to_log_file(f"kept the checkpoint of an earlier run as {kept}")
        if first:
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
        if self.running is None:
            self.running = running_network(
                self.network, stage=stage, device=self.device, backend=self.compile_backend
            )
        states, self.pending_random_states = self.pending_random_states, []
        if len(states) == processes():
            set_random_state(states[rank()])
        elif states:
            self.print_to_log_file(
                f"The checkpoint is of a training on {len(states)} GPUs, this one has {processes()}: it goes on "
                "there, but draws other patches and slices"
            )
        self.network.train()
        self.iteration = 0
        set_rates(self.optimizer, self.recipe.rate_factor(self.current_epoch, self.iteration))
        what = "2.5D proxy task" if stage == 1 else "adapters, detail stream, decoder"
        self.print_to_log_file("")
        self.print_to_log_file(
            f"Epoch {self.current_epoch} of {self.num_epochs}, stage {stage} ({what})"
        )
        self.print_to_log_file(f"Current learning rate: {self.optimizer.param_groups[0]['lr']:.6f}")
        self.logger.log("lrs", self.optimizer.param_groups[0]["lr"], self.current_epoch)

    def train_step(self, batch: dict) -> dict:
        """One optimizer step of the running stage; loss and gradient norm stay on the device."""
        data, target = batch["data"], batch["target"]
        target = target if isinstance(target, list) else [target]
        chosen = None
        if self.stage == 1:
            chosen, target = self._draw(target[0]), target[:1]
        data = data.to(self.device, non_blocking=True)
        target = [t.to(self.device, non_blocking=True) for t in target]
        set_rates(self.optimizer, self.recipe.rate_factor(self.current_epoch, self.iteration))
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device):
            loss = self._loss(data, target, chosen)
        value, norm = self.update(loss)
        self.iteration += 1
        return {"loss": value, "norm": norm}

    def _draw(self, target: Tensor) -> Tensor:
        """The slices that this step of stage I learns from, found before the batch leaves the CPU."""
        shown = foreground(
            target,
            ignore_label=self.label_manager.ignore_label,
            regions=self.label_manager.has_regions,
        )
        token = self.spec.voxels_per_token
        tokens = -(-target.shape[-2] // token) * -(-target.shape[-1] // token)
        count = self.recipe.slices_per_step(tokens, processes=processes())
        # as many in each process: no more than the smallest part of the batch has
        patches = self.configuration_manager.batch_size // processes()
        count = min(count, patches * shown[0].shape[:-2].numel())
        return draw_slices(shown, count=count, foreground_share=self.recipe.foreground_share)

    def _loss(self, data: Tensor, target: list[Tensor], chosen: Tensor | None) -> Tensor:
        assert self.running is not None, "on_train_epoch_start makes it"
        if chosen is not None:
            image = self.network.image(data)
            slices, loss = self.spec.slices, self.proxy_loss
            return proxy_loss(self.running, image, target[0], chosen, slices=slices, loss=loss)
        output = self.running(data)
        if not self.enable_deep_supervision:
            return self.loss(output.float(), target[0])
        return self.loss([x.float() for x in output], target)

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Fetch the epoch's losses; then nnU-Net's.

        Raises:
            FloatingPointError: a loss or gradient was not finite; no checkpoint knows of this epoch.
        """
        steps = [torch.stack([step["loss"], step["norm"]]) for step in train_outputs]
        values = torch.stack(steps).cpu().numpy()  # the one time that the host waits for the device
        check_finite(
            gathered(values), epoch=self.current_epoch, scaled=self.grad_scaler is not None
        )
        super().on_train_epoch_end([{"loss": loss} for loss in values[:, 0]])

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

    def on_train_end(self) -> None:
        """nnU-Net's; no process goes on to read checkpoints before the first has written them."""
        super().on_train_end()
        wait()

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Logits of several levels, or of the finest alone."""
        self.network.decoder.deep_supervision = enabled

    # ---- checkpoints ----------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        """Everything that training goes on with and prediction needs; atomic, plain data only.

        All processes come here, each with its random generators, and the first one writes.
        """
        if self.disable_checkpointing:
            return
        random_states = gathered(random_state())
        if self.local_rank != 0:
            return
        scaler = self.grad_scaler
        write_checkpoint(
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
        self.recipe.check_stage(self.stage, epoch=self.current_epoch, name=name)
        self.resumed = True
        if not self.was_initialized:
            self.initialize()
        self.network.load_state_dict(content["network_weights"])
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        load_optimizer(self.optimizer, content["optimizer_state"])
        set_peaks(self.optimizer, self.recipe, stage=self.stage)  # loading brought earlier ones
        if self.grad_scaler is not None and content["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(content["grad_scaler_state"])
        self.logger.load_checkpoint(content["logging"])
        self._best_ema = content["_best_ema"]
        self.inference_allowed_mirroring_axes = content["inference_allowed_mirroring_axes"]
        self.pending_random_states = own["random_states"]

    def _take_settings(self, own: dict[str, Any], name: str) -> None:
        """Network and recipe of the checkpoint; the environment may change lengths and rates, not the network."""
        self.spec = stored = stored_spec(
            own["spec"], self.spec if self.was_initialized else None, name
        )
        write_spec(self.plans_manager.plans, self.configuration_name, stored)
        # the old one remembers the old plan
        self.plans_manager = PlansManager(self.plans_manager.plans)
        self.configuration_manager = self.plans_manager.get_configuration(self.configuration_name)
        self.recipe = self._fit_recipe(recipe_from(own["recipe"], os.environ))
        self._apply_recipe()
