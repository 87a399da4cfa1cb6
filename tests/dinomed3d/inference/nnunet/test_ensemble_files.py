"""Probabilities for `nnUNetv2_ensemble`: nnU-Net's own function reads them, and its readers know the same geometry."""

from __future__ import annotations

import pickle
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from nnunetv2.ensembling import ensemble
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.models.write_model import write_model
from tests.dinomed3d.training.conftest import LABELS, REGIONS

STRAIGHT = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.2, 0.3)[[1, 2, 0]] @ np.diag([-0.9, 1.1, 2.0]), [5, -7, 11]
)
"""At right angles, as ITK needs it; x, y, z point mainly along other axes, some backwards."""


def merged(folders, out, monkeypatch):
    """What `nnUNetv2_ensemble` calls, without processes that take seconds to start."""
    threads = SimpleNamespace(get_context=lambda kind: SimpleNamespace(Pool=ThreadPool))
    monkeypatch.setattr(ensemble, "multiprocessing", threads)
    ensemble.ensemble_folders([str(f) for f in folders], str(out), num_processes=1)
    return nib.load(out / "scan.nii.gz")


def predicted(tmp_path, name, **options):
    model = write_model(tmp_path / f"model_{name}", mirroring=None, **options)
    spec = PredictSpec(
        source=str(tmp_path / "in" / "scan.nii.gz"), out=str(tmp_path / name), model=str(model), engine="threads",
        device="cpu", step_size=1.0, save_probabilities="npz",
    )  # fmt: skip
    outcome = predict(spec, lambda event: None)
    assert outcome.done, outcome.failed
    return spec, Path(spec.out)


@pytest.mark.parametrize("labels", (LABELS, REGIONS), ids=("labels", "regions"))
def test_an_ensemble_is_the_mean_of_its_folders(tmp_path, monkeypatch, labels):
    scan = write_scan(tmp_path / "in" / "scan.nii.gz", affine=STRAIGHT)
    _, one = predicted(tmp_path, "one", labels=labels)
    _, two = predicted(tmp_path, "two", labels=labels, folds=("1", "2"))
    values = [np.load(out / "scan.npz")["probabilities"] for out in (one, two)]
    assert values[0].dtype == np.float32 and np.abs(values[0] - values[1]).max() > 0.01
    mean = (values[0] + values[1]) / 2
    if labels == LABELS:
        expected = mean.argmax(0)
    else:
        expected = np.zeros(mean.shape[1:], int)
        for probability, value in zip(mean, (1, 2), strict=True):
            expected[probability > 0.5] = value
    found = merged([one, two], tmp_path / "ens", monkeypatch)
    assert np.array_equal(found.get_fdata().T, expected) and len(np.unique(expected)) > 1
    np.testing.assert_allclose(found.affine, nib.load(scan).affine, atol=1e-5)


@pytest.mark.parametrize(
    "reader", (SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient)
)
def test_each_reader_gives_the_mask_back_where_it_was(tmp_path, monkeypatch, reader):
    scan = write_scan(tmp_path / "in" / "scan.nii.gz", affine=STRAIGHT)
    spec, out = predicted(tmp_path, "one", reader=reader.__name__)
    ours, image = nib.load(out / "scan.nii.gz"), nib.load(scan)
    found = merged([out], tmp_path / "ens", monkeypatch)
    assert np.array_equal(found.get_fdata(), ours.get_fdata()) and ours.get_fdata().any()
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
    voxels, properties = reader().read_images((str(scan),))
    said = pickle.loads((out / "scan.pkl").read_bytes())
    assert np.load(out / "scan.npz")["probabilities"].shape[1:] == voxels.shape[1:]
    np.testing.assert_allclose(said["spacing"], properties["spacing"], rtol=1e-5)
    for name in ("sitk_stuff", "nibabel_stuff"):
        for key, value in properties.get(name, {}).items():
            if isinstance(value, str):
                assert said[name][key] == value
            else:
                np.testing.assert_allclose(said[name][key], value, atol=1e-4)
    if "Reorient" in reader.__name__:
        with pytest.raises(UserError, match="--orientation"):
            predict(replace(spec, orientation="RAS", out=str(tmp_path / "no")), print)


def test_files_of_others_are_not_replaced(tmp_path):
    write_scan(tmp_path / "in" / "scan.nii.gz")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "plans.json").write_text("{}")
    with pytest.raises(UserError, match=r"plans\.json exists"):
        predicted(tmp_path, "one")
    assert (tmp_path / "one" / "plans.json").read_text() == "{}"
