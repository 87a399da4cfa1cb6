"""DinoMed3DTrainer: both stages inside nnU-Net's own training loop.

nnU-Net's loaders, augmentation, losses, logging, validation and files are used as they are. Different
are the network, the two stages, AdamW with its schedule, and checkpoints that resume exactly.
"""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from dinomed3d import __version__
from dinomed3d.runtime.commands.one_line_errors import report_user_errors
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.compiling import compiler
from dinomed3d.runtime.hardware.device import check_device
from dinomed3d.training.checkpoints.fold_folder import backup_checkpoints, remove_leftovers
from dinomed3d.training.checkpoints.random_state import set_random_state
from dinomed3d.training.data.augmentation import check_depth
from dinomed3d.training.data.dataset_labels import check_labels
from dinomed3d.training.data.preprocessed_data import check_preprocessed
from dinomed3d.training.data.stage_one_loader import finish
from dinomed3d.training.loading_trainer import LoadingTrainer, halo_of
from dinomed3d.training.memory_trial import settle_memory
from dinomed3d.training.progress_plot import stages_marked
from dinomed3d.training.settings.environment import recipe_from, spec_from
from dinomed3d.training.settings.nnunet_plan import (
    DECISIONS,
    NETWORK,
    RECIPE,
    check_other_folds,
    plan_spec,
    planned_network,
    with_cascade_channels,
    write_spec,
)
from dinomed3d.training.settings.recipe import Recipe
from dinomed3d.training.settings.step_count import step_count_lines
from dinomed3d.training.start.network_start import (
    NetworkStart,
    load_start,
    recipe_for_loaded,
    stage_one_note,
)
from dinomed3d.training.start.pretrained import check_encoder_settings
from dinomed3d.training.start.start_from_model import model_of, spec_of_model
from dinomed3d.training.step.distributed import check_batch, gathered, processes, rank, wait
from dinomed3d.training.step.optimizer import build_optimizer, set_rates
from dinomed3d.training.step.optimizer_step import OptimizerStep, check_finite
from dinomed3d.training.step.precision import autocast, fast_precision
from dinomed3d.training.step.stages import FullSizeLogits, deep_supervision_scales
from dinomed3d.training.step.wrap_ddp_compile import running_network


