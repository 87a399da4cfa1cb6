"""Numbers of things."""

from dinomed3d.runtime.counted import counted


def test_one_thing_is_singular() -> None:
    assert [counted(n, "DICOM file") for n in (0, 1, 2)] == [
        "0 DICOM files",
        "1 DICOM file",
        "2 DICOM files",
    ]
