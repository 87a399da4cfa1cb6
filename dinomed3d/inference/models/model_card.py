"""The card of a packaged model: what it segments, how it was trained, under which licence, how to use it."""

from __future__ import annotations

from typing import Any

from dinomed3d.hub.model_card import (
    LICENCE_FILE,
    NOT_A_DEVICE,
    front_matter,
    licence_entries,
    marked,
    plain,
    table,
)
from dinomed3d.inference.models.describe import inspect_json
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.messages.counted import counted, sides


def model_card(model: Model, *, name: str, licence: str | None) -> str:
    """Markdown with the front matter of the Hugging Face hub.

    Args:
        model: from a package.
        name: under which commands find it: `hf:owner/name`, or the zip.
        licence: text in the package.
    """
    known = inspect_json(model)
    parts = [
        front_matter(_entries(known, licence)).rstrip(),
        f"# {plain(known['name'])}",
        f"Segments {_some(model)} in {_channels(known)} volumes: a model of [nnU-Net]"
        f"(https://github.com/MIC-DKFZ/nnUNet) v2, packaged by dinomed3d.",
        NOT_A_DEVICE,
        "## Use",
        _use(name),
        "## Input and output",
        _input(known),
        _labels(model, known),
        "## Training",
        _training(model, known),
        "## Scores",
        _scores(model),
        "## Licence",
        _licence(known),
    ]
    return marked("\n\n".join(parts) + "\n")


def _entries(known: dict[str, Any], licence: str | None) -> dict[str, Any]:
    """The front matter."""
    encoder = known["encoder"] or ""
    family = [name for name in ("dinov3", "dinov2") if name in encoder]
    words = {"ct": "ct", "mri": "mri", "mr": "mri", "pet": "pet"}
    channels = [words[c.lower()] for c in known["channels"] if c.lower() in words]
    tags = ["medical", "volumes", "3d", "segmentation", "nnunet", *family, *channels]
    return {
        **licence_entries(licence, has_file=licence is not None),
        "library_name": "dinomed3d",
        "pipeline_tag": "image-segmentation",
        "tags": list(dict.fromkeys(tags)),
    }


def _some(model: Model) -> str:
    names = [plain(name) for name in model.mask_values]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _channels(known: dict[str, Any]) -> str:
    return " + ".join(map(plain, known["channels"]))


def _use(name: str) -> str:
    return f"""```bash
pip install .                                       # in the folder of dinomed3d's sources
dinomed3d predict -i SCANS -o OUT -m {name}
```

```python
import dinomed3d
model = dinomed3d.load_model("{name}", device="cpu")
mask = model.predict("scan.nii.gz")                 # on the scan's grid
```"""


def _input(known: dict[str, Any]) -> str:
    rows = [
        ("channels", ", ".join(f"{k}: {channel}" for k, channel in enumerate(known["channels"]))),
        ("normalization", ", ".join(known["normalization"])),
        ("spacing of the network", f"{sides(known['spacing_mm'])} mm; scans are resampled"),
        ("patch", f"{sides(known['patch'])} voxels"),
        ("files", "NIfTI, NRRD, MetaImage, DICOM series; masks lie on exactly the scan's grid"),
    ]
    return table(("property", "value"), rows)


def _labels(model: Model, known: dict[str, Any]) -> str:
    """Values in masks; with the range of volumes where it is known."""
    volumes = known["label_volumes_ml"] or {}
    head = ["label", "value in masks", *(["volume in training, ml"] if volumes else [])]
    rows = [["background", "0", *([""] if volumes else [])]]
    for name, values in model.mask_values.items():
        row = [name, ", ".join(map(str, values))]
        if volumes:
            low, high = volumes.get(name, (None, None))
            row.append("" if low is None else f"{low:g} to {high:g}")
        rows.append(row)
    return table(head, rows)


def _training(model: Model, known: dict[str, Any]) -> str:
    cases = model.dataset.get("numTraining")
    rows = [
        ("data set", known["name"]),
        ("training set", counted(cases, "case") if isinstance(cases, int) else "size unknown"),
        ("trainer", f"{known['trainer']}, plans {known['plans']}, {known['configuration']}"),
        ("network", known["network"].rsplit(".", 1)[-1]),
        ("folds", f"{', '.join(known['folds'])}, averaged ({known['checkpoint']})"),
    ]
    if known["encoder"]:
        start = "random weights" if known["encoder_weights"] == "none" else "pretrained weights"
        rows.append(("encoder", f"{known['encoder']}, from {start}"))
    if known["previous_stage"]:
        rows.append(("cascade", f"after {known['previous_stage']}, which is included"))
    versions = known["packed_with"] or {}
    rows.append(("versions", ", ".join(f"{name} {value}" for name, value in versions.items())))
    rows.append(("hash", known["hash"]))
    return table(("property", "value"), rows)


def _scores(model: Model) -> str:
    scores = None if model.manifest is None else model.manifest.validation
    if scores is None:
        return "None were packaged with it: test it on your own data before you rely on it."
    folds = f"{'fold' if len(scores['folds']) == 1 else 'folds'} {', '.join(scores['folds'])}"
    said = (
        f"Mean Dice over {counted(scores['cases'], 'case')} of nnU-Net's cross-validation ({folds}), which each "
        "network had not seen in training. A label that is in neither mask of a case does not count there, so its "
        "mean may be one of fewer cases. Data from elsewhere may give other scores: test it on your own."
    )
    rows = [(name, f"{dice:.3f}") for name, dice in scores["dice"].items()]
    return f"{said}\n\n{table(('label', 'Dice'), rows)}"


def _licence(known: dict[str, Any]) -> str:
    """Under what the weights may be used, and what they are derived from."""
    if known["dinov3_derived"]:
        return (
            "The weights are derived from DINOv3 and are passed on under the "
            "[DINOv3 License](https://ai.meta.com/resources/models-and-libraries/dinov3-license/), whose text is "
            f"[{LICENCE_FILE}]({LICENCE_FILE}). Built with DINOv3."
        )
    said = (
        f"{plain(known['licence'])}: see [{LICENCE_FILE}]({LICENCE_FILE})."
        if known["licence"]
        else "Who trained it has named none, so nobody else has a right to use it; ask before you do."
    )
    if "dinov2" in (known["encoder"] or "") and known["encoder_weights"] != "none":
        said += (
            " The encoder started from DINOv2 (Meta), which is under the [Apache License 2.0]"
            "(https://www.apache.org/licenses/LICENSE-2.0)."
        )
    return said