class DinoMed3DTrainer(LoadingTrainer):
    """nnU-Net's trainer with DINO-Med3D's network and stages, for stock plans and our own."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net reads this signature
    ) -> None:
        """Determine network and recipe, and read the model to start from, before anything is written.

        Raises:
            UserError: settings that are invalid or contradict the plan or other folds.
            WeightsError: the file with pretrained weights is not there.
        """
        report_user_errors()
        check_device(device.type, option="-device")
        check_labels(dataset_json)
        if not (nnUNet_results.is_set() and nnUNet_preprocessed.is_set()):
            raise UserError(
                "DinoMed3DTrainer: nnUNet_preprocessed and nnUNet_results must be set to the folders that nnU-Net "
                "reads from and writes to"
            )
        plans = deepcopy(plans)
        planned = PlansManager(plans).get_configuration(configuration)
        name = f"{type(self).__name__}__{plans['plans_name']}__{configuration}"
        folder = Path(nnUNet_results, plans["dataset_name"], name)
        earlier = {path.name for path in (folder / f"fold_{fold}").glob("checkpoint_*.pth")}
        continuing = bool(plans["continue_training"])
        resumes = continuing and earlier  # load_checkpoint reads them
        finished = "checkpoint_final.pth" in earlier  # the fold may only want --val
        recipe = recipe_from(planned.configuration.get(RECIPE, {}), os.environ)
        self.trained_model = None if resumes else model_of(recipe, optional=finished)
        self._determine_network(planned, dataset_json, recipe)
        if not finished:
            check_depth(planned.patch_size, halo_of(self.spec, planned.patch_size))
        data = Path(nnUNet_preprocessed, plans["dataset_name"], planned.data_identifier)
        check_preprocessed(data, plans, configuration)
        if not resumes and not finished:
            check_other_folds(folder, configuration, fold, self.spec)
            if self.trained_model is None:
                check_encoder_settings(self.spec, self.recipe.weights)
        write_spec(plans, configuration, self.spec)
        if rank() > 0:
            os.environ["nnUNet_wandb_enabled"] = "0"  # only the first process logs there
        super().__init__(plans, configuration, fold, dataset_json, device)
        if device.type != "cuda":
            self.device = device  # nnU-Net assumes GPUs where there are several processes
        self._apply_recipe()
        self.save_every = 1  # each epoch's state is kept, and written by time (`on_epoch_end`)
        self.initial_lr = self.recipe.rate_decoder
        self.weight_decay = self.recipe.weight_decay
        self.resumed = False
        self.continuing = continuing
        self.stage = self.recipe.stage(0)
        self.iteration = 0
        self.patches = None
        self.running: nn.Module | None = None  # built when a stage's first epoch begins
        self.compile_backend, self.not_compiled = compiler(self.device.type, by_default=True)
        self.pending_random_states = []
        if fast_precision(self.device) != torch.float16:
            self.grad_scaler = None  # bfloat16 has float32's range

    def _determine_network(
        self, planned: ConfigurationManager, dataset_json: dict, recipe: Recipe
    ) -> None:
        """The network that plan, environment or the model to start from say, and its recipe."""
        spec = with_cascade_channels(plan_spec(planned), planned, dataset_json)
        model = self.trained_model
        if model is None:
            self.spec = spec_from(spec, os.environ)
        else:
            is_stock = planned.network_arch_class_name != NETWORK
            self.spec = spec_of_model(model, spec, is_stock=is_stock, environ=os.environ)
            recipe = replace(recipe, weights=model.encoder_weights)
        check_batch(planned.batch_size)
        self.spec.check_patch(planned.patch_size)
        self.recipe = recipe.for_network(self.spec)

    # ---- network, optimizer, loss ---------------------------------------------------------------

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network of the plan with a random encoder; weights are loaded afterwards."""
        return planned_network(
            configuration_manager,
            num_input_channels,
            num_output_channels,
            deep_supervision=enable_deep_supervision,
        )

    def initialize(self) -> None:
        """As nnU-Net, then load what a new network starts from.

        Raises:
            UserError: other folds have another network, or the model to start from does not fit.
        """
        if not self.resumed:
            folder = Path(self.output_folder_base)
            check_other_folds(folder, self.configuration_name, self.fold, self.spec)
        # nnU-Net would wrap the network permanently; here `running` is the wrapped one
        parallel, self.is_ddp = self.is_ddp, False
        super().initialize()
        self.is_ddp = parallel
        if parallel:
            self._set_batch_size_and_oversample()
            self.loss = self._build_loss()
        if not self.resumed:
            self.network_start = NetworkStart(self.network, self._load_start)

    def _load_start(self) -> str:
        model, self.trained_model = self.trained_model, None  # frees its tensors
        return load_start(self.network, model, recipe=self.recipe, dataset=self.dataset_json)

    def _begin(self) -> None:
        """Say what a new network starts from, and go on from a file that was loaded into it meanwhile."""
        start, self.network_start = self.network_start, None
        if start is None:
            return
        line = start.close()
        if start.replaced:
            planned = self.configuration_manager.configuration.get(RECIPE, {})
            self.recipe = recipe_for_loaded(self.recipe, planned, os.environ).for_network(self.spec)
            self._apply_recipe()
            self.stage = self.recipe.stage(0)
            self.optimizer, self.lr_scheduler = self.configure_optimizers()
            line = f"{line}; {stage_one_note(self.recipe)}"
        self.print_to_log_file(line)

    def _do_i_compile(self) -> bool:
        return False  # nnU-Net would compile the network permanently; here `running` is compiled

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, None]:
        """Begin the current stage and build AdamW for it; learning rates are set before each step, so no scheduler."""
        self.running = None
        # the previous stage leaves gradients of parameters that no longer learn
        self.network.zero_grad(set_to_none=True)
        self.network.begin_stage(self.stage, deep_supervision=self.enable_deep_supervision)
        if self.network.encoder is not None:
            self.network.encoder.encoder.checkpointing = self.recipe.activation_checkpointing
        optimizer = build_optimizer(self.network, self.recipe, stage=self.stage, device=self.device)
        self.optimizer_step = OptimizerStep(
            optimizer, clip=self.recipe.clip, scaler=self.grad_scaler
        )
        return optimizer, None

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        if not self.enable_deep_supervision:
            return None
        return deep_supervision_scales(self.spec, self.configuration_manager.patch_size)

    def _build_loss(self) -> nn.Module:
        """nnU-Net's loss with deep supervision for stage II, and without it over the whole batch for stage I."""
        deep, self.enable_deep_supervision = self.enable_deep_supervision, False
        plain = super()._build_loss()
        self.enable_deep_supervision = deep
        self.proxy_loss = deepcopy(plain)
        self.proxy_loss.dc.batch_dice = True  # a single slice often has no foreground
        if self.compile_backend is not None:  # as nnU-Net does: the Dice term alone
            for term in (plain, self.proxy_loss):
                term.dc = torch.compile(term.dc, backend=self.compile_backend)
        scales = self._get_deep_supervision_scales()
        if scales is None:
            return plain
        weights = np.array([1 / 2**i for i in range(len(scales))])
        return DeepSupervisionWrapper(plain, weights / weights.sum())

    def print_plans(self) -> None:
        """As nnU-Net, without the planner's decisions; they stay in the plan."""
        whole = self.configuration_manager
        self.configuration_manager = ConfigurationManager(
            {key: value for key, value in whole.configuration.items() if key != DECISIONS}
        )
        super().print_plans()
        self.configuration_manager = whole

    # ---- the loop -------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """As nnU-Net, then write a first checkpoint, so that a kill at any moment can be resumed."""
        if self.is_ddp:
            if self.local_rank == 0:
                self.do_split()  # writes the split if there is none; the others read it
            wait()
        if not self.was_initialized:
            self.initialize()
        self._begin()
        super().on_train_start()
        self.continuing = False  # there was nothing to continue from
        self.print_to_log_file(
            f"DINO-Med3D {__version__}\n{self.spec}\n{self.recipe}\n"
            f"GPUs or processes: {processes()}; torch.compile: {self.compile_backend or f'off ({self.not_compiled})'}",
            add_timestamp=False,
        )
        for line in step_count_lines(self.recipe):
            self.print_to_log_file(line)
        if not self.resumed:
            settle_memory(self)
        folder = Path(self.output_folder)
        first = not self.resumed and not self.disable_checkpointing
        if self.local_rank == 0:
            remove_leftovers(folder)
            for kept in backup_checkpoints(folder) if first else []:
                self.print_to_log_file(f"kept the checkpoint of an earlier run as {kept}")
        if first:
            self.current_epoch -= 1  # save_checkpoint counts the running epoch as done
            self.save_checkpoint(str(folder / "checkpoint_latest.pth"))
            self.current_epoch += 1

    def on_train_epoch_start(self) -> None:
        """Change stages when due, restore random generators after a resume, log the learning rate."""
        stage = self.recipe.stage(self.current_epoch)
        if stage != self.stage:
            self.stage = stage
            if self.patches is not None:
                finish(self.dataloader_train)
                self.dataloader_train, self.patches = self.patches, None  # its workers start anew
            self.optimizer, self.lr_scheduler = self.configure_optimizers()
            self._best_ema = None  # the proxy head's Dice is not comparable with stage II's
        if self.running is None:
            self.running = running_network(
                self.network, stage=stage, device=self.device, backend=self.compile_backend
            )
        states, self.pending_random_states = self.pending_random_states, []
        if len(states) == processes():
            set_random_state(states[rank()])
        elif states:
            self.print_to_log_file(
                f"The checkpoint is of a training on {len(states)} GPUs, this one has {processes()}: it continues, "
                "but samples other patches and slices"
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
        """One optimizer step of the current stage; loss and gradient norm stay on the device."""
        data, target = batch["data"], batch["target"]
        target = target if isinstance(target, list) else [target]
        data = data.to(self.device, non_blocking=True)
        target = [t.to(self.device, non_blocking=True) for t in target]
        set_rates(self.optimizer, self.recipe.rate_factor(self.current_epoch, self.iteration))
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device):
            loss = self._loss(data, target)
        value, norm = self.optimizer_step(loss)
        self.iteration += 1
        return {"loss": value, "norm": norm}

    def _loss(self, data: Tensor, target: list[Tensor]) -> Tensor:
        assert self.running is not None, "on_train_epoch_start builds it"
        if self.stage == 1:
            return self.proxy_loss(self.running(data).float(), target[0])
        output = self.running(data, halo=(self.halo, self.halo))
        if not self.enable_deep_supervision:
            return self.loss(output.float(), target[0])
        return self.loss([x.float() for x in output], target)

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Fetch and check the epoch's losses, then as nnU-Net.

        Raises:
            FloatingPointError: a loss or gradient was not finite; this epoch is in no checkpoint.
        """
        steps = [torch.stack([step["loss"], step["norm"]]) for step in train_outputs]
        values = torch.stack(steps).cpu().numpy()  # only here the host waits for the device
        check_finite(
            gathered(values), epoch=self.current_epoch, scaled=self.grad_scaler is not None
        )
        super().on_train_epoch_end([{"loss": loss} for loss in values[:, 0]])

    def validation_step(self, batch: dict) -> dict:
        """As nnU-Net, on the logits of the current stage and in its precision."""
        network = self.network
        scales = self._get_deep_supervision_scales()
        heads = None if scales is None else len(scales)
        self.network = FullSizeLogits(
            network,
            stage=self.stage,
            heads=heads,
            halo=self.halo,
            slices_at_once=self.slices_per_step,
        )
        try:
            with autocast(self.device):
                return super().validation_step(batch)
        finally:
            self.network = network

    def on_epoch_end(self) -> None:
        """As nnU-Net, but without checkpoint_best in stage I, whose network does not predict."""
        if self.stage == 1:
            self._best_ema = float("inf")  # nothing is better
        elif self.current_epoch == self.recipe.stage1_epochs:
            # restart the moving average: the proxy head's Dice is not comparable with stage II's
            averages = self.logger.get_value("ema_fg_dice", step=None)
            averages[-1] = self.logger.get_value("mean_fg_dice", step=-1)
        with stages_marked(self.recipe.stage1_epochs):  # in progress.png
            super().on_epoch_end()
        if self.stage == 1:
            self._best_ema = None

    def on_train_end(self) -> None:
        """As nnU-Net, then wait: no process may read checkpoints before the first has written them."""
        super().on_train_end()
        wait()

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Return the logits of several levels, or of the finest alone."""
        self.network.decoder.deep_supervision = enabled
