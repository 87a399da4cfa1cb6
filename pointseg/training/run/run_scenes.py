"""The scenes of a run: as batches for its steps, and one by one for validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.loading.hand_over import HandOver, check_sharing
from pointseg.loading.samples import Samples, join
from pointseg.loading.stream import Stream
from pointseg.training.run.graceful_stop import ignore_signals
from pointseg.training.run.run_dir import unusable_scenes
from pointseg.training.run.scene_lists import Scene, SceneLists, resumed_lists
from pointseg.training.run.spec import TrainSpec
from pointseg.training.step.batches import TrainingBatches
from pointseg.training.step.schedule import Batches, Schedule
from pointseg.training.tasks.task import TrainingTask


class RunScenes:
    """What a run trains and validates on, and the loaders of this device's share."""

    def __init__(self, spec: TrainSpec, task: TrainingTask, fabric: Fabric) -> None:
        """Take all scenes of the splits that the recipe names.

        Raises:
            UserError: the splits hold no scene; a recipe with images for a dataset without.
        """
        self.spec, self.task, self.fabric = spec, task, fabric
        self.training, self.validation = self._samples(True), self._samples(False)
        self.lists = SceneLists(tuple(self.training.scenes), tuple(self.validation.scenes))

    def resume(self, state: Mapping[str, Any]) -> tuple[Scene, ...]:
        """Take the scenes of the run that is resumed.

        Args:
            state: ``training`` of its ``last.pt``.

        Returns:
            Scenes of the run that were unusable and are gone.

        Raises:
            UserError: the dataset has other scenes, or lacks some that could be used.
        """
        left_out = getattr(self.spec.dataset, "left_out", ())
        unusable = {*left_out, *unusable_scenes(self.spec.out)}
        self.lists = resumed_lists(state, self.lists, unusable, self.spec.dataset.name)
        self.training.scenes = self.lists.used_in_training()
        self.validation.scenes = self.lists.used_in_validation()
        return self.lists.gone

    def batches(self, schedule: Schedule, start: int, stop: int) -> Stream:
        """Batches of this device for the steps from ``start`` until before ``stop``."""
        made = TrainingBatches(
            self.training,
            schedule,
            mix3d=self.spec.recipe.mix3d,
            seed=self.spec.seed,
            device=self.fabric.global_rank,
        )
        steps = Batches(schedule, start=start, stop=stop)
        return Stream(self._loader(made, sampler=steps, batch_size=None, collate_fn=HandOver()))

    def to_validate(self) -> DataLoader[Cloud | UserError]:
        """This device's share of the validation scenes, one by one."""
        mine = range(self.fabric.global_rank, len(self.validation), self.fabric.world_size)
        return self._loader(
            self.validation,
            batch_sampler=[[(0, index)] for index in mine],
            collate_fn=HandOver(join),
        )

    def _samples(self, training: bool) -> Samples:
        return Samples(
            self.spec.dataset,
            self.spec.recipe,
            training=training,
            seed=self.spec.seed,
            cache=self.spec.cache,
            labelled=self.task.labelled,
            keep_shown=self.task.needs_shown,
        )

    def _loader(self, samples: Any, **how: Any) -> DataLoader[Cloud | UserError]:
        check_sharing(self.spec.workers)
        return DataLoader(
            samples,
            num_workers=self.spec.workers,
            worker_init_fn=ignore_signals,
            pin_memory=self.fabric.device.type == "cuda",
            **how,
        )
