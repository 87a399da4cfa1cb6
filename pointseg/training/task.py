"""What a training run learns: the loop asks this and knows nothing else of labels or images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from pointseg.cloud import Cloud


class TrainingTask(Protocol):
    """A network to be trained, its losses, and how good it is."""

    @property
    def losses_named(self) -> tuple[str, ...]:
        """What :meth:`losses` gives beside ``loss``."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What :meth:`scores` gives; the first decides which checkpoint is the best: larger is better."""

    @property
    def labelled(self) -> bool:
        """Whether scenes must have labels."""

    def build(self) -> nn.Module:
        """The network, with random weights drawn from torch's generator. It reads a Cloud."""

    def begin(self) -> None:
        """Before the first step of a new run; not of a resumed one."""

    def state(self) -> dict[str, Any]:
        """What :meth:`begin` found out and a resumed run must know; tensors and plain values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up :meth:`state`."""

    def losses(self, output: Any, cloud: Cloud) -> dict[str, Tensor]:
        """``loss``, and what it is made of, of a batch and what the network made of it."""

    def measure(self, output: Any, cloud: Cloud) -> Tensor:
        """Numbers that are summed over all validation scenes and devices."""

    def nothing(self) -> Tensor:
        """What :meth:`measure` gives of no scene."""

    def scores(self, total: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """From the sums: those of ``metric_names``, and others for TensorBoard."""

    def save(
        self, path: Path, model: Mapping[str, Tensor], training: Mapping[str, Any] | None
    ) -> None:
        """A checkpoint, under a temporary name first."""

    def check(self, path: Path, content: Mapping[str, Any]) -> None:
        """Refuse to resume a run of another objective.

        Raises:
            UserError: the checkpoint is one.
        """
