"""Prediction from Python: masks are those of the command, on the grid that was given, of the kind that was given."""

import json
import os
import threading

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import dinomed3d
from dinomed3d.cli.main import main
from dinomed3d.inference.case import CaseError
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.dicom.dicom_series import write_series
from tests.dinomed3d.inference.models.write_model import write_model

TILT = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-0.9, 1.1, 2.0]), [5, -7, 11]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("in_memory")


@pytest.fixture(scope="module")
def path(folder):
    return write_scan(folder / "in" / "scan.nii.gz", affine=TILT)


@pytest.fixture(scope="module")
def trained(folder):
    return write_model(folder)


@pytest.fixture(scope="module")
def model(trained):
    return dinomed3d.load_model(trained, device="cpu")


@pytest.fixture(scope="module")
def by_command(folder, path, trained):
    """The mask that the command writes, (X, Y, Z)."""
    words = ["predict", "-i", str(path), "-o", str(folder / "out"), "-m", str(trained)]
    assert main([*words, "--device", "cpu", "--engine", "threads"]) == 0
    mask = nib.load(folder / "out" / "scan.nii.gz")
    labels = np.asarray(mask.dataobj)
    assert set(np.unique(labels)) == {0, 1, 2}
    return labels


def test_a_model_says_what_it_is(model):
    said = repr(model)
    assert "labels a, b; channels MRI" in said and "\n" not in said and "encoder" not in said
    sides = " x ".join(f"{side:g}" for side in model.spacing_mm)
    assert f"spacing {sides} mm" in said and said.endswith("float32 on cpu>")


def test_a_path_and_an_itk_image_give_itk_masks(model, path, by_command):
    image = sitk.ReadImage(str(path))
    for given in (path, str(path), [path], image):
        mask = model.predict(given)
        assert np.array_equal(sitk.GetArrayFromImage(mask).T, by_command)
        for part in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(mask, part)() == pytest.approx(getattr(image, part)(), abs=1e-5)


def test_a_nibabel_image_gives_one_of_nibabel(model, path, by_command, tmp_path):
    image = nib.load(path)
    mask = model.predict(image)
    assert np.array_equal(np.asarray(mask.dataobj), by_command)
    assert np.array_equal(mask.affine, image.affine) and mask.get_data_dtype() == np.uint8
    nib.save(mask, tmp_path / "mask.nii.gz")
    again = nib.load(tmp_path / "mask.nii.gz")
    assert np.allclose(again.affine, image.affine, atol=1e-5)
    assert np.array_equal(np.asarray(again.dataobj), by_command)


def test_an_array_stays_as_it_is_and_gives_an_array(model, path, by_command):
    image = sitk.ReadImage(str(path))
    voxels = sitk.GetArrayFromImage(image)
    before = voxels.copy()
    seen = []
    mask = model.predict(voxels, spacing=image.GetSpacing()[::-1], progress=seen.append)
    assert np.array_equal(mask.T, by_command) and mask.dtype == np.uint8
    assert np.array_equal(voxels, before)
    assert seen == sorted(seen) and seen[-1] == 1
    other = model.predict(voxels, spacing=(4.0, 1.1, 0.9))  # slices twice as far apart
    assert not np.array_equal(other, mask)


def test_channels_come_as_files_components_volumes_or_a_stack(tmp_path, monkeypatch):
    model = dinomed3d.load_model(
        write_model(tmp_path, channels=("T1", "T2"), labels={"background": 0, "a": 1, "b": 2}),
        device="cpu",
        mirroring=False,
    )
    paths = [write_scan(tmp_path / f"{seed}.nii.gz", seed, affine=TILT) for seed in (1, 2)]
    monkeypatch.chdir(tmp_path)
    files = sorted(os.listdir(tmp_path))
    images = [sitk.ReadImage(str(p)) for p in paths]
    whole = model.predict(paths)
    joined = sitk.Compose(*[sitk.Cast(image, sitk.sitkFloat32) for image in images])
    arrays = [sitk.GetArrayFromImage(image) for image in images]
    four = nib.Nifti1Image(np.stack([a.T for a in arrays], -1), nib.load(paths[0]).affine)
    labels = sitk.GetArrayFromImage(whole)
    assert len(np.unique(labels)) > 1
    assert np.array_equal(sitk.GetArrayFromImage(model.predict(joined)), labels)
    assert np.array_equal(np.asarray(model.predict(four).dataobj).T, labels)
    spacing = images[0].GetSpacing()[::-1]
    assert np.array_equal(model.predict(np.stack(arrays), spacing=spacing), labels)
    turned = model.predict(np.stack(arrays[::-1]), spacing=spacing)
    assert not np.array_equal(turned, labels)  # the order of channels counts
    assert sorted(os.listdir(tmp_path)) == files  # no file was written


