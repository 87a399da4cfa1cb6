"""Flags that depend on the whole run: what of a corrected case is outdated."""

from dinomed3d.inference.report.run_flags import flag_edited

RECORD = {
    "status": "done",
    "flags": ["before"],
    "files": ["a.seg.dcm", "a.slices.nii.gz", "a.npz", "a.png"],
    "mask": {"sha256": "first"},
    "rtstruct": {"mask_sha256": "first"},
}


def older(now="third", **entries):
    """What is named as of the prediction, and as of an earlier correction."""
    before, flag = flag_edited(
        RECORD | {name: {"mask_sha256": of} for name, of in entries.items()}, now
    )["flags"]
    assert before == "before" and flag.startswith("corrected by hand")
    predicted, _, between = flag.partition("as of an earlier correction: ")
    return predicted, between


def test_a_corrected_case_names_what_is_still_the_predictions():
    predicted, between = older()
    for what in ("volumes and preview", "original slices", "probabilities", "RT str", "DICOM seg"):
        assert what in predicted
    assert not between and "statistics" not in predicted and "single labels" not in predicted
    predicted, between = older(preview="third", slices="third", seg="third", rtstruct="third")
    assert "probabilities" in predicted and "certainty" in predicted and not between
    for what in ("preview", "original slices", "RT str", "DICOM seg"):
        assert what not in predicted
    assert flag_edited({**RECORD, "status": "failed"}, "third")["flags"] == ["before"]


def test_what_the_second_correction_could_not_replace_is_of_the_first():
    predicted, between = older(seg="second", statistics="second", preview="third")
    assert between == "statistics and DICOM segmentation"
    assert "DICOM" not in predicted and "RT structure set" in predicted
