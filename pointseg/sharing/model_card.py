"""The card of a packaged model: its classes, what it reads, how it was trained, licences, how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dinomed3d.hub.model_card import (
    LICENCE_FILE,
    front_matter,
    licence_entries,
    marked,
    plain,
    table,
)
from pointseg.config.presets import FOLDER, SIZES
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import read_recipe
from pointseg.plugins import is_plugin
from pointseg.sharing.distilled import is_distilled
from pointseg.sharing.package import ABOUT, reads_dinov3


def model_card(content: Mapping[str, Any], *, name: str) -> str:
    """Markdown with the front matter of the Hugging Face hub.

    Args:
        content: of a package.
        name: under which commands find it: `hf:owner/name`, or the file.
    """
    recipe, about = read_recipe(content["recipe"]), content[ABOUT]
    made = _of_backbone(recipe, about, name) if is_distilled(content) else _of_model(content, name)
    return marked("\n\n".join(made) + "\n")


def _of_model(content: Mapping[str, Any], name: str) -> list[str]:
    """The parts of the card of a model that predicts."""
    recipe, about = read_recipe(content["recipe"]), content[ABOUT]
    return [
        front_matter(_entries(recipe, about)).rstrip(),
        f"# {plain(recipe.dataset)}, {plain(recipe.backbone)}",
        f"Finds one of {len(content['classes'])} classes for every point of a cloud: a model of pointseg, in the "
        "package dinomed3d.",
        "**This is a research model.** Test it on your own data before you rely on it.",
        "## Use",
        _use(recipe, name),
        "## Input and output",
        _input(recipe),
        table(("label", "class"), list(enumerate(content["classes"]))),
        "## Training",
        _training(recipe, about),
        "## Scores",
        _scores(about["scores"]),
        "## Licence",
        _licence(recipe, about["licence"]),
    ]


def _of_backbone(recipe: Recipe, about: Mapping[str, Any], name: str) -> list[str]:
    """The parts of the card of a distilled backbone."""
    assert recipe.images is not None
    entries = _entries(recipe, about)
    entries["tags"] = [tag for tag in entries["tags"] if tag != "semantic-segmentation"]
    encoder = plain(recipe.images.encoder)
    return [
        front_matter({**entries, "tags": [*entries["tags"], "distillation"]}).rstrip(),
        f"# {plain(recipe.dataset)}, {plain(recipe.backbone)}, distilled from {encoder}",
        f"A backbone for point clouds that learned without labels what {encoder} sees at each point (D-DITR), of "
        "pointseg, in the package dinomed3d. It has no classes: it is where a training on labels starts from, which "
        "then needs fewer of them and no images.",
        "**These are research weights.** Test what you train from them on your own data before you rely on it.",
        "## Use",
        _start(recipe, name),
        "## Input",
        "A training that starts from it must have the same of all these; commands compare them, and name what differs.",
        _input(recipe, distilled=True),
        "## Training",
        _training(recipe, about),
        "## Licence",
        _licence(recipe, about["licence"]),
    ]


def _start(recipe: Recipe, name: str) -> str:
    """The command of a training, of clouds whose description states the input."""
    sizes = SIZES.get(recipe.backbone, {})
    named = next((size for size in sizes if sizes[size] == recipe.backbone_config), None)
    if named is None and recipe.backbone_config:
        size = f" --override 'backbone_config={json.dumps(dict(recipe.backbone_config))}'"
    else:
        size = "" if named in (None, "full") else f" --model-size {named}"
    backbone = f"--backbone {recipe.backbone}{size}"
    return f"""```bash
pip install .                                       # in the folder of dinomed3d's sources
pointseg-train --dataset folder --root CLOUDS {backbone} --init {name}
```"""


def _entries(recipe: Recipe, about: Mapping[str, Any]) -> dict[str, Any]:
    """The front matter; the hub has no task for point clouds."""
    text = about["licence"] or recipe.licence
    family = [f for f in ("dinov3", "dinov2") if recipe.images and f in recipe.images.encoder]
    tags = ["point-cloud", "3d", "semantic-segmentation", *_kind(recipe), *family]
    return {
        **licence_entries(text, has_file=bool(about["licence"])),
        "library_name": "pointseg",
        "pipeline_tag": "other",
        "tags": tags if is_plugin(recipe.backbone) else [*tags, recipe.backbone],
    }


def _kind(recipe: Recipe) -> list[str]:
    """Indoor or outdoor; of a folder of somebody's own clouds nobody has said which."""
    own = recipe.dataset == FOLDER.dataset or is_plugin(recipe.dataset)
    return [] if own else [recipe.scene_type]


