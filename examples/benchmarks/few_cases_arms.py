"""One run of `few_cases.py`: an arm trained on some cases, scored on test cases on the way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from dinomed3d.evaluation.metrics import score
from dinomed3d.inference.nnunet.predictor import Predictor
from dinomed3d.inference.nnunet.sliding_window import WindowGrid, predict_windows
from dinomed3d.training.step.precision import fast_precision
from dinomed3d.training.trainer import DinoMed3DTrainer

ON_THE_WAY = 4
"""Every so many test cases are scored on the way; all of them at the end."""
TIMED_STEPS = 7
"""Steps of which the cost is the median."""
TOLERANCE_MM = 1.0
"""Distance that surface Dice accepts."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way of training."""

    what: str
    """What it is, for the table."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """DINOMED3D_ variables, without the prefix."""
    stock: bool = False
    """Whether it is nnU-Net's own trainer."""
    permuted: bool = False
    """Whether the encoder's tensors are the trained ones with their entries permuted."""
    bias_field: bool = False
    """Whether half of the training patches get a random bias field (MR), which nnU-Net's augmentation lacks."""


BIAS_FIELD = 0.5
"""Largest coefficient of the bias field's polynomial: TorchIO's default, `artifacts.py`'s moderate strength."""
TOKENS = {"COMPONENTS": "detail,encoder", "SLICES_PER_TOKEN": "3"}
"""What the arms with tokens share; the encoder and its weights are the caller's."""
ARMS: Mapping[str, Arm] = {
    "dino": Arm(what="ours: CNN with pretrained tokens", settings=TOKENS),
    "permuted": Arm(what="the same, encoder's entries permuted", settings=TOKENS, permuted=True),
    "cnn": Arm(
        what="the CNN alone (nnU-Net's network, our optimiser)", settings={"COMPONENTS": "detail"}
    ),
    "stock": Arm(what="nnU-Net's own trainer", stock=True),
    "cnn-bias": Arm(
        what="the CNN alone, bias fields in its augmentation",
        settings={"COMPONENTS": "detail"},
        bias_field=True,
    ),
    "dino-bias": Arm(
        what="ours, bias fields in its augmentation", settings=TOKENS, bias_field=True
    ),
    # ablations and alternatives
    "one-slice": Arm(
        what="ours, one slice per embedding instead of three", settings=TOKENS | {"SLICES": "1"}
    ),
    "every-slice": Arm(
        what="ours, every slice encoded", settings=TOKENS | {"SLICES_PER_TOKEN": "1"}
    ),
    "token-8": Arm(what="ours, tokens of 8 voxels", settings=TOKENS | {"VOXELS_PER_TOKEN": "8"}),
    "stage-one": Arm(
        what="ours, after one evaluation's steps of stage I",
        settings=TOKENS | {"STAGE1_EPOCHS": "1", "STAGE1_SLICES": "24"},
    ),
    "lora": Arm(
        what="ours, last third with low-rank updates",
        settings=TOKENS | {"COMPONENTS": "detail,encoder,lora"},
    ),
    "adapters": Arm(
        what="ours, last third with low-rank updates and 3D adapters",
        settings=TOKENS | {"COMPONENTS": "detail,encoder,lora,adapters"},
    ),
    "attention": Arm(
        what="ours, last third with low-rank updates and attention along depth",
        settings=TOKENS
        | {"COMPONENTS": "detail,encoder,lora,adapters", "INTER_SLICE": "attention"},
    ),
}
"""The arms by name."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training."""

    arm: str
    cases: int
    """Training cases, the first of the seed's order."""
    seed: int
    steps: int
    every: int
    """Steps between evaluations."""

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.arm}-{self.cases}-{self.seed}"


