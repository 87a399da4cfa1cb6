"""Real files of many origins: each is read as nnU-Net reads it and keeps its grid, or says why not."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io.image import read_case
from tests.dinomed3d.inference.image_files import case
from tests.dinomed3d.inference.io.test_image import keeps_grid

FOLDERS = (
    *("nifti_oddities", "sct", "pyradiomics", "totalseg_samples"),
    "brats2015_deepmedic/brats_2013_pat0003_1",
)
REFUSED = {
    "example4d.nii.gz": "128 x 96 x 24 x 2",
    "example_nifti2.nii.gz": "32 x 20 x 12 x 2",
    "functional.nii": "17 x 21 x 3 x 20",
    "dmri.nii.gz": "40 x 42 x 5 x 7",
    "fmri.nii.gz": "68 x 68 x 6 x 30",
    "resampled_anat_moved.nii": "NaN",
}
ENDINGS = (".nii", ".nii.gz", ".mha", ".nrrd")


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_read_or_refused(shared, folder, tmp_path, capfd):
    seen = Counter()
    for path in sorted((shared / "data" / "medical" / folder).rglob("*")):
        if not path.name.endswith(ENDINGS) or path.stat().st_size > 3_000_000:
            continue
        try:
            grid = keeps_grid(path, tmp_path)
        except CaseError as err:
            assert REFUSED.get(path.name, "nothing") in str(err), str(err)
            assert str(path) in str(err) and "\n" not in str(err)
            seen["refused"] += 1
            continue
        assert path.name not in REFUSED
        seen["read"] += 1
        as_nnunet_reads(path, grid)
    assert seen["read"] > 1


def as_nnunet_reads(path: Path, grid) -> None:
    volume = read_case(case(path), ["image"])
    for reader in (SimpleITKIO(), NibabelIO()):
        if isinstance(reader, NibabelIO) and not grid.ending.startswith(".nii"):
            continue
        array, properties = reader.read_images([str(path)])
        np.testing.assert_allclose(array[0], volume.channels[0], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(properties["spacing"], grid.spacing_mm, rtol=1e-6)


def test_three_real_channels_on_one_grid(shared):
    folder = shared / "data" / "medical" / "sct" / "mt"
    files = [folder / name for name in ("mt0.nii.gz", "mt1.nii.gz", "t1w.nii.gz")]
    assert len(read_case(case(*files), ["MT0", "MT1", "T1"]).channels) == 3
