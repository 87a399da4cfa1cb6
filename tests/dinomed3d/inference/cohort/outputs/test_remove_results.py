"""Results that are removed: not what someone has drawn into them."""

import pytest

from dinomed3d.inference.cohort.outputs.mask_digest import sha256
from dinomed3d.inference.cohort.outputs.record import write_record
from dinomed3d.inference.cohort.outputs.remove_results import remove_results


@pytest.mark.parametrize("state", ["as written", "drawn into", "record damaged"])
def test_a_corrected_mask_of_the_original_slices_is_kept(tmp_path, state):
    (tmp_path / "p").mkdir()
    mask, slices = tmp_path / "p/a.nii.gz", tmp_path / "p/a.slices.nii.gz"
    mask.write_bytes(b"mask")
    slices.write_bytes(b"slices")
    digest = sha256(mask)
    entry = {"mask_sha256": digest, "file": "p/a.slices.nii.gz", "sha256": sha256(slices)}
    lists = {"files": ["p/a.slices.nii.gz"], "flags": [], "inputs": []}
    tables = dict.fromkeys(("model", "settings", "seconds", "grid", "labels"), {})
    record = {"case": "p/a", "status": "done", "orientation": "LPS", "slices": entry}
    record["mask"] = {"file": "p/a.nii.gz", "sha256": digest}
    if state == "record damaged":  # then nobody can say what was drawn
        del record["orientation"]
    write_record(tmp_path, record | lists | tables)
    if state != "as written":
        slices.write_bytes(b"drawn")
        (tmp_path / "p/a.slices.edited1.nii.gz").write_bytes(b"earlier")
    remove_results(tmp_path, "p/a")
    left = {path.name: path.read_bytes() for path in (tmp_path / "p").glob("*.nii.gz")}
    kept = {"a.slices.edited1.nii.gz": b"earlier", "a.slices.edited2.nii.gz": b"drawn"}
    if state == "record damaged":
        kept["a.edited1.nii.gz"] = b"mask"
    assert left == ({} if state == "as written" else kept)
