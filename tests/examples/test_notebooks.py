"""The notebooks run from top to bottom on what the demo leaves, and are stored with small results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import SimpleITK as sitk

from dinomed3d.cli.demo.phantom import PhantomSpec, phantom_case
from pointseg.config.presets import recipe_for
from pointseg.datasets.synthetic.dataset import Synthetic
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.network import build_segmenter
from tests import ROOT
from tests.dinomed3d.inference.models.write_model import write_model

NOTEBOOKS = ROOT / "examples" / "notebooks"
NAMES = ("clouds", "volumes")


def read(name: str) -> dict:
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))


def run(name: str) -> dict:
    """Execute the cells in their order in one process, and give the names that they leave."""
    names: dict = {}
    for number, cell in enumerate(read(name)["cells"]):
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec(compile(source, f"{name}.ipynb, cell {number}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend = matplotlib.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def test_volumes():
    demo = Path("dinomed3d_demo")
    raw = demo / "nnUNet_raw/Dataset900_Phantom"
    results = demo / "nnUNet_results/Dataset900_Phantom"
    write_model(results).rename(results / "DinoMed3DTrainer__nnUNetPlans__3d_fullres")
    for folder, ending, array in zip(
        ("imagesTs", "labelsTs"), ("_0000", ""), phantom_case(PhantomSpec(), 12), strict=True
    ):
        image = sitk.GetImageFromArray(array[:, ::2, ::2])
        image.SetSpacing((2.0, 2.0, 3.0))
        (raw / folder).mkdir(parents=True)
        sitk.WriteImage(image, raw / folder / f"phantom_012{ending}.nii.gz")
    left = run("volumes")
    assert left["mask"].GetSize() == (20, 20, 16)
    assert (left["again"] == left["labels"]).all()
    assert left["table"]["voxels"].sum() == (left["labels"] > 0).sum()


def test_clouds():
    recipe = recipe_for("synthetic", "minkunet", "small")
    classes = Synthetic().classes
    weights = build_segmenter(recipe, len(classes.names)).state_dict()
    Path("dinomed3d_demo/pointseg").mkdir(parents=True)
    save_checkpoint(
        Path("dinomed3d_demo/pointseg/best.pt"), weights, recipe=recipe, classes=classes
    )
    left = run("clouds")
    assert left["labels"].shape == (20_000,) == left["truth"].shape
    assert left["probabilities"].shape == (20_000, len(classes.names))


@pytest.mark.parametrize("name", NAMES)
def test_results_are_stored_and_small(name):
    code = [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code)
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert "error" not in kinds
    text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    assert "image/png" in text and len(text) < 250_000
    assert re.findall(r"/(?:home|tmp|Users|root|work)/", text) == []


def test_every_notebook_is_run():
    assert {path.stem for path in NOTEBOOKS.rglob("*.ipynb")} == set(NAMES)
