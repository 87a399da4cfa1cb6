"""Numbers of things."""

from dinomed3d.runtime.messages.counted import counted, shortly, sides


def test_one_thing_is_singular() -> None:
    assert [counted(n, "DICOM file") for n in (0, 1, 2)] == [
        "0 DICOM files",
        "1 DICOM file",
        "2 DICOM files",
    ]


def test_of_many_names_the_first_are_shown() -> None:
    assert shortly({"a": 1, "b": 2}) == "a, b" and shortly((), most=2) == ""
    assert shortly(("a", "b", "c"), most=2) == "a, b and 1 more"


def test_sides_keep_their_order_and_no_trailing_zeros() -> None:
    assert sides((3.0, 0.5, 12)) == "3 x 0.5 x 12" and sides((7,)) == "7"
