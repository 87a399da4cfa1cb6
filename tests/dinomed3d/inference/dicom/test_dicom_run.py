"""DICOM through the whole run: real series in, masks on their grid and DICOM segmentations out."""

import json
import shutil
import zipfile
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import SimpleITK as sitk

from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from tests.dinomed3d.inference.models.write_model import write_model


def test_series_in_segmentations_out(shared, tmp_path):
    source = tmp_path / "in"
    data = shared / "data" / "medical"
    shutil.copytree(data / "hippocrop_dicom", source / "hippocrop")
    shutil.copytree(data / "dicom_ge_tilt_ct", source / "tilted")
    with zipfile.ZipFile(source / "zipped.zip", "w") as archive:
        for path in sorted((data / "dicom_torchio_ct").rglob("*")):
            if path.is_file():
                archive.write(path, path.name)
    spec = PredictSpec(
        source=str(source),
        out=str(tmp_path / "out"),
        model=str(write_model(tmp_path, mirroring=None)),
        engine="threads",
        device="cpu",
        dicom_seg=True,
        step_size=1.0,
    )
    outcome = predict(spec, lambda event: None)
    assert len(outcome.done) == 4, outcome.failed  # three small series and the zipped one
    (reason,) = outcome.failed.values()
    assert "tilt" in reason
    for case in outcome.done:
        record = json.loads((tmp_path / "out" / f"{case}.json").read_text())
        assert f"{case}.seg.dcm" in record["files"], record["flags"]
        mask = nib.load(tmp_path / "out" / f"{case}.nii.gz")
        values = np.asanyarray(mask.dataobj).T  # (Z, Y, X)
        segmentation = highdicom.seg.segread(tmp_path / "out" / f"{case}.seg.dcm")
        volume = segmentation.get_volume(combine_segments=True)
        assert volume.array.shape == values.shape
        # the same labels at the same places in the patient, by two routes: LPS against RAS
        place = np.diag([-1, -1, 1, 1.0]) @ volume.affine @ [0, 0, 0, 1]
        x, y, z, _ = np.linalg.inv(mask.affine) @ place
        flips = [int(round(v)) != 0 for v in (z, y, x)]
        ours = values[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
        assert ((volume.array > 0) == (ours > 0)).all()
        assert values.any()


def test_a_series_equals_the_same_scan_as_nifti(shared, tmp_path):
    """Read as DICOM, and converted by ITK before: the same mask in space."""
    below = sorted((shared / "data" / "medical" / "hippocrop_dicom").rglob("*"))
    folder = next(path for path in below if path.is_file()).parent
    reader = sitk.ImageSeriesReader()
    series = reader.GetGDCMSeriesIDs(str(folder))[0]
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    source = tmp_path / "in"
    source.mkdir()
    sitk.WriteImage(reader.Execute(), str(source / "nifti.nii.gz"))
    shutil.copytree(folder, source / "dicom")
    spec = PredictSpec(
        source=str(source),
        out=str(tmp_path / "out"),
        model=str(write_model(tmp_path, mirroring=None)),
        engine="threads",
        device="cpu",
        step_size=1.0,
    )
    outcome = predict(spec, lambda event: None)
    assert len(outcome.done) == 2, outcome.failed
    images = [sitk.ReadImage(str(path)) for path in sorted(Path(spec.out).glob("*.nii.gz"))]
    one, two = images
    same = sitk.Resample(one, two, sitk.Transform(), sitk.sitkNearestNeighbor)
    a, b = sitk.GetArrayFromImage(same), sitk.GetArrayFromImage(two)
    assert b.any() and (a == b).mean() > 0.999
