"""The demo's steps: a phantom planned and trained by nnU-Net's commands, and rooms by ``pointseg-train``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from dinomed3d.cli.demo.folder import prepare_folder
from dinomed3d.cli.demo.nnunet_commands import NnUNetCommands
from dinomed3d.cli.demo.overlay import OverlayCase, draw_overlay
from dinomed3d.cli.demo.phantom import LABELS, PhantomSpec, write_phantom
from dinomed3d.cli.demo.progress import RoomsProgress, TrainingProgress, prediction_line
from dinomed3d.cli.demo.result import DemoResult, read_dice, read_miou
from dinomed3d.runtime.hardware.device import choose_device

DATASET_ID = 900
DATASET = f"Dataset{DATASET_ID}_Phantom"
TRAINER = "DinoMed3DTrainer"
STEPS = 6
"""Phantom, plan, train, predict, evaluate, rooms."""


@dataclass(frozen=True, kw_only=True)
class DemoSpec:
    """Where the demo writes and how long it trains."""

    out: Path
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    overwrite: bool = False
    """Replace an earlier demo in ``out``."""
    phantom: PhantomSpec = PhantomSpec()
    stage1_epochs: int = 2
    stage2_epochs: int = 5
    iterations_per_epoch: int = 16
    val_iterations_per_epoch: int = 2
    room_recipe: tuple[str, ...] = ("epochs=1", "evaluations=1", "max_points=7000")
    """Changes to the recipe of ``pointseg-train --dataset synthetic``."""

    def settings(self) -> dict[str, str]:
        """Return the environment variables that make the training short."""
        return {
            "nnUNet_def_n_proc": "2",  # each of its worker processes costs seconds to start
            # Threads that spin while they wait for each other cost most of the time on cores that
            # are shared with other work.
            "OMP_WAIT_POLICY": "PASSIVE",
            "DINOMED3D_WEIGHTS": "none",
            "DINOMED3D_ENCODER": "vit_small_patch16_dinov3",
            "DINOMED3D_ENCODER_OVERRIDES": '{"embed_dim": 192, "depth": 4, "num_heads": 3}',
            "DINOMED3D_VOXELS_PER_TOKEN": "8",
            "DINOMED3D_STAGE1_EPOCHS": str(self.stage1_epochs),
            "DINOMED3D_STAGE2_EPOCHS": str(self.stage2_epochs),
            "DINOMED3D_ITERATIONS_PER_EPOCH": str(self.iterations_per_epoch),
            "DINOMED3D_VAL_ITERATIONS_PER_EPOCH": str(self.val_iterations_per_epoch),
        }


def run_demo(spec: DemoSpec) -> DemoResult:
    """Make the phantom; plan, train and evaluate with stock commands, predict with ours; then rooms.

    Progress goes to stderr: a line per step, and in those that last the time that is left.

    Raises:
        UserError: ``spec.out`` cannot be used, or one of the commands failed.
    """
    start = time.monotonic()
    out = prepare_folder(spec.out, overwrite=spec.overwrite)
    device = choose_device(spec.device)
    steps = _Steps(spec, NnUNetCommands(root=out, settings=spec.settings()), out / "logs")
    names = _volumes(steps, out, device)
    rooms = out / "pointseg"
    changes = [word for change in spec.room_recipe for word in ("--override", change)]
    steps.run(
        "rooms",
        "pointseg-train",
        *("--dataset", "synthetic", "--out", str(rooms), "--device", device, *changes),
        show=RoomsProgress(every=10).line,
    )
    raw, predictions = out / "nnUNet_raw" / DATASET, out / "predictions"
    overlay = out / "overlay.png"
    draw_overlay(overlay, [_read_case(raw, predictions, name) for name in names], labels=LABELS)
    return DemoResult(
        dice=read_dice(out / "summary.json"),
        masks=tuple(predictions / f"{name}.nii.gz" for name in names),
        overlay=overlay,
        room_miou=read_miou(rooms / "metrics.csv"),
        room=min((rooms / "pictures").glob("*.png")),
        report_page=predictions / "report.html",
        seconds=time.monotonic() - start,
    )


@dataclass
class _Steps:
    """Runs commands one after the other and says so."""

    spec: DemoSpec
    commands: NnUNetCommands
    logs: Path
    done: int = 0

    def begin(self, title: str) -> None:
        """Say which step begins."""
        self.done += 1
        _say(f"[{self.done}/{STEPS}] {title}")

    def run(
        self,
        title: str,
        command: str,
        *arguments: str,
        show: Callable[[str], str | None] = lambda line: None,
    ) -> None:
        """Run one command as a step; `show` makes what is said from lines of its output."""
        self.begin(f"{title}: {command} {' '.join(arguments)}")

        def watch(line: str) -> None:
            if (text := show(line)) is not None:
                _say(f"  {text}")

        log = self.logs / f"{command}.log"
        _say(f"  done in {self.commands.run(command, arguments, log=log, watch=watch):.0f} s")


def _volumes(steps: _Steps, out: Path, device: str) -> list[str]:
    """The phantom, from its images to masks and their scores; gives the names of the test cases."""
    spec, run = steps.spec, steps.run
    cases = f"{spec.phantom.training_cases} training and {spec.phantom.test_cases} test cases"
    steps.begin(f"phantom: {cases}")
    raw = out / "nnUNet_raw" / DATASET
    images, predictions = str(raw / "imagesTs"), str(out / "predictions")
    names = write_phantom(raw, spec.phantom)
    dataset, labels = str(DATASET_ID), [str(v) for v in LABELS.values() if v != 0]
    few = ("-npfp", "2", "-np", "2")  # the fingerprint would be extracted by eight processes
    run("plan", "nnUNetv2_plan_and_preprocess", "-d", dataset, "-c", "3d_fullres", *few)
    training = (dataset, "3d_fullres", "0", "-tr", TRAINER, "-device", device)
    epochs = TrainingProgress(spec.stage1_epochs, spec.stage2_epochs)
    run("train", "nnUNetv2_train", *training, show=epochs.line)
    model = out / "nnUNet_results" / DATASET / f"{TRAINER}__nnUNetPlans__3d_fullres"
    files = ("-i", images, "-o", predictions, "-m", str(model), "-f", "0", "--device", device)
    run("predict", "dinomed3d", "predict", *files, show=prediction_line)
    scored = (str(raw / "labelsTs"), predictions, "-l", *labels, "-o", str(out / "summary.json"))
    run("evaluate", "nnUNetv2_evaluate_simple", *scored, "-np", "2")
    return names


def _read_case(raw: Path, predictions: Path, name: str) -> OverlayCase:
    image = sitk.ReadImage(str(raw / "imagesTs" / f"{name}_0000.nii.gz"))
    x_mm, y_mm, z_mm = image.GetSpacing()
    return OverlayCase(
        name=name,
        image=sitk.GetArrayFromImage(image),
        truth=sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labelsTs" / f"{name}.nii.gz"))),
        prediction=sitk.GetArrayFromImage(sitk.ReadImage(str(predictions / f"{name}.nii.gz"))),
        spacing_mm=(z_mm, y_mm, x_mm),
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
