"""Measures and flags, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from dinomed3d.inference.report import quality
from dinomed3d.inference.report.quality import TrainingRange, flags, measure
from dinomed3d.inference.report.run_flags import flag_orientations
from tests.dinomed3d.inference.models.write_model import CT, tiny_plans

LABELS = {"background": 0, "liver": 1, "spleen": 2, "both": [1, 2], "ignore": 3}


def mask():
    array = np.zeros((4, 6, 8), np.uint8)
    array[1:3, 1:3, 1:3] = 1  # 8 voxels
    array[1, 4, 4] = 1  # and one apart, touching nothing by a face
    array[2, 3, 7] = 2  # at the last plane of x
    return array


def test_measure_by_hand():
    measured = measure(mask(), LABELS, voxel_ml=0.5)
    assert list(measured) == ["liver", "spleen", "both"]
    assert measured["liver"] == {
        "value": 1,
        "voxels": 9,
        "volume_ml": 4.5,
        "components": 2,
        "touches_border": False,
    }
    assert measured["spleen"]["voxels"] == 1 and measured["spleen"]["touches_border"]
    assert measured["both"] == {
        "value": [1, 2],
        "voxels": 10,
        "volume_ml": 5.0,
        "components": 3,
        "touches_border": True,
    }


def test_an_empty_mask_and_a_single_plane():
    measured = measure(np.zeros((2, 2, 2), np.uint16), LABELS, voxel_ml=1)
    for entry in measured.values():
        assert not (entry["voxels"] or entry["components"] or entry["touches_border"])
    flat = np.zeros((1, 5, 5), np.uint8)
    flat[0, 2, 2] = 1
    assert not measure(flat, {"a": 1}, voxel_ml=1)["a"]["touches_border"]


NOTHING = TrainingRange()


def judged(training=NOTHING, array=None, image=None, **options):
    array = mask() if array is None else array
    image = np.full(array.shape, 50.0) if image is None else image
    labels = measure(array, LABELS, voxel_ml=0.5)
    given = {"spacing_mm": (1.0, 1.0, 1.0), "certainty": 0.9} | options
    return flags(labels, training, channels=[image], mask=array, **given)


def test_nothing_known_nothing_judged():
    assert judged() == []


@pytest.mark.parametrize(
    ("training", "options", "expected"),
    [
        (TrainingRange(), {"array": np.zeros((2, 2, 2), np.uint8)}, "empty mask"),
        (TrainingRange(volumes_ml={"liver": (100.0, 200.0)}), {}, "liver: 4.5 ml, in training 100"),
        (TrainingRange(volumes_ml={"liver": (1.0, 3.0)}), {}, "liver: 4.5 ml"),
        (TrainingRange(spacing_mm=((1.0, 2.0),) * 3), {"spacing_mm": (5.0, 1, 1)}, "along z: 5 mm"),
        (
            TrainingRange(extent_mm=((40.0, 50.0),) * 3),
            {"spacing_mm": (9.0, 9, 1)},
            "along x: 8 mm",
        ),
        (TrainingRange(intensities={0: (-100.0, 40.0)}), {}, "median of 50"),
        (TrainingRange(), {"certainty": 0.5}, "low certainty: 0.50"),
        (
            TrainingRange(volumes_ml={"spleen": (0.5, 9.0)}),
            {"array": np.where(mask() == 2, 0, mask())},
            "spleen: not found",
        ),
    ],
)
def test_each_flag(training, options, expected):
    (flag,) = judged(training, **options)
    assert expected in flag


@pytest.mark.parametrize(
    ("training", "options"),
    [
        (TrainingRange(volumes_ml={"liver": (4.0, 4.4)}), {}),
        (TrainingRange(volumes_ml={"liver": (5.0, 9.0)}), {}),
        (TrainingRange(spacing_mm=((1.0, 2.0),) * 3), {"spacing_mm": (2.9, 0.7, 1)}),
        (TrainingRange(intensities={0: (-100.0, 60.0)}), {}),
        (TrainingRange(), {"certainty": None}),
    ],
)
def test_near_enough_is_not_flagged(training, options):
    assert judged(training, **options) == []


def test_nan_is_no_reason_to_flag():
    image = np.full(mask().shape, 50.0)
    image[:, :, ::2] = np.nan
    known = TrainingRange(intensities={0: (0.0, 60.0)})
    assert judged(known, image=image) == []
    assert judged(known, image=np.full_like(image, np.nan), certainty=np.nan) == []
    unknown = (np.nan, np.nan)
    unclear = TrainingRange(
        spacing_mm=(unknown,) * 3, intensities={0: unknown}, volumes_ml={"liver": unknown}
    )
    assert judged(unclear) == []


def test_intensity_is_read_where_something_is_labelled(monkeypatch):
    monkeypatch.setattr(quality, "SAMPLED_VOXELS", 60)  # of 7 planes only one is looked at
    array = np.zeros((7, 6, 8), np.uint8)
    array[3, 1:3, 1:3] = 1
    (flag,) = judged(TrainingRange(intensities={0: (0.0, 40.0)}), array=array)
    assert "median of 50" in flag


@pytest.mark.parametrize("wrong", [np.zeros((2, 2, 2), np.float32), np.zeros((2, 2), np.uint8)])
def test_measure_refuses_other_arrays(wrong):
    with pytest.raises(ValueError, match="'mask'"):
        measure(wrong, LABELS, voxel_ml=1)


def test_regions_of_many_labels_at_once():
    array = np.zeros((1, 1, 9), np.uint8)
    array[0, 0] = [1, 2, 0, 3, 0, 2, 3, 0, 1]
    labels = {"whole": [1, 2, 3], "core": (2, 3), "one": [1], "none": 200, "background": 0}
    measured = measure(array, labels, voxel_ml=2)
    assert {n: (m["voxels"], m["components"]) for n, m in measured.items()} == {
        "whole": (6, 4),
        "core": (4, 3),
        "one": (2, 2),
        "none": (0, 0),
    }
    assert measured["whole"]["touches_border"] and not measured["core"]["touches_border"]
    assert measured["core"]["value"] == [2, 3] and measured["one"]["value"] == 1


CT_RANGE = {"percentile_00_5": 0, "percentile_99_5": 1}


@pytest.mark.parametrize(
    "fingerprint",
    [
        {"spacings": [[1, 1, 1], [1, 1]], "shapes_after_crop": [[9, 9, 9], [9, 9]]},
        {"spacings": None, "shapes_after_crop": "?"},
        {"foreground_intensity_properties_per_channel": {"0": {"mean": 1.0}}},
        {"foreground_intensity_properties_per_channel": None},
        {"foreground_intensity_properties_per_channel": [[1]]},
        {
            "foreground_intensity_properties_per_channel": {
                "0": {**CT_RANGE, "percentile_00_5": "x"}
            }
        },
        {
            "foreground_intensity_properties_per_channel": {
                "0": {**CT_RANGE, "percentile_99_5": [2]}
            }
        },
    ],
)
def test_an_odd_fingerprint_is_not_compared_by(fingerprint):
    settings = tiny_plans(scheme="CTNormalization")["configurations"]["3d_fullres"]
    model = SimpleNamespace(fingerprint=fingerprint, settings=settings, label_volumes_ml=None)
    assert TrainingRange.of(model) == TrainingRange()


def test_axes_as_the_model_has_them():
    """A scan of thick sagittal slices, x stored slowest, and a model that has turned all to thick z."""
    known = TrainingRange(
        spacing_mm=((5.0, 5.0), (1.0, 1.0), (1.0, 1.0)),
        extent_mm=((40.0, 40.0), (6.0, 6.0), (4.0, 4.0)),
    )
    stored = {"spacing_mm": (1.0, 1.0, 5.0)}  # of 4 x 6 x 8 voxels: 4, 6, 40 mm
    assert judged(known, **stored, axes=(2, 1, 0)) == []
    assert [flag[:15] for flag in judged(known, **stored)] == [
        "spacing along z",
        "spacing along x",
        "extent along z:",
        "extent along x:",
    ]


def test_what_is_not_compared():
    assert len(NOTHING.not_compared) == 2
    known = TrainingRange(
        spacing_mm=((1.0, 2.0),) * 3, extent_mm=((1.0, 2.0),) * 3, volumes_ml={"liver": (1, 2)}
    )
    assert known.not_compared == ()


def test_range_of_a_model():
    def model(scheme):
        return SimpleNamespace(
            fingerprint={
                "spacings": [[2.0, 1.0, 1.0], [4.0, 0.5, 1.5]],
                "shapes_after_crop": [[10, 20, 30], [10, 20, 30]],
                "foreground_intensity_properties_per_channel": {"0": CT},
            },
            settings=tiny_plans(scheme=scheme)["configurations"]["3d_fullres"],
            label_volumes_ml={"a": [1.0, 2.0]},
        )

    known = TrainingRange.of(model("CTNormalization"))
    assert known.spacing_mm == ((2, 4), (0.5, 1), (1, 1.5))
    assert known.extent_mm == ((20, 40), (10, 20), (30, 45))
    assert known.intensities == {0: (-3, 4)} and known.volumes_ml == {"a": (1, 2)}
    assert not TrainingRange.of(model("ZScoreNormalization")).intensities  # no physical unit
    nothing = SimpleNamespace(fingerprint=None, settings=model("x").settings, label_volumes_ml=None)
    assert TrainingRange.of(nothing) == TrainingRange()


def test_the_odd_one_out_is_flagged():
    def case(orientation):
        return {"status": "done", "orientation": orientation, "flags": ["other"]}

    failed = {"status": "failed"}
    records = [case("RAS"), case("LPS"), failed, case("RAS")]
    shown = flag_orientations(records)
    assert [len(r.get("flags", [])) for r in shown] == [1, 2, 0, 1]
    assert "LPS" in shown[1]["flags"][1]
    assert len(records[1]["flags"]) == 1  # what is on disk is not touched
    assert flag_orientations([case("RAS"), case("LPS")]) == [case("RAS"), case("LPS")]
