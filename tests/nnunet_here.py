"""What makes nnU-Net's steps short and lets them run in the tests' own process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any


class Done:
    """The result of an asynchronous call that was computed at once."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def ready(self) -> bool:
        return True

    def get(self, timeout: float | None = None) -> Any:
        return self.value


class PoolHere:
    """A pool of processes that works in this process."""

    def __init__(self, processes: int = 1) -> None:
        self._pool = [SimpleNamespace(is_alive=lambda: True)]

    def __enter__(self) -> PoolHere:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def starmap(self, function: Callable, arguments: Iterable[Iterable]) -> list:
        return [function(*each) for each in arguments]

    def starmap_async(self, function: Callable, arguments: Iterable[Iterable]) -> Done:
        return Done(self.starmap(function, arguments))


def few_samples() -> type:
    """nnU-Net's fingerprint; of its hundred million samples some thousands are enough here."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    class FewSamples(DatasetFingerprintExtractor):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.num_foreground_voxels_for_intensitystats = 10_000

    return FewSamples


def narrow(planner: type, width: int) -> type:
    """A planner that gives its CNN this width at full resolution, where nnU-Net's rule has 32.

    Every step, and every file of weights, takes a fraction of the time.
    """

    class Narrow(planner):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.UNet_base_num_features = width
            self.UNet_max_features_2d = self.UNet_max_features_3d = 8 * width

    return Narrow
