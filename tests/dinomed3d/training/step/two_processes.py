"""What each of two CPU processes does in test_distributed.py; results go to files for it to judge."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed
from torch._dynamo.utils import counters

from dinomed3d.lifting import stack_slices
from dinomed3d.training.checkpoints.checkpoint import plain
from dinomed3d.training.step.distributed import wait
from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import LABELS, REGIONS, dataset_json, plans, shrink

CASES = {
    f"stage {stage}, {name}, batch Dice {batch_dice}": (stage, labels, batch_dice)
    for stage, batch_dice in ((1, False), (2, False), (2, True))
    for name, labels in (("labels", LABELS), ("regions", REGIONS))
}
"""Stage I takes Dice over the whole batch in any case."""
_STAGE1, _, _STAGE2, *_ = CASES
VARIANTS = {
    **{case: (case, None, False) for case in CASES},
    **{f"{case}, recomputed": (case, None, True) for case in (_STAGE1, _STAGE2)},
    f"{_STAGE1}, compiled": (_STAGE1, "eager", False),
    f"{_STAGE2}, compiled": (_STAGE2, "aot_eager", False),
    f"{_STAGE2}, compiled, recomputed": (_STAGE2, "eager", True),
}
"""The same cases with a compiler's backend, and with activations computed again."""


class Killed(Exception):
    """Stands for a kill in the middle of an epoch."""


def trainer(*, fold=0, labels=LABELS, batch_dice=False, continued=False) -> DinoMed3DTrainer:
    plan = plans() | {"continue_training": continued}
    plan["configurations"]["3d_fullres"]["batch_dice"] = batch_dice
    return DinoMed3DTrainer(plan, "3d_fullres", fold, dataset_json(labels), torch.device("cpu"))


def joined_batch(labels) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A whole batch: two patches, a slice deeper at both ends, and their targets at three sizes."""
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(2, 1, 8, 20, 16, generator=generator)
    channels = 2 if labels == REGIONS else 1
    target = torch.randint(
        0, 2 if labels == REGIONS else 3, (2, channels, 6, 20, 16), generator=generator
    )
    return data, [target[..., ::s, ::s].float() for s in (1, 2)]


def every_slice(t: DinoMed3DTrainer, data, target) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Stage I's batch of all slices of patches, with their neighbours, and the slices' targets."""
    stacks = stack_slices(data, slices=t.spec.slices, halo=(t.halo, t.halo))
    return stacks, [target.transpose(1, 2).flatten(0, 1)]


def gradients(t: DinoMed3DTrainer, stage: int, data, target) -> dict[str, torch.Tensor]:
    """Of the running stage, in float32; of stage I on every slice of the patches."""
    t.current_epoch = t.recipe.stage1_epochs if stage == 2 else 0
    t.on_train_epoch_start()
    if stage == 1:
        data, target = every_slice(t, data, target[0])
    t._loss(data, target).backward()
    return {n: p.grad.clone() for n, p in t.network.named_parameters() if p.grad is not None}


def gradients_of_half_batches(rank: int, folder: Path) -> None:
    results = {}
    for name, (case, backend, checkpointing) in VARIANTS.items():
        stage, labels, batch_dice = CASES[case]
        t = trainer(labels=labels, batch_dice=batch_dice)
        t.compile_backend = backend
        t.recipe = replace(t.recipe, activation_checkpointing=checkpointing)
        t.initialize()
        torch.manual_seed(rank)  # the first process's weights are to count
        for parameter in t.network.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        data, target = joined_batch(labels)
        half = slice(rank, rank + 1)
        found = gradients(t, stage, data[half], [x[half] for x in target])
        # the wrapper's own code breaks off, but what it wraps is one graph; so is the Dice term of
        # each size of logits
        graphs = 0 if backend is None else 1 + (1 if stage == 1 else 2)
        assert counters["stats"]["unique_graphs"] == graphs, (name, counters["stats"])
        torch._dynamo.reset()
        counters.clear()
        results[name] = {"weights": t.network.state_dict(), "gradients": found}
    torch.save(results, folder / f"gradients_{rank}.pt")


def train(rank: int, *, fold: int, kill_at=None, continued=False) -> dict:
    """Train; perhaps die at (epoch, iteration); perhaps continue. What was drawn, lost and learned."""
    torch.manual_seed(5 + rank)
    np.random.seed(5 + rank)
    t = trainer(fold=fold, continued=continued)
    if continued:
        t.load_checkpoint(str(Path(t.output_folder) / "checkpoint_latest.pth"))
    step, drawn = t.train_step, {}

    def stepping(batch):
        if kill_at == (t.current_epoch, t.iteration):
            raise Killed
        drawn[t.current_epoch, t.iteration] = batch["data"].clone()
        return step(batch)

    t.train_step = stepping
    try:
        t.run_training()
    except Killed:
        assert kill_at is not None
        wait()  # for the first one, which writes the last whole epoch
    return {
        "drawn": drawn,
        "losses": list(t.logger.get_value("train_losses", step=None)),
        "validation": list(t.logger.get_value("mean_fg_dice", step=None)),
        "weights": deepcopy(t.network.state_dict()),
    }


def trainings(rank: int, folder: Path) -> None:
    results = {"whole": train(rank, fold=0)}
    for epoch in (1, 3):
        train(rank, fold=1, kill_at=(epoch, 1))
        results[f"resumed in epoch {epoch}"] = train(rank, fold=1, continued=True)
    train(rank, fold=2, kill_at=(3, 0))  # left for one process to go on with
    torch.save(plain(results), folder / f"trainings_{rank}.pt")


def a_loss_that_is_not_finite(rank: int, folder: Path) -> None:
    t = trainer(fold=3)
    t.initialize()
    t.on_train_epoch_start()
    before = deepcopy(t.network.stage_one().state_dict())
    data, target = joined_batch(LABELS)
    data, target = every_slice(t, data[rank : rank + 1], target[0][rank : rank + 1])
    outputs = []
    for iteration in range(2):
        if rank == 1 and iteration == 0:
            outputs.append(t.train_step({"data": data * torch.nan, "target": target}))
        else:
            outputs.append(t.train_step({"data": data, "target": target}))
    with pytest.raises(FloatingPointError, match="loss nan, gradient norm nan in epoch 0, step 0"):
        t.on_train_epoch_end(outputs)
    after = t.network.stage_one().state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    shrink(pytest.MonkeyPatch())
    distributed.init_process_group(
        "gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=2
    )
    gradients_of_half_batches(rank, folder)
    trainings(rank, folder)
    a_loss_that_is_not_finite(rank, folder)
    distributed.destroy_process_group()
