"""The stock trainer with its run length read from the environment; nothing else differs from nnU-Net.

Kept in a folder of its own, because nnU-Net imports every module of an `nnUNet_extTrainer` folder.
"""

import os

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerShort(nnUNetTrainer):  # noqa: N801  nnU-Net's own way of naming trainers
    """`nnUNetTrainer` for BENCHMARK_EPOCHS epochs; BENCHMARK_SCHEDULE says what its schedule decays over."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ["BENCHMARK_EPOCHS"])
        self.num_iterations_per_epoch = int(os.environ["BENCHMARK_ITERATIONS_PER_EPOCH"])
        self.num_val_iterations_per_epoch = 1

    def configure_optimizers(self):
        optimizer, scheduler = super().configure_optimizers()  # "short": over just these epochs
        if os.environ["BENCHMARK_SCHEDULE"] == "stock":  # over 1000 epochs of 250 iterations
            scheduler.max_steps = 1000 * 250 / self.num_iterations_per_epoch
        return optimizer, scheduler
