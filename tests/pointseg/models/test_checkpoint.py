"""Model files of pointseg-train: what is damaged, foreign or too large is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import Recipe
from pointseg.datasets.classes import ClassList
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.network import build_segmenter
from pointseg.models.trained_model import load_model
from pointseg.most_likely import most_likely

RECIPE = Recipe(
    dataset="folder",
    features=("color",),
    voxel_m=0.1,
    backbone="minkunet",
    backbone_config={"channels": (8,) * 8, "layers": (1,) * 8, "base_channels": 8},
)


def write(path: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
    classes = ClassList(names=("a", "b"), colors=np.zeros((2, 3), np.uint8))
    torch.manual_seed(0)
    model = build_segmenter(RECIPE, 2, None)
    save_checkpoint(path, model.state_dict(), recipe=RECIPE, classes=classes)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def config(**changed: Any) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        recipe = json.loads(content["recipe"])
        recipe["backbone_config"].update(changed)
        content["recipe"] = json.dumps(recipe)

    return change


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "m.pt")
    model, spec = load_model(path, "cpu")
    saved = torch.load(path, weights_only=True)["model"]
    assert spec.recipe.to_json() == RECIPE.to_json()
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *((lambda c, k=k: c.pop(k), k) for k in ("recipe", "classes", "colors", "groups", "model")),
        (lambda c: c.update(recipe=5), "not a whole model"),
        (lambda c: c.update(groups="{"), "not a whole model"),
        (lambda c: c.update(groups="[" * 5000), "not a whole model"),
        (lambda c: c.update(colors="red"), "not a whole model"),
        (lambda c: c.update(classes=[1, 2]), "class"),
        (lambda c: c["model"].popitem(), "1 are missing"),
        (lambda c: c["model"].update(more=torch.zeros(1)), "1 are unexpected, such as more"),
        (config(channels=[10**6] * 8), r"network's \[1000000"),  # refused without that memory
        (config(layers=[10**7] * 8), "80000000 layers"),
        (config(layers="many"), "m.pt"),
        (config(channels=[-8] * 8), "m.pt"),
    ],
)
def test_a_file_that_is_not_a_whole_model_is_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        load_model(write(tmp_path / "m.pt", change), "cpu")
    assert "m.pt" in str(caught.value) and "\n" not in str(caught.value)


def test_scores_that_are_no_numbers_are_no_classes() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
    assert most_likely(scores, "s").tolist() == [1, 0]
    for value in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(UserError, match="scene s: .* 1 of 2 points are not finite"):
            most_likely(torch.tensor([[0.1, value], [0.8, 0.2]]), "s")


def test_what_is_given_in_place_of_a_model_is_named(tmp_path):
    for name, content, words in (
        ("scan.ply", b"ply\n", "is a cloud, not a model"),
        ("README.txt", b"Trained in May.\n", "is a text file, not a model"),
        ("coord.npy", b"\x93NUMPY", "is a file of NumPy arrays, not a model"),
        ("m.pt", b"ply\n", "cannot be"),
        ("m.txt", b"PK\3\4\0\0", "cannot be"),  # half a model under another name
        ("m.ply", b"PK\3\4\0\0", "cannot be"),
        ("m.bin", b"ply\n", "cannot be"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: {words}"):
            load_model(tmp_path / name, "cpu")
