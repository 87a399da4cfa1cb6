"""Trained models: opened, built, and asked about a sound scan or cloud."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from dinomed3d.inference.case import Case, Scan
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.memory_budget import MemoryBudget
from dinomed3d.inference.cohort.worker.worker import Worker
from dinomed3d.inference.models.model import fold_weights, open_model
from dinomed3d.inference.models.package import package_model
from dinomed3d.runtime.errors import UserError
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.models.trained_model import load_model
from tests.dinomed3d.inference.image_files import save
from tests.dinomed3d.inference.models.write_model import write_model
from tests.dinomed3d.inference.odd_inputs import SHAPE, voxels
from tests.fuzz.checkpoints import write_checkpoint
from tests.fuzz.damage import VALUES, Damaged, json_damaged, tree_damaged
from tests.fuzz.images import LIMIT_GIB, zip_lie
from tests.fuzz.kind import Finding, Kind, Refused, Result
from tests.pointseg.files.test_files import scene

TENSORS: tuple[Callable[[], torch.Tensor], ...] = (
    lambda: torch.zeros(()),
    lambda: torch.zeros(0),
    lambda: torch.full((3, 3), float("nan")),
    lambda: torch.zeros(4, dtype=torch.int8),
    lambda: torch.zeros(8, 1, 3, 3, 3, dtype=torch.complex64),
    lambda: torch.zeros(1).expand(10**6, 10**5),
)


class Volumes:
    """Opens a model of volumes, builds its network and predicts a sound scan."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.scan = save(folder / "scan.nii", voxels(*SHAPE, seed=3))

    def __call__(self, model: str, folder: Path, whole: bool) -> Result:
        path = next(folder.iterdir()) if model == "*" else folder / model
        try:
            opened = open_model(path)
            weights = [fold_weights(opened, fold) for fold in opened.folds]
            result = {
                f"{fold} {name}": value.numpy()
                for fold, one in zip(opened.folds, weights, strict=True)
                for name, value in one.items()
                if value.dtype != torch.bfloat16
            }
            result["about"] = np.array(json.dumps([opened.plans, opened.dataset], sort_keys=True))
            spec = PredictSpec(
                source=str(self.scan),
                out=str(self.out),
                model=str(path),
                device="cpu",
                engine="threads",
                memory_limit_gib=LIMIT_GIB,
            )
            worker = Worker(opened, spec)
        except UserError as error:
            raise Refused(str(error)) from error
        self._predict(worker)
        return result

    def _predict(self, worker: Worker) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        case = Case(id="scan", scans=(Scan(files=(str(self.scan),), ending=".nii"),))
        if len(worker.model.channels) != 1:
            return
        task = worker.read(case, MemoryBudget(2**31), lambda event: None)
        worker.predict(task, lambda event: None)
        if task.reason is None:
            worker.write(task, MemoryBudget(2**31), lambda: 0.0, lambda event: None)
        if task.trace is not None or "out of memory in step" in (task.reason or ""):
            raise Finding(f"{task.reason}\n{task.trace}")


class Clouds:
    """Opens a model of points and predicts a sound cloud."""

    def __call__(self, folder: Path, whole: bool) -> Result:
        try:
            model, trained = load_model(folder / "best.pt", "cpu")
        except UserError as error:
            raise Refused(str(error)) from error
        result = {name: value.numpy() for name, value in model.state_dict().items()}
        result["classes"] = np.array(json.dumps([trained.classes.names, trained.recipe.to_json()]))
        recipe = trained.recipe
        if set(recipe.needs) - {"color", "normal", "strength"} or recipe.images is not None:
            return result
        predictor = ScenePredictor(
            model,
            recipe,
            len(trained.classes),
            InferenceProtocol(config=recipe.test, single_pass=True),
            device="cpu",
            precision="float32",
            log=lambda text: None,
        )
        try:
            predictor.predict_labels(scene(60), lambda *progress: None, None)
        except UserError as error:
            raise Refused(f"best.pt: {error}") from error
        return result


def pickled_lie(rng: Random, content: bytes) -> Damaged:
    """An entry of what torch.save wrote is missing or another one; checksums fit."""
    found = torch.load(io.BytesIO(content), weights_only=False)
    values = (*VALUES, *(make() for make in TENSORS))
    for key in ("recipe", "groups"):  # JSON inside
        if isinstance(found.get(key), str) and rng.random() < 0.35:
            changed, how = tree_damaged(rng, json.loads(found[key]))
            found[key] = json.dumps(changed)
            return Damaged(_saved(found), f"{key}: {how}", is_lie=True)
    changed, how = tree_damaged(rng, found, values)
    return Damaged(_saved(changed), how, is_lie=True)


def _saved(content: Any) -> bytes:
    target = io.BytesIO()
    torch.save(content, target)
    return target.getvalue()


def _write_model(folder: Path) -> None:
    write_model(folder, scheme="CTNormalization")


def _write_package(folder: Path) -> None:
    licence = folder / "licence.txt"
    licence.write_text("some licence\n", encoding="utf-8")
    package_model(write_model(folder), folder / "model.zip", licence=licence)
    shutil.rmtree(next(path for path in folder.iterdir() if path.is_dir()))
    licence.unlink()


def kinds(folder: Path) -> list[Kind]:
    """Files of a model folder of nnU-Net, a package, and a checkpoint of points."""
    volumes = Volumes(folder)
    name = "nnUNetTrainer__nnUNetPlans__3d_fullres"

    def kind(file: str, lie: Any, **more: Any) -> Kind:
        return Kind(
            name=Path(file).name,
            file=f"{name}/{file}",
            write=_write_model,
            read=partial(volumes, "*"),
            lie=lie,
            every=6,
            **more,
        )

    return [
        kind("plans.json", json_damaged),
        kind("dataset.json", json_damaged),
        kind("dataset_fingerprint.json", json_damaged),
        kind("fold_0/checkpoint_final.pth", pickled_lie, has_checksum=True),
        Kind(
            name="package",
            file="model.zip",
            write=_write_package,
            read=partial(volumes, "model.zip"),
            lie=zip_lie,
            has_checksum=True,
        ),
        Kind(
            name="best.pt",
            file="best.pt",
            write=lambda folder: write_checkpoint(folder / "best.pt") and None,
            read=Clouds(),
            lie=pickled_lie,
            every=2,
            has_checksum=True,
        ),
    ]
