"""Whole runs in this process: what they write."""

from pathlib import Path

import blosc2
import nibabel as nib
import numpy as np
import pytest

from dinomed3d.inference.cohort.events import CaseStarted
from tests.dinomed3d.inference.cohort.runs import record, run, write_scan
from tests.dinomed3d.inference.models.write_model import write_model
from tests.dinomed3d.training.conftest import REGIONS


def test_everything_a_case_leaves(spec):
    outcome, events = run(spec)
    assert outcome.done == ("scan0", "scan1", "scan2") and not outcome.failed
    out = Path(spec.out)
    names = {path.name for path in out.iterdir()}
    ours = {f"scan{i}{e}" for i in range(3) for e in (".nii.gz", ".json", ".png")}
    assert names == ours | {"report.html", "report.csv", "run.json", "labels.ctbl"}
    assert (out / "labels.ctbl").read_text().splitlines()[3:] == [
        *("1 a 230 159 0 255", "2 b 86 180 233 255"),
    ]
    mask = nib.load(out / "scan1.nii.gz")
    scan = nib.load(Path(spec.source) / "scan1.nii.gz")
    assert mask.shape == scan.shape and np.array_equal(mask.affine, scan.affine)
    values = np.asanyarray(mask.dataobj)
    assert mask.get_data_dtype() == np.uint8 and set(np.unique(values)) >= {1, 2}
    written = record(spec, "scan1")
    voxel_ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    count = int((values == 1).sum())
    assert written["labels"]["a"]["voxels"] == count
    assert written["labels"]["a"]["volume_ml"] == pytest.approx(count * voxel_ml, rel=1e-3)
    assert 0 < written["certainty"] <= 1
    assert set(written["seconds"]) == {"estimate", "read", "preprocess", "network", "write"}
    assert written["orientation"] == "LAS" and written["peak_memory_gib"] > 0
    assert written["precision"] == "float32" and written["settings"]["step_size"] == 0.5
    starts = [event.case for event in events if isinstance(event, CaseStarted)]
    assert starts == ["scan0", "scan1", "scan2"]


@pytest.mark.parametrize("labels", ["plain", "regions"])
@pytest.mark.parametrize("orientation", [None, "PIR"])
def test_probabilities_say_what_the_mask_says(spec, tmp_path, labels, orientation):
    model = write_model(tmp_path / labels, labels=REGIONS) if labels == "regions" else spec.model
    outcome, _ = run(
        spec, model=str(model), save_probabilities="b2nd", orientation=orientation, step_size=1.0
    )
    assert len(outcome.done) == 3, outcome.failed
    probabilities = blosc2.open(str(Path(spec.out) / "scan0.b2nd"))[:]
    mask = np.asanyarray(nib.load(Path(spec.out) / "scan0.nii.gz").dataobj).T
    assert probabilities.shape[1:] == mask.shape and probabilities.dtype == np.float16
    if labels == "regions":
        assert ((probabilities > 0.5).any(0) == (mask > 0)).mean() > 0.99
    else:
        np.testing.assert_allclose(probabilities.sum(0, dtype=np.float32), 1, atol=2e-3)
        assert (probabilities.argmax(0) == mask).mean() > 0.99  # float16 makes ties
    assert not list(Path(spec.out).glob(".*"))


def test_reoriented_volumes_give_reoriented_masks(spec):
    """The same scan stored in another order of axes: with --orientation the mask is the same in space."""
    source = Path(spec.source)
    straight = np.diag([1.0, 1.0, 1.0, 1.0])
    write_scan(source / "scan0.nii.gz", affine=straight)
    image = nib.load(source / "scan0.nii.gz")
    turned = image.as_reoriented([[2, -1], [0, 1], [1, -1]])
    nib.save(turned, source / "scan1.nii.gz")
    run(spec, orientation="RAS")
    one, two = (
        nib.as_closest_canonical(nib.load(Path(spec.out) / f"scan{i}.nii.gz")) for i in (0, 1)
    )
    np.testing.assert_allclose(one.affine, two.affine)
    assert np.array_equal(np.asanyarray(one.dataobj), np.asanyarray(two.dataobj))
