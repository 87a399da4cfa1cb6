"""What cannot be written is known before the work."""

from pathlib import Path

import pytest

from dinomed3d.inference.cohort import resolve_options
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.cohort.runs import run


def test_dicom_seg_without_highdicom_ends_before_the_work(spec, monkeypatch):
    monkeypatch.setattr(resolve_options, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--dicom-seg"):
        run(spec, dicom_seg=True)
    assert not Path(spec.out).exists()
