"""Flags that depend on the whole run: what of a corrected case is outdated."""

from dinomed3d.inference.report.run_flags import flag_edited


def test_a_corrected_case_names_what_is_still_the_predictions():
    record = {"status": "done", "flags": ["before"], "files": ["a.png", "a.seg.dcm", "a.npz"]}
    before, flag = flag_edited(record)["flags"]
    assert before == "before" and "DICOM segmentation" in flag and "probabilities" in flag
    seg = {"mask_sha256": "2"}
    again = {**record, "mask": {"sha256": "1"}, "seg": seg}
    assert "DICOM" not in flag_edited(again)["flags"][1]
    assert "DICOM" in flag_edited({**again, "mask": {"sha256": "2"}})["flags"][1]  # it is older
    (alone,) = flag_edited({**record, "flags": [], "files": ["a.png"]})["flags"]
    assert "DICOM" not in alone and "probabilities" not in alone
    assert flag_edited({**record, "status": "failed"})["flags"] == ["before"]