def test_a_model_of_turned_images_gets_every_kind_turned(tmp_path):
    """nnU-Net's NibabelIOWithReorient: the directions of an image decide what the network sees."""
    folder = write_model(tmp_path)
    plans = json.loads((folder / "plans.json").read_text())
    plans["image_reader_writer"] = "NibabelIOWithReorient"
    (folder / "plans.json").write_text(json.dumps(plans))
    model = dinomed3d.load_model(folder, device="cpu", mirroring=False)
    around = np.array(
        [[0, 0, -2.0], [0.9, 0, 0], [0, 1.1, 0]]
    )  # x lies along y, y along z, z along -x
    for matrix in (around, np.diag([-0.9, 1.1, -2.0])):
        affine = nib.affines.from_matvec(matrix, [5, -7, 11])
        path = write_scan(tmp_path / "scan.nii.gz", affine=affine)
        image = sitk.ReadImage(str(path))
        labels = sitk.GetArrayFromImage(model.predict(path))
        assert np.array_equal(sitk.GetArrayFromImage(model.predict(image)), labels)
        assert np.array_equal(np.asarray(model.predict(nib.load(path)).dataobj).T, labels)
    upright = sitk.GetArrayFromImage(image)[::-1, :, ::-1]  # the axes of training
    mask = model.predict(upright, spacing=image.GetSpacing()[::-1])
    assert np.array_equal(mask[::-1, :, ::-1], labels)
    as_stored = model.predict(sitk.GetArrayFromImage(image), spacing=image.GetSpacing()[::-1])
    assert not np.array_equal(as_stored, labels)


def test_threads_share_a_model(model, path, by_command):
    found = {}

    def work(name):
        found[name] = sitk.GetArrayFromImage(model.predict(path)).T

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[k], by_command) for k in range(3))


def test_a_folder_of_two_images_is_no_image(model, tmp_path):
    for name in ("a", "b"):
        write_scan(tmp_path / f"{name}.nii.gz")
    with pytest.raises(CaseError, match="must be one image, it holds 2"):
        model.predict(tmp_path)


def test_a_folder_that_holds_one_image_and_a_refused_one_is_no_image(model, tmp_path):
    for name in ("a.nii.gz", "b.nii.gz", "b.nii"):  # both b would make one mask
        write_scan(tmp_path / name)
    with pytest.raises(CaseError, match=r"b\.nii"):
        model.predict(tmp_path)


def test_what_a_record_would_note_is_logged(model, tmp_path, caplog):
    for name in "AB":
        (tmp_path / name).mkdir()
    write_series(tmp_path, uid="1.2.3", name=lambda z: f"{'AB'[z // 2]}/{z}")
    model.predict(tmp_path)
    assert "its files lie in 2 folders" in caplog.text


def test_without_mirroring_masks_are_others(trained, path, by_command):
    mask = dinomed3d.load_model(trained, device="cpu", mirroring=False).predict(path)
    assert not np.array_equal(sitk.GetArrayFromImage(mask).T, by_command)


VOXELS = np.ones((8, 8, 8), np.float32)
BAD = {
    "nothing there": (("no/such.nii.gz",), {}, "no/such.nii.gz"),
    "a number": ((5,), {}, "'image'"),
    "no spacing": ((VOXELS,), {}, "'spacing'"),
    "spacing of a path": (("a.nii.gz",), {"spacing": (1, 1, 1)}, "'spacing'"),
    "two numbers": ((VOXELS,), {"spacing": (1, 1)}, "'spacing'"),
    "zero": ((VOXELS,), {"spacing": (1, 0, 1)}, "'spacing'.*above 0"),
    "one number": ((VOXELS,), {"spacing": 1.0}, "'spacing'.*three numbers"),
    "spacing of lists": ((VOXELS.tolist(),), {"spacing": (1, 1, 1)}, "'image'.*numpy.asarray"),
    "text": ((__file__,), {}, "neither an image"),
    "two axes": ((VOXELS[0],), {"spacing": (1, 1, 1)}, "'image'"),
    "two channels": ((np.stack([VOXELS] * 2),), {"spacing": (1, 1, 1)}, "'image'"),
    "NaN": ((VOXELS * np.nan,), {"spacing": (1, 1, 1)}, "finite"),
    "colours": ((sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3),), {}, "SimpleITK"),
    "two files": ((["a.nii.gz", "b.nii.gz"],), {}, "'image'"),
    "less than a voxel": ((VOXELS,), {"spacing": (0.01, 0.01, 0.01)}, "voxel"),
}


def test_what_progress_raises_ends_the_prediction_and_is_raised(model, path):
    class Enough(Exception):
        pass

    def progress(fraction):
        raise Enough

    with pytest.raises(Enough):
        model.predict(path, progress=progress)
    assert model.predict(path) is not None


def test_loading_a_model_leaves_the_programs_random_numbers(trained):
    before = torch.get_rng_state()
    dinomed3d.load_model(trained, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("words", "named", "part"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_segmented_is_refused_in_one_sentence(model, words, named, part):
    with pytest.raises(CaseError, match=part) as error:
        model.predict(*words, **named)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("named", "part"),
    [
        ({"precision": "half"}, "'precision'"),
        ({"precision": "float16"}, "load_model: 'precision' float16: this CPU has no instructions"),
        ({"step_size": 0}, "step-size"),
        ({"folds": [7]}, "folds"),
        ({"checkpoint": "none.pth"}, "none.pth"),
        ({"device": "gpu"}, "auto, cpu, cuda, mps"),
    ],
)
def test_options_are_checked(trained, named, part):
    with pytest.raises(UserError, match=part):
        dinomed3d.load_model(trained, **{"device": "cpu", **named})
