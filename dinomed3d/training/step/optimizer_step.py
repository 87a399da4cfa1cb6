"""One optimizer step without waiting for the device, and the check for values that are not finite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class OptimizerStep:
    """Backward pass, clipping and optimizer step; after a value that is not finite nothing is updated.

    The flag stays on the device and is not read between steps: the optimizer's kernels skip by it, in
    this step and in all that follow. `check_finite` reports it at the end of the epoch, when parameters
    and moments are still those of before.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        clip: float,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        """Store optimizer and scaler.

        Args:
            optimizer: AdamW; its fused form on CUDA and CPU.
            clip: largest norm of all gradients together.
            scaler: for float16, where it skips overflowing gradients itself and lowers its scale.
        """
        self.optimizer = optimizer
        self.clip = clip
        self.scaler = scaler
        self.learning = [p for group in optimizer.param_groups for p in group["params"]]
        self.fused = bool(optimizer.defaults["fused"])
        self.broken: Tensor | None = None

    def __call__(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Make one step; all gradients must be None before.

        Args:
            loss: () of this step.

        Returns:
            Loss, and norm of the gradients before clipping; each () in float32 on the device.
        """
        value = loss.detach().float()
        broken = ~value.isfinite()
        if self.broken is not None:
            broken = broken | self.broken
        # NaN into every gradient: where processes average gradients, all of them then see it
        seed = torch.where(broken, torch.nan, 1.0).to(loss.dtype)
        if self.scaler is None:
            loss.backward(seed)
            norm = nn.utils.clip_grad_norm_(self.learning, self.clip)
            self.broken = broken | ~norm.isfinite()
            self._step(self.broken)
        else:
            self.scaler.scale(loss).backward(seed)
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.learning, self.clip)
            self.broken = broken
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return value, norm.float()

    def _step(self, skip: Tensor) -> None:
        if self.fused:
            # the flag by which a GradScaler tells the kernel to skip
            self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not skip:  # unfused (MPS): the host waits
            self.optimizer.step()


def check_finite(values: Sequence[np.ndarray], *, epoch: int, scaled: bool) -> None:
    """Stop a training after a loss or gradient that is not finite.

    Args:
        values: (steps, 2) of every process: loss and gradient norm of an epoch.
        epoch: its number.
        scaled: whether gradients may overflow occasionally (float16).

    Raises:
        FloatingPointError: a value is not finite; the parameters are those before it.
    """
    together = np.stack(values)  # (processes, steps, 2)
    wrong = ~np.isfinite(together[..., 0] if scaled else together.sum(axis=2))
    if not wrong.any():
        return
    step = int(wrong.any(axis=0).argmax())
    loss, norm = together[int(wrong[:, step].argmax()), step]
    raise FloatingPointError(
        f"DinoMed3DTrainer: loss {loss}, gradient norm {norm} in epoch {epoch}, step {step}; no step was "
        "made from there on. Continue from the end of the epoch before with --c and lower rates "
        "(DINOMED3D_RATE_DECODER, _ADAPTERS, _ENCODER)"
    )
