"""A network with its optimizer, learning rate schedule and gradient scaler, on the devices of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory
from pointseg.cloud import Cloud
from pointseg.config.optimizer import OptimizerSpec
from pointseg.training.step.fabric_batch import OpaqueBatch, UnwrapBatch
from pointseg.training.step.memory import batch_out_of_memory
from pointseg.training.step.optimizer import build_optimizer, build_scheduler

Losses = Callable[[Any, Cloud], dict[str, Tensor]]
GRADIENT_NORM = "norm of the gradient"
"""Name of a number of each step whose gradients are clipped."""


class Learner:
    """Computes gradients of accumulated batches and updates the network."""

    def __init__(
        self, fabric: Fabric, network: nn.Module, spec: OptimizerSpec, *, steps: int
    ) -> None:
        """Set up the optimizer.

        Args:
            fabric: the devices.
            network: on the CPU, with its initial weights.
            spec: optimizer and schedule.
            steps: optimizer steps of the whole run.
        """
        _speed_up_norms(network, steps)
        self.fabric, self.network, self.clip_norm = fabric, network, spec.clip_norm
        optimizer = build_optimizer(network, spec)
        self.scheduler = build_scheduler(optimizer, spec, steps=steps)
        self.model, self.optimizer = fabric.setup(UnwrapBatch(network), optimizer)
        self.largest = 0
        """Voxels of the largest batch that fitted into memory so far."""

    def begin_step(self) -> None:
        """Clear the gradients."""
        self.model.train()
        self.optimizer.zero_grad()

    def accumulate(
        self, cloud: Cloud, losses: Losses, *, batches: int, is_last: bool
    ) -> dict[str, Tensor]:
        """Add the gradients of one of the accumulated batches.

        Args:
            cloud: the batch.
            losses: from output and batch to losses; ``loss`` is minimised.
            batches: number of batches that one step accumulates.
            is_last: whether this is the last of them, after which devices exchange gradients.

        Returns:
            The losses.

        Raises:
            UserError: not enough memory.
        """
        try:
            with self.fabric.no_backward_sync(self.model, enabled=not is_last):  # type: ignore[arg-type]
                cloud = cloud.to(self.fabric.device)
                found = losses(self.model(OpaqueBatch(cloud)), cloud)
                self.fabric.backward(found["loss"].div(batches))
        except (RuntimeError, MemoryError) as error:
            if ran_out_of_memory(error):
                raise batch_out_of_memory(len(cloud), self.largest) from error
            raise
        self.largest = max(self.largest, len(cloud))
        return found

    def finish_step(self) -> tuple[float, dict[str, Tensor]]:
        """Update the network.

        Returns:
            The learning rate that was used; the norm of the gradient, if gradients are clipped. One that is not
            finite is for the caller to find: finding it here would wait for the device.
        """
        computed: dict[str, Tensor] = {}
        if self.clip_norm is not None:
            norm = self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.clip_norm, error_if_nonfinite=False
            )
            assert norm is not None  # as max_norm is given
            computed[GRADIENT_NORM] = norm
        self.optimizer.step()
        lr = float(self.scheduler.get_last_lr()[0])
        self.scheduler.step()
        return lr, computed

    @property
    def scaler(self) -> Any:
        """The gradient scaler of float16 training; else None."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)

    def state(self) -> dict[str, Any]:
        """State of optimizer, schedule and scaler, as a resumed run needs it."""
        scaler = self.scaler
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])

    def on_any_device(self, flag: bool) -> Tensor:
        """A scalar on the device: 1 if the flag is set on any of several devices, else 0."""
        mine = torch.full((), float(flag), device=self.fabric.device)  # filled there, not copied
        found = self.fabric.all_reduce(mine, reduce_op="max")
        assert isinstance(found, Tensor)
        return found


def _speed_up_norms(network: nn.Module, steps: int) -> None:
    """Let batch norms average over at most a twentieth of the run.

    Published backbones average over about a hundred steps (momentum 0.01). In a run of a few dozen
    steps their running statistics, which validation uses, would still be the initial ones.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d) and module.momentum is not None:
            module.momentum = max(module.momentum, min(0.1, 20 / steps))
