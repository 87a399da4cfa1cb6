"""The files with which nnU-Net's own commands go on from our probabilities."""

from __future__ import annotations

import json
from pathlib import Path

from dinomed3d.inference.cohort.outputs.result_files import SUMMARY
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import atomic_write


def write_for_nnunet(out: Path, model: Model, spec: PredictSpec) -> None:
    """Write dataset.json and plans.json, which nnUNetv2_ensemble and nnUNetv2_apply_postprocessing read from a folder.

    Raises:
        UserError: files of these names are not from a run of ours, or nnU-Net's reader would turn the axes once more.
        OSError: they cannot be written.
    """
    if spec.orientation is not None and model.reader.endswith("WithReorient"):
        raise UserError(
            f"--orientation must be left out with --save-probabilities npz: nnU-Net's reader of this model, "
            f"{model.reader}, reorients scans itself"
        )
    for name, content in (("dataset.json", model.dataset), ("plans.json", model.plans)):
        text = json.dumps(content, indent=2).encode("ascii")
        path = out / name
        if path.exists() and path.read_bytes() != text and not (out / SUMMARY).exists():
            raise UserError(
                f"{path} exists already and is not from a run of ours; use another folder for -o"
            )
        atomic_write(path, text)
