"""How a training run goes, as data: lengths of the stages, learning rates and their schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of both stages of a training run; the network's are in `NetworkSpec`."""

    weights: str = "hub"
    """Pretrained weights of the encoder: a file, a directory, "hub", or "none" (random)."""
    start_from: str = "none"
    """Trained model that the whole network starts from, instead of the pretrained encoder alone: a
    checkpoint of DinoMed3DTrainer, or the folder of a fold or of a model with one fold; or "none"."""
    stage1_epochs: int = 50
    """Epochs of the 2.5D proxy task; 0 leaves stage I out, as does a start from a trained model unless
    DINOMED3D_STAGE1_EPOCHS is set."""
    stage2_epochs: int = 450
    """Epochs of the whole network."""
    iterations_per_epoch: int = 250
    """Optimizer steps per epoch, as in nnU-Net."""
    val_iterations_per_epoch: int = 50
    """Validation batches per epoch (online pseudo Dice)."""
    stage1_slices: int = 96
    """Largest number of slices in a step of stage I, each of another case, over all GPUs."""
    stage1_tokens: int = 16384
    """Largest number of tokens of these slices on one GPU: bounds the activations of a full fine-tune."""
    foreground_share: float = 0.67
    """Share of stage I's slices that are drawn around a voxel of foreground."""
    rate_encoder: float = 5e-5
    """Peak learning rate of the encoder in stage I; with random weights ten times a plan's value is
    used (`recipe_from`), because there is nothing to preserve."""
    rate_proxy: float = 1e-3
    """Peak learning rate of stage I's linear head."""
    rate_adapters: float = 5e-4
    """Peak learning rate of low-rank updates and 3D adapters in stage II."""
    rate_decoder: float = 2e-3
    """Peak learning rate of neck, detail stream, gate and decoder in stage II."""
    weight_decay: float = 0.01
    """AdamW's weight decay; biases, norms and gains are not decayed."""
    warmup: float = 0.05
    """Share of a stage over which learning rates rise linearly; afterwards they follow half a cosine."""
    clip: float = 1.0
    """Largest norm of all gradients together."""
    activation_checkpointing: bool = False
    """Whether each transformer block keeps only its input and is recomputed in the backward pass:
    a tenth of stage I's activations and fewer of stage II's, for a seventh to a third more time."""

    checkpoint_minutes: float = 10.0
    """Shortest time between two writings of checkpoint_latest.pth and checkpoint_best.pth, minutes; they
    are also written when a stage or the training ends or stops. 0 writes them after every epoch."""

    def __post_init__(self) -> None:
        """Check every field."""
        positive = [
            "stage2_epochs",
            "iterations_per_epoch",
            "stage1_slices",
            "stage1_tokens",
            "clip",
        ]
        positive += ["rate_encoder", "rate_proxy", "rate_adapters", "rate_decoder"]
        for name in positive:
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"recipe: {name!r} must be positive, got {getattr(self, name)}")
        for name in ("stage1_epochs", "weight_decay", "checkpoint_minutes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"recipe: {name!r} must not be negative, got {getattr(self, name)}")
        if self.val_iterations_per_epoch < 1:
            raise UserError(
                "recipe: 'val_iterations_per_epoch' must be at least 1, because nnU-Net logs the result; got "
                f"{self.val_iterations_per_epoch}"
            )
        if not 0 <= self.warmup < 1 or not 0 <= self.foreground_share <= 1:
            raise UserError(
                "recipe: 'warmup' must be in [0, 1) and 'foreground_share' in [0, 1], got "
                f"{self.warmup} and {self.foreground_share}"
            )

    def for_network(self, spec: NetworkSpec) -> Recipe:
        """The recipe without stage I if the network has no encoder to adapt."""
        return self if "encoder" in spec.components else replace(self, stage1_epochs=0)

    def stage(self, epoch: int) -> int:
        """1 or 2, for an epoch counted from 0."""
        return 1 if epoch < self.stage1_epochs else 2

    def resumed_in(self, stage: int, *, epoch: int) -> Recipe:
        """The recipe of a training that goes on: a stage I that has lasted longer than is asked ends now.

        Args:
            stage: of the checkpoint.
            epoch: the next one.
        """
        is_over = stage == 1 and self.stage1_epochs < epoch
        return replace(self, stage1_epochs=epoch) if is_over else self

    def check_stage(self, stage: int, *, epoch: int, name: str) -> None:
        """Refuse a longer stage I after it is over.

        Args:
            stage: of the checkpoint.
            epoch: the next one.
            name: of the checkpoint, for messages.

        Raises:
            UserError: stage I would begin again.
        """
        if stage == 2 and self.stage(epoch) == 1:
            raise UserError(
                f"DinoMed3DTrainer: {name} is in stage II after {epoch} epochs, so stage I cannot be "
                f"{self.stage1_epochs} epochs long any more; unset DINOMED3D_STAGE1_EPOCHS"
            )

    def slices_per_step(self, tokens: int, *, processes: int = 1) -> int:
        """Slices of a step of stage I in each process: within both bounds, at least 2.

        Args:
            tokens: of each slice.
            processes: that share the batch.
        """
        return max(2, min(self.stage1_slices // processes, self.stage1_tokens // tokens))

    def rate_factor(self, epoch: int, iteration: int) -> float:
        """Factor of the peak learning rates at a step; it depends on the step alone, so a resume continues it.

        Args:
            epoch: from 0, over both stages.
            iteration: from 0, within the epoch.

        Returns:
            Above 0, at most 1: linear warm-up, then (1 + cos) / 2, for each stage by itself.
        """
        first = 0 if self.stage(epoch) == 1 else self.stage1_epochs
        epochs = self.stage1_epochs if self.stage(epoch) == 1 else self.stage2_epochs
        total = epochs * self.iterations_per_epoch
        step = (epoch - first) * self.iterations_per_epoch + iteration
        warm = round(self.warmup * total)
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
