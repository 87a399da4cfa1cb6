"""The spacing of a scan in metres or micrometres is what nnU-Net's reader of the training would have given."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.io.image import read_grid
from dinomed3d.inference.nnunet.header_units import spacing_as_trained
from dinomed3d.inference.nnunet.plan import read_plan
from tests.dinomed3d.inference.image_files import affine_of, numbers, save, scan
from tests.dinomed3d.inference.models.write_model import tiny_dataset, tiny_plans, write_model

READERS = (SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient)
CODES = {"mm": (2, 1.0), "micrometres": (3, 1e-3), "metres": (1, 1e3), "unknown": (0, 1.0)}


def scan_of(path, unit, spacing_mm=(1.0, 1.25, 1.5), array=None):
    code, unit_mm = CODES[unit]
    affine = affine_of(spacing=[side / unit_mm for side in spacing_mm])
    return save(path, numbers(5, 6, 7) if array is None else array, affine, xyzt_units=code)


def plan_of(reader, spacing):
    plans = tiny_plans() | {"image_reader_writer": reader}
    plans["configurations"]["3d_fullres"]["spacing"] = list(spacing)
    model = SimpleNamespace(
        plans=plans, dataset=tiny_dataset(), configuration="3d_fullres", source="model"
    )
    return read_plan(model)


@pytest.mark.parametrize("unit", CODES)
@pytest.mark.parametrize("reader", READERS)
def test_spacing_is_that_of_the_reader_of_the_training(tmp_path, reader, unit):
    path = scan_of(tmp_path / "a.nii.gz", unit)
    _, properties = reader().read_images([str(path)])
    plan = plan_of(reader.__name__, [1.3 * float(side) for side in properties["spacing"]])
    ours = spacing_as_trained(read_grid(scan(path)), plan)
    np.testing.assert_allclose(ours, properties["spacing"], rtol=1e-6)


@pytest.mark.parametrize("unit", ["micrometres", "metres"])
def test_another_unit_than_that_of_the_training_is_refused(tmp_path, unit):
    grid = read_grid(scan(scan_of(tmp_path / "a.nii", unit)))
    with pytest.raises(CaseError, match="reader NibabelIO takes"):
        spacing_as_trained(grid, plan_of("NibabelIO", (1.3, 1.1, 0.9)))
    assert spacing_as_trained(grid, plan_of("SimpleITKIO", (1.3, 1.1, 0.9))) == grid.spacing_mm


def test_a_model_of_micrometres_predicts_as_one_of_mm(tmp_path):
    """Both models are the same but for the unit of their training, and so are both scans."""
    masks = []
    noise = np.random.default_rng(0).standard_normal((18, 20, 24)).astype(np.float32)
    for unit, factor in (("mm", 1), ("micrometres", 1000)):
        folder = tmp_path / unit
        (folder / "in").mkdir(parents=True)
        scan_of(folder / "in" / "a.nii.gz", unit, array=noise)
        model = write_model(folder)
        plans = json.loads((model / "plans.json").read_text())
        plans["image_reader_writer"] = "NibabelIO"
        configuration = plans["configurations"]["3d_fullres"]
        configuration["spacing"] = [side * factor for side in configuration["spacing"]]
        (model / "plans.json").write_text(json.dumps(plans))
        spec = PredictSpec(
            source=str(folder / "in"), out=str(folder / "out"), model=str(model), engine="threads",
            device="cpu", mirroring=False,
        )  # fmt: skip
        assert not predict(spec, lambda event: None).failed
        masks.append(np.asarray(nib.load(folder / "out" / "a.nii.gz").dataobj))
        record = json.loads((folder / "out" / "a.json").read_text())
        assert any("as the reader of the model's training" in n for n in record["notes"]) == (
            unit != "mm"
        )
        assert record["grid"]["spacing_mm"] == pytest.approx([1.5, 1.25, 1.0])
    assert np.array_equal(*masks) and len(np.unique(masks[0])) > 1
    localized = replace(spec, out=str(tmp_path / "localized"), localizer=spec.model)
    assert not predict(localized, lambda event: None).failed
