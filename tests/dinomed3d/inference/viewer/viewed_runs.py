"""A small run as `dinomed3d predict` leaves it, whose masks were then put over the bright part of each scan."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.io.image import read_case, write_mask
from dinomed3d.inference.viewer.recorded_case import recorded_case
from tests.dinomed3d.inference.dicom.dicom_series import write_series
from tests.dinomed3d.inference.image_files import affine_of
from tests.dinomed3d.inference.models.write_model import write_model

BRIGHT = 600


def bright_corner(shape=(26, 22, 18)) -> np.ndarray:
    """(X, Y, Z): noise, and an L in one corner that no flip or turn leaves as it is."""
    voxels = np.random.default_rng(0).normal(0, 20, shape).astype(np.int16)
    voxels[3:20, 2:6, 2:9] = BRIGHT
    voxels[3:8, 2:17, 2:9] = BRIGHT
    return voxels


def spec_of(root: Path, *, out: Path, anonymous: bool = False) -> PredictSpec:
    """Options of a run with the model and the scans of a folder."""
    (model,) = (root / "model").iterdir()
    return PredictSpec(
        source=str(root / "in"),
        out=str(out),
        model=str(model),
        engine="threads",
        device="cpu",
        step_size=1.0,
        anonymous=anonymous,
    )


def write_run(root: Path) -> Path:
    """An oblique scan and a DICOM series; returns the output folder."""
    source = root / "in"
    source.mkdir(parents=True)
    oblique = affine_of(order=(1, 0, 2), signs=(-1, 1, -1), spacing=(1.2, 1.0, 1.5), angle=0.3)
    nib.save(nib.Nifti1Image(bright_corner(), oblique), source / "Meier <b>.nii.gz")
    write_series(source / "ward" / "CT", slices=6, shape=(20, 24), cosines=(0, 1, 0, 0, 0, -1))
    write_model(root / "model", mirroring=())
    predict(spec_of(root, out=root / "out"), lambda event: None)
    return root / "out"


def record_of(out: Path, case: str) -> dict:
    return json.loads((out / f"{case}.json").read_text(encoding="utf-8"))


def finish_another(out: Path, case: str, name: str) -> None:
    """Write the results of a case once more, as those of another one."""
    for path in out.glob(f"{case}.*"):
        path.with_name(path.name.replace(case, name)).write_bytes(path.read_bytes())
    record = json.dumps(record_of(out, case)).replace(json.dumps(case), json.dumps(name))
    record = record.replace(f'"{case}.', f'"{name}.')
    (out / f"{name}.json").write_text(record, encoding="utf-8")


def put_mask(out: Path, case: str, *, moved: int = 0) -> np.ndarray:
    """Correct a mask: label 2 over what is brightest, or so many voxels off along x."""
    record = record_of(out, case)
    volume = read_case(*recorded_case(record))
    mask = 2 * (volume.channels[0] > np.percentile(volume.channels[0], 60)).astype(np.uint8)
    if volume.channels[0].max() == BRIGHT:
        mask = 2 * (volume.channels[0] == BRIGHT).astype(np.uint8)
    mask = np.roll(mask, moved, axis=2)
    write_mask(mask, volume.grid, out / record["mask"]["file"])
    return mask