def _use(recipe: Recipe, name: str) -> str:
    options = f" --backbone {recipe.backbone}" if is_plugin(recipe.backbone) else ""
    if recipe.images is not None:
        options += " --cameras cameras.json --weights ENCODER"
    cloud = _file_name(recipe)
    shell = f"""```bash
pip install .                                       # in the folder of dinomed3d's sources
pointseg-predict {cloud} -o OUT -m {name}{options}
```"""
    if options:  # Python takes images as frames, and loads no backbones of somebody's own
        return shell
    return f"""{shell}

```python
import pointseg
model = pointseg.load_model("{name}", device="cpu")
{_call(recipe)}
```"""


def _file_name(recipe: Recipe) -> str:
    """A cloud that can hold what the model reads: hardly any type but LAS has echoes."""
    return "CLOUD.laz" if "returns" in recipe.needs else "CLOUD.ply"


def _call(recipe: Recipe) -> str:
    """Of Python, with arrays where `predict` takes all that the model reads as such."""
    if "returns" in recipe.needs:
        return f'labels = model.predict("{_file_name(recipe)}")'
    names = {"color": "color=rgb", "normal": "normal=normals", "strength": "intensity=intensity"}
    arrays = ", ".join(["points", *(names[field] for field in recipe.needs if field in names)])
    return f"labels = model.predict({arrays})               # (N, 3) in metres, z up"


def _input(recipe: Recipe, *, distilled: bool = False) -> str:
    kind = "".join(f", {kind} scenes" for kind in _kind(recipe))
    rows = [
        ("coordinates", f"voxels of {recipe.voxel_m:g} m{kind}"),
        ("features of points", ", ".join(recipe.features)),
        ("files", "PLY, PCD, LAS, LAZ, E57, PTX, .bin, text, numpy"),
    ]
    if distilled:
        low = -1 if recipe.color_range == "signed" else 0
        colours = [("colours become", f"{low} to 1")] if "color" in recipe.features else []
        return table(("property", "value"), [*rows[:-1], *colours])
    if recipe.images is not None:
        rows.append(
            (
                "images",
                f"posed ones, encoded by {recipe.images.encoder}, whose weights are not in the file",
            )
        )
    return table(("property", "value"), rows)


def _training(recipe: Recipe, about: Mapping[str, Any]) -> str:
    scenes = about["scenes"]
    size = "size unknown" if scenes is None else f"{scenes[0]} scenes, {scenes[1]} for validation"
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    rows = [
        ("data set", recipe.dataset),
        ("training set", size),
        ("network", recipe.backbone),
        *_encoder(recipe),
        ("epochs", recipe.epochs),
        ("versions", versions),
    ]
    return table(("property", "value"), rows)


def _encoder(recipe: Recipe) -> list[tuple[str, str]]:
    """The image encoder on whose features it was trained, and which weights of it."""
    images = recipe.images
    if images is None:
        return []
    digest = images.weights_sha256
    return [("image encoder", f"{images.encoder}{f', weights {digest[:16]}' if digest else ''}")]


def _scores(scores: Mapping[str, Any] | None) -> str:
    if scores is None:
        return "None were packaged with it."
    splits = ", ".join(map(plain, scores["splits"]))
    rows = [(name, _percent(iou)) for name, iou in scores["test_point_iou"].items()]
    rows.append(("mean", _percent(scores["test_point_miou"])))
    return (
        f"IoU of all points of {scores['scenes']} scenes ({plain(scores['dataset'])}, {splits}), by pointseg-test.\n\n"
        + table(("class", "IoU, %"), rows)
    )


def _percent(value: float | None) -> str:
    return "" if value is None or value != value else f"{100 * value:.1f}"


def _licence(recipe: Recipe, text: str) -> str:
    """Under what the weights may be used, and what they were trained from."""
    said = []
    if text:
        first = next(line for line in text.splitlines() if line.strip())
        said.append(f"{plain(first[:100])}: see [{LICENCE_FILE}]({LICENCE_FILE}).")
    if recipe.licence:
        said.append(
            f"The weights that training started from are under {plain(recipe.licence)}, and so are these."
        )
    if not said:
        said.append(
            "Who trained it has named none, so nobody else has a right to use it; ask before you do."
        )
    if reads_dinov3(recipe):
        said.append("Built with DINOv3.")
    return " ".join(said)