class Scored:
    """Both trainers' part: the cases of a run, and an evaluation instead of what nnU-Net does after an epoch."""

    run: Run
    result: dict[str, Any]
    tests: list[Path]
    out: Path

    def do_split(self) -> tuple[list[str], list[str]]:
        """The run's cases; nnU-Net's validation gets one of them, it is not read."""
        order = np.random.default_rng(self.run.seed).permutation(len(self.training))  # type: ignore[attr-defined]
        chosen = [self.training[i] for i in order[: self.run.cases]]  # type: ignore[attr-defined]
        return chosen, chosen[:1]

    def on_epoch_end(self) -> None:
        """Score the test cases, and keep the curve."""
        self.current_epoch += 1  # type: ignore[attr-defined]
        steps = self.current_epoch * self.run.every
        dice = mean_dice(test_scores(self, self.tests[::ON_THE_WAY], surfaces=False))
        self.result["curve"].append([steps, dice])
        self.result["cpu_s"] = time.process_time() - self.result["cpu_start"]
        print(f"{self.run.name}: {steps} steps, Dice {dice:.4f}", flush=True)
        self.out.with_suffix(".part").write_text(json.dumps(self.result))

    def plot(self, *_: object) -> None:
        """No picture."""


class BiasField(ImageOnlyTransform):  # type: ignore[misc]
    """TorchIO's random bias field on a normalised patch, whose darkest voxel counts as no signal."""

    def __init__(self) -> None:
        """Build the transform."""
        super().__init__()
        self.field = torchio.RandomBiasField(coefficients=BIAS_FIELD)

    def _apply_to_image(self, img: Tensor, **_: object) -> Tensor:
        spread, mean = torch.std_mean(img, dim=(1, 2, 3), keepdim=True)
        gained = self.field(img - img.amin(dim=(1, 2, 3), keepdim=True))
        now_spread, now_mean = torch.std_mean(gained, dim=(1, 2, 3), keepdim=True)
        # normalised again, as the preprocessing of an image with such a field would
        return (gained - now_mean) / now_spread.clamp_min(1e-6) * spread + mean


class ScoredDinoMed3D(Scored, DinoMed3DTrainer):
    """Ours."""

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Any:
        """As ours, after a bias field in half of the patches where the arm asks for it."""
        transforms = super().get_training_transforms(*args, **kwargs)
        if not ARMS[self.run.arm].bias_field:
            return transforms
        return ComposeTransforms([RandomTransform(BiasField(), apply_probability=0.5), transforms])


# nnU-Net names result folders and checkpoints after the class; any command can then predict with these models.
ScoredDinoMed3D.__name__ = DinoMed3DTrainer.__name__


class ScoredStock(Scored, nnUNetTrainer):
    """nnU-Net's own, with the schedule of its 1000 epochs of 250 steps."""

    def configure_optimizers(self) -> Any:
        """As nnU-Net; epochs of this run are shorter."""
        optimizer, scheduler = super().configure_optimizers()
        scheduler.max_steps = 1000 * 250 / self.run.every
        return optimizer, scheduler


ScoredStock.__name__ = nnUNetTrainer.__name__


def test_scores(trainer: Any, tests: list[Path], *, surfaces: bool, shuffle: bool = False) -> list:
    """Scores of every test case and label on the preprocessed grid.

    Args:
        trainer: its network predicts, without mirroring.
        tests: files of preprocessed cases.
        surfaces: whether distances are measured too.
        shuffle: predict with the slices in another order, which is undone afterwards.

    Returns:
        For every case [[Dice, HD95 in mm, surface Dice] per label].
    """
    network, device = trainer.network, trainer.device
    trainer.set_deep_supervision_enabled(False)
    network.eval()
    predictor = Predictor(
        [network], mirroring=None, device=device, precision=fast_precision(device)
    )
    spacing = trainer.configuration_manager.spacing
    patch = trainer.configuration_manager.patch_size
    labels = trainer.label_manager.foreground_labels
    found = []
    for path in tests:
        content = np.load(path)
        data, truth = torch.from_numpy(content["data"]), content["truth"]
        order = torch.randperm(data.shape[1], generator=torch.Generator().manual_seed(0))
        data = data[:, order] if shuffle else data
        heads = trainer.label_manager.num_segmentation_heads
        mask = predicted_labels(predictor, data.to(device), patch, heads)
        mask = mask[torch.argsort(order)] if shuffle else mask
        rows = []
        for label in labels:
            a, b = truth == label, mask.numpy() == label
            if surfaces:
                rows.append(list(score(a, b, spacing_mm=spacing, tolerance_mm=TOLERANCE_MM)))
            else:
                total = a.sum() + b.sum()
                rows.append([2 * (a & b).sum() / total if total else float("nan")])
        found.append(rows)
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    network.train()
    return found


