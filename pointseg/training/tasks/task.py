"""What a training run learns; the loop asks a task and knows nothing else about labels or images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from pointseg.cloud import Cloud


class TrainingTask(Protocol):
    """A network to train, its losses and its validation metrics."""

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the losses that :meth:`losses` returns as well as ``loss``."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the scores of :meth:`scores`; the first one selects the best checkpoint, larger is better."""

    @property
    def labelled(self) -> bool:
        """Whether scenes must have labels."""

    @property
    def needs_shown(self) -> bool:
        """Whether clouds must say which views show some of their points, ``Cloud.image_shown``."""

    def build(self) -> nn.Module:
        """The network, which reads a Cloud, with random weights drawn from torch's generator."""

    def begin(self) -> None:
        """Prepare a new run before its first step; not called for a resumed one."""

    def state(self) -> dict[str, Any]:
        """What a resumed run must know of :meth:`begin`: tensors and plain values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state` returned."""

    def losses(self, output: Any, cloud: Cloud) -> dict[str, Tensor]:
        """``loss`` and its components, from the output of the network for a batch."""

    def empty_metrics(self) -> Tensor:
        """The metrics of no scene."""

    def update_metrics(self, output: Any, cloud: Cloud) -> Tensor:
        """Numbers of a validation scene, which are summed over all scenes and devices."""

    def scores(self, total: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """From the sums: the scores of ``metric_names``, and further ones for TensorBoard.

        Raises:
            UserError: nothing was measured.
        """

    def save(
        self, path: Path, model: Mapping[str, Tensor], training: Mapping[str, Any] | None
    ) -> None:
        """Write a checkpoint atomically."""

    def check(self, path: Path, content: Mapping[str, Any]) -> None:
        """Refuse to resume the run of another task.

        Raises:
            UserError: the checkpoint is of another task.
        """
