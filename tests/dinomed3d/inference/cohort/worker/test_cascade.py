"""Cascades: the low-resolution model is predicted first, and its labels are input of the second."""

import json
import shutil
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.localizer import Localizer
from dinomed3d.inference.models.model import open_model
from dinomed3d.inference.models.package import package_model
from dinomed3d.inference.nnunet.plan import read_plan
from dinomed3d.inference.nnunet.preprocess import prepare
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.models.stock_prediction import stock_prediction
from tests.dinomed3d.inference.models.write_model import cascade_plans, tiny_dataset, write_cascade
from tests.dinomed3d.training.conftest import LABELS, REGIONS

LOW = "nnUNetTrainer__nnUNetPlans__3d_lowres"


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Zero at two sides and in a hole: cropped, and outside of what is normalised."""
    path = tmp_path_factory.mktemp("cascade") / "in" / "a.nii.gz"
    write_scan(path, affine=np.diag([-1.1, -0.9, 1.3, 1.0]))
    image = nib.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[:3] = voxels[:, -4:] = voxels[8:11, 6:9, 5:8] = 0
    nib.save(nib.Nifti1Image(voxels, image.affine), path)
    return path


def run(model, scan, out, **options):
    spec = PredictSpec(
        source=str(scan), out=str(out), model=str(model), engine="threads", device="cpu", **options
    )
    outcome = predict(spec, lambda event: None)
    assert not outcome.failed
    return np.asarray(nib.load(out / "a.nii.gz").dataobj).T


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions"])
def test_equals_nnunet_voxel_by_voxel(labels, scan, tmp_path):
    model = write_cascade(tmp_path, labels=labels)
    first = stock_prediction(tmp_path / LOW, [scan])
    expected = stock_prediction(model, [scan], first)
    assert np.array_equal(run(model, scan, tmp_path / "out"), expected)
    assert len(np.unique(expected)) == 3
    notes = json.loads((tmp_path / "out" / "a.json").read_text())["notes"]
    assert any("cascade" in note and "3d_lowres" in note for note in notes)


def test_labels_are_resampled_as_nnunet_does():
    """Next to where all channels are zero, too: nnU-Net has a label of its own there."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.normal(size=(6, 7, 8)), np.ones((3, 3, 3))).astype(np.float32)
    image[:4] = image[:, :5] = image[7:10, 9:12, 3:6] = 0
    image[0, 0, 0] = 1  # nothing is cropped
    labels = np.kron(rng.integers(0, 3, (6, 7, 8)), np.ones((3, 3, 3))).astype(np.uint8)
    plans, dataset, name = cascade_plans(), tiny_dataset(), "3d_cascade_fullres"
    manager = PlansManager(plans)
    configuration = manager.get_configuration(name)
    _, expected, _ = configuration.preprocessor_class(verbose=False).run_case_npy(
        image[None], labels[None].astype(np.float32), {"spacing": [1.7, 1.9, 1.4]}, manager, configuration, dataset
    )  # fmt: skip
    model = SimpleNamespace(plans=plans, dataset=dataset, configuration=name, source="m")
    ours = prepare([image], (1.7, 1.9, 1.4), read_plan(model), previous=labels)
    assert (expected < 0).any()
    assert np.array_equal(ours.data[-1].numpy(), np.maximum(expected[0], 0))


def test_both_models_are_found_wherever_nnunet_or_a_package_has_them(scan, tmp_path):
    folder = tmp_path / "Dataset901_Tiny"
    model = open_model(write_cascade(folder))
    assert model.previous is not None and model.previous.configuration == "3d_lowres"
    shutil.make_archive(str(tmp_path / "exported"), "zip", tmp_path, folder.name)
    packed = package_model(folder, tmp_path / "packed.zip")
    shutil.unpack_archive(packed, tmp_path / "unpacked")
    places = (folder, tmp_path / "exported.zip", packed, tmp_path / "unpacked")
    assert {open_model(place).hash for place in places} == {model.hash}
    masks = [run(place, scan, tmp_path / f"out{i}") for i, place in enumerate((folder, packed))]
    assert np.array_equal(*masks)
    with pytest.raises(UserError, match="--localizer .*is a cascade"):
        Localizer.load(packed, model, device=torch.device("cpu"), precision=None)
    # the labels come from the first model: another one is another cascade
    checkpoint = folder / LOW / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    content["network_weights"]["decoder.seg_layers.0.bias"] += 1
    torch.save(content, checkpoint)
    assert open_model(folder).hash != model.hash


def test_a_first_model_that_is_missing_or_foreign_is_named(tmp_path):
    model = write_cascade(tmp_path / "m")
    renamed = shutil.copytree(model, tmp_path / "m" / "mine")
    with pytest.raises(UserError, match="3d_lowres, which was not found next to it; "):
        open_model(renamed)
    dataset = tmp_path / "m" / LOW / "dataset.json"
    text = dataset.read_text()
    dataset.write_text(text.replace('"b": 2', '"c": 2'))
    with pytest.raises(UserError, match="must have the labels .*'b': 2"):
        open_model(model)
    dataset.write_text(text)
    plans = tmp_path / "m" / LOW / "plans.json"
    plans.unlink()
    with pytest.raises(UserError, match=f"3d_lowres, which was not found next to it, as .*{LOW}"):
        open_model(model)
    with pytest.raises(UserError, match="which was not found in the same zip"):
        shutil.make_archive(str(tmp_path / "one"), "zip", model.parent, model.name)
        open_model(tmp_path / "one.zip")