def predicted_labels(predictor: Predictor, data: Tensor, patch: list[int], heads: int) -> Tensor:
    """(C, D, H, W) -> (D, H, W) labels, padded to the patch inside."""
    size = data.shape[1:]
    pads = [max(0, p - n) for p, n in zip(patch[-3:], size, strict=True)]
    padded = torch.nn.functional.pad(data, (0, pads[2], 0, pads[1], 0, pads[0]))
    grid = WindowGrid.over(padded.shape[1:], patch, 0.5)
    predictor.clear_cache()
    chunks = predict_windows(
        padded, grid, (0, grid.size[1]), predictor.predict, heads=heads, batch=1
    )
    labels = torch.cat([chunk.logits.argmax(0) for chunk in chunks])
    return labels[: size[0], : size[1], : size[2]].cpu()


def step_seconds(trainer: Any, out: Path) -> None:
    """Time a step of stage II (median of TIMED_STEPS) and add it to a file that all arms share."""
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    seconds = []
    for _ in range(TIMED_STEPS + 2):  # two warm up
        start = time.perf_counter()
        loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        float(loss)  # waits for the device
        seconds.append(time.perf_counter() - start)
    known = json.loads(out.read_text()) if out.is_file() else {}
    known[trainer.run.arm] = {"seconds": float(np.median(seconds[2:]))}
    out.write_text(json.dumps(known))
    print(f"{trainer.run.arm}: {known[trainer.run.arm]['seconds']:.3f} s a step", flush=True)


def mean_dice(scores: list) -> float:
    """Mean over cases and labels."""
    return float(np.nanmean([row[0] for case in scores for row in case]))


def execute(run: Run, work: Path, *, plans: dict, dataset: dict, device: torch.device) -> None:
    """Train one run to its end; write its result, WORK/runs/NAME.json, and the model, below WORK/results/NAME."""
    arm = ARMS[run.arm]
    for name in list(os.environ):
        if name.startswith("DINOMED3D_") and name.removeprefix("DINOMED3D_") in SET_HERE:
            del os.environ[name]
    os.environ |= {
        "DINOMED3D_STAGE1_EPOCHS": "0",
        "DINOMED3D_STAGE2_EPOCHS": str(max(1, run.steps // run.every)),
        "DINOMED3D_ITERATIONS_PER_EPOCH": str(run.every),
        "DINOMED3D_VAL_ITERATIONS_PER_EPOCH": "1",
        "nnUNet_results": str(work / "results" / run.name),
    } | {f"DINOMED3D_{name}": value for name, value in arm.settings.items()}
    if arm.permuted:
        os.environ["DINOMED3D_WEIGHTS"] = str(work / "permuted.safetensors")
    elif "encoder" not in arm.settings.get("COMPONENTS", "encoder"):
        os.environ["DINOMED3D_WEIGHTS"] = "none"
    import random

    random.seed(run.seed)
    np.random.seed(run.seed)
    torch.manual_seed(run.seed)
    cls: Any = ScoredStock if arm.stock else ScoredDinoMed3D
    trainer = cls(plans | {"continue_training": False}, "3d_fullres", 0, dataset, device)
    trainer.run = run
    trainer.disable_checkpointing = True
    if arm.stock:
        trainer.num_epochs = max(1, run.steps // run.every)
        trainer.num_iterations_per_epoch = run.every
        trainer.num_val_iterations_per_epoch = 1
    trainer.training = sorted((work / "training.txt").read_text().split())
    trainer.tests = sorted((work / "tests").glob("*.npz"))
    trainer.out = work / "runs" / f"{run.name}.json"
    trainer.out.parent.mkdir(exist_ok=True)
    if not run.steps:
        step_seconds(trainer, work / "cost.json")
        return
    trainer.result = vars(run) | {"curve": [], "cpu_start": time.process_time()}
    trainer.run_training()
    final = test_scores(trainer, trainer.tests, surfaces=True)
    trainer.result |= {
        "scores": final,
        "dice": mean_dice(final),
        "shuffled_dice": mean_dice(
            test_scores(trainer, trainer.tests, surfaces=False, shuffle=True)
        ),
    }
    trainer.disable_checkpointing = False
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    trainer.out.write_text(json.dumps(trainer.result))


SET_HERE = {name for arm in ARMS.values() for name in arm.settings} - {"VOXELS_PER_TOKEN"}
"""Variables that differ between arms, so the caller's own are not kept."""
