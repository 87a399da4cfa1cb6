"""Runs a row of the table in this process."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from pointseg.config.recipe import PointCloudFormat, Recipe
from pointseg.datasets.classes import ClassList
from pointseg.files import write_cloud
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.network import build_segmenter
from pointseg.scene import Scene
from tests.cases.rows import Row
from tests.dinomed3d.inference.image_files import save
from tests.dinomed3d.inference.models.write_model import write_model
from tests.dinomed3d.inference.odd_inputs import SHAPE, voxels

MODULES = {"dinomed3d": "dinomed3d.cli.main"}
CLASSES = ClassList(
    names=("ground", "building", "tree"),
    colors=np.array([[9, 9, 9], [99, 9, 9], [9, 99, 9]], np.uint8),
)
FEATURES = {"color": "color", "strength": "strength", "coord": "coord", "columns": "color"}
"""Name of a model, and what it reads at every point; one was trained on text whose columns are named."""
COLUMNS = {"columns": ("x", "y", "z", "red", "green", "blue", "label")}


def write_models(folder: Path) -> Path:
    """A model of volumes, models of points that read different features, a scan and a cloud."""
    write_model(folder).rename(folder / "volumes")
    save(folder / "scan.nii", voxels(*SHAPE))
    for name, feature in FEATURES.items():
        recipe = Recipe(
            dataset="folder",
            features=(feature,),
            cloud_format=PointCloudFormat(columns=COLUMNS.get(name)),
            voxel_m=0.2,
            backbone="minkunet",
            backbone_config={"channels": (8,) * 8, "layers": (1,) * 8, "base_channels": 8},
        )
        torch.manual_seed(0)
        weights = build_segmenter(recipe, 3, None).state_dict()
        save_checkpoint(folder / f"{name}.pt", weights, recipe=recipe, classes=CLASSES)
    rng = np.random.default_rng(0)
    fields = {"color": rng.uniform(0, 255, (300, 3)).astype(np.float32)}
    fields["strength"] = rng.random((300, 1)).astype(np.float32)
    fields["normal"] = np.tile(np.float32([0, 0, 1]), (300, 1))
    coord = (rng.random((300, 3)) * [4, 3, 2]).astype(np.float32)
    write_cloud(folder / "cloud.ply", Scene(coord=coord, fields=fields, name="cloud"))
    return folder


def run(row: Row, cases: Path, models: Path, out: Path) -> tuple[int, str]:
    """The exit code of a row's command, and all that it says: on the terminal, then in its records."""
    here = cases / row.folder
    if row.copied:
        here = out / "in"
        here.mkdir()
        for name in row.copied:
            shutil.copy(cases / row.folder / name, here / name)
    words = row.command.format(here=here, out=out, models=models, cases=cases).split()
    name = words[0].replace("pointseg-", "").replace("-", "_")
    module = importlib.import_module(MODULES.get(words[0], f"pointseg.cli.{name}"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = module.main(words[1:])
        except SystemExit as end:
            code = end.code
    notes = [
        f"{path.stem}: {note}"
        for path in sorted(out.rglob("*.json"))
        for note in _notes(json.loads(path.read_text(encoding="utf-8")))
    ]
    return code, "\n".join([printed.getvalue(), *notes])


def _notes(record: object) -> list[str]:
    if not isinstance(record, dict):
        return []
    keys = ("notes", "result_notes", "flags")
    return [str(note) for key in keys for note in record.get(key) or []]
