"""Artefacts are the same for a seed and a case, grow with their strength, and move nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from dinomed3d.evaluation import artifacts
from dinomed3d.evaluation.artifacts import ARTIFACTS, degrade, degrade_file
from dinomed3d.runtime.errors import UserError

SPACING = (1.5, 1.0, 1.0)
EVERY = pytest.mark.parametrize("artifact", ARTIFACTS)


def scan(shape=(18, 24, 21), seed=0) -> np.ndarray:
    """Smooth structures of some voxels with an offset and a range as in CT."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=[n // 3 + 1 for n in shape])
    fine = np.kron(coarse, np.ones((3, 3, 3)))[tuple(slice(n) for n in shape)]
    return np.round(200 * fine - 500).astype(np.int16)


def degraded(image, artifact, strength, **more):
    return degrade(image, spacing_mm=SPACING, artifact=artifact, strength=strength, **more)


def deviation(image, artifact, strength, **more) -> float:
    found = degraded(image, artifact, strength, **more)
    return float(np.abs(found.astype(float) - image).mean() / image.std())


def test_the_table_is_complete_and_grows():
    assert {"motion", "ghosting", "bias_field", "noise", "anisotropy"} <= set(ARTIFACTS)
    for one in ARTIFACTS.values():
        assert 0 < one.values[0] < one.values[1] < one.values[2]
        assert one.parameter and one.reason


@EVERY
def test_strength_0_is_a_copy(artifact):
    image = scan()
    found = degraded(image, artifact, 0)
    assert np.array_equal(found, image) and not np.shares_memory(found, image)


@EVERY
def test_stronger_is_further_away_on_average(artifact):
    cases = [(scan(seed=k), f"case {k}") for k in range(4)]
    means = [
        np.mean([deviation(image, artifact, strength, case=case) for image, case in cases])
        for strength in (0, 1, 2, 3)
    ]
    assert means[0] == 0 < means[1] < means[2] < means[3]
    assert means[3] > 1.5 * means[1]


@EVERY
def test_the_pattern_depends_on_seed_and_case_only(artifact):
    image = scan()
    torch.manual_seed(1)
    one = degraded(image, artifact, 2, seed=3, case="a")
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert np.array_equal(one, degraded(image, artifact, 2, seed=3, case="a"))
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's numbers go on"
    if artifact not in ("anisotropy", "blur"):  # nothing in them is drawn
        assert not np.array_equal(one, degraded(image, artifact, 2, seed=4, case="a"))
        assert not np.array_equal(one, degraded(image, artifact, 2, seed=3, case="b"))


@EVERY
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_shape_and_type_are_kept(artifact, dtype):
    image = (scan() - scan().min() if dtype == np.uint8 else scan()).clip(-2000, 250).astype(dtype)
    before = image.copy()
    found = degraded(image, artifact, 3)
    assert found.shape == image.shape and found.dtype == image.dtype
    assert np.isfinite(found.astype(float)).all()
    assert np.array_equal(image, before), "the input stays"


@EVERY
def test_whole_numbers_are_rounded_and_end_at_the_limits_of_their_type(artifact):
    image = np.where(scan() > -500, 250, 3).astype(np.uint8)
    exact = degraded(image.astype(np.float64), artifact, 3)
    found = degraded(image, artifact, 3)
    assert np.array_equal(found, np.clip(np.rint(exact), 0, 255))


@EVERY
def test_an_offset_changes_nothing(artifact):
    """Values of CT begin at -1024, normalised ones are around 0: gain and spikes must not know."""
    image = scan().astype(np.float32)
    moved = degraded(image + 800, artifact, 2, case="a") - 800
    assert np.allclose(moved, degraded(image, artifact, 2, case="a"), atol=0.1)


@pytest.mark.parametrize("artifact", ["motion", "anisotropy", "blur"])
def test_what_moves_or_smooths_leaves_a_constant_alone(artifact):
    image = np.full((13, 16, 15), 40, np.int16)
    assert np.array_equal(degraded(image, artifact, 3), image)


def test_noise_has_the_stated_deviation():
    image = np.zeros((30, 40, 40), np.float32)
    image[15:] = 200  # percentiles 1 and 99 are 0 and 200
    for strength, share in enumerate(ARTIFACTS["noise"].values, start=1):
        difference = degraded(image, "noise", strength) - image
        assert difference.std() == pytest.approx(200 * share, rel=0.02)
        assert abs(difference.mean()) < 200 * share * 0.02


@pytest.mark.parametrize("slices", [14, 15, 16])
def test_kept_slices_of_anisotropy_stay_where_they_are(slices):
    """On a ramp along z interpolation is exact, unless slices are moved."""
    ramp = np.broadcast_to(np.arange(slices)[:, None, None] * 10.0, (slices, 5, 6)).copy()
    found = degraded(ramp, "anisotropy", 1)
    assert np.allclose(found[2:-2], ramp[2:-2], atol=1e-3)


def test_anisotropy_leaves_out_slices_of_the_axis_with_the_largest_voxel_side():
    image = np.random.default_rng(0).normal(size=(12, 12, 12))
    found = degrade(image, spacing_mm=(1, 1, 2), artifact="anisotropy", strength=1)
    same = [np.abs(np.diff(found, 2, axis=axis)).mean() for axis in range(3)]
    assert same[2] < 0.5 * min(same[:2])  # linear between the kept ones


def test_movements_turn_about_the_middle_of_the_volume():
    """A ball in the middle is the same after any rotation; about a corner it would leave the image."""
    import torchio

    z, y, x = np.indices((24, 24, 24)) - 11.5
    ball = torch.from_numpy(np.exp(-(z**2 + y**2 + x**2) / 3)).float()
    turn = torchio.Motion(
        degrees=np.array([[25.0, 0.0, 0.0]]),
        translation=np.zeros((1, 3)),
        times=np.array([0.45]),
        image_interpolation="linear",
    )
    known = artifacts._Scan((1.0, 1.0, 1.0), 1.0)
    found = artifacts._apply(turn, ball, known, [(0, 0)] * 3)
    assert (found - ball).abs().max() < 0.03


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_files_keep_grid_type_and_source(tmp_path: Path, ending):
    image = sitk.GetImageFromArray(scan())
    image.SetSpacing((0.9, 0.8, 2.5))
    image.SetOrigin((-10, 20, 31.5))
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    source, target = tmp_path / f"a{ending}", tmp_path / "out" / f"a{ending}"
    sitk.WriteImage(image, str(source))
    before = source.read_bytes()
    degrade_file(source, target, artifact="blur", strength=2, case="a")
    found = sitk.ReadImage(str(target))
    assert found.GetPixelID() == image.GetPixelID() and found.GetSize() == image.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(found, name)(), getattr(image, name)(), atol=1e-5)
    expected = degrade(scan(), spacing_mm=(2.5, 0.8, 0.9), artifact="blur", strength=2, case="a")
    assert np.array_equal(sitk.GetArrayFromImage(found), expected)
    assert source.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == [target.name]


REFUSED = {
    "artifact": ({"artifact": "rain"}, {}),
    "strength": ({"strength": 4}, {}),
    "spacing_mm": ({"spacing_mm": (1, 0, 1)}, {}),
    "(1, 24, 21)": ({}, {"shape": (1, 24, 21)}),
    "NaN": ({"image": np.full((4, 4, 4), np.nan)}, {}),
}


@pytest.mark.parametrize("named", REFUSED)
def test_mistakes_are_refused(named):
    changed, of_scan = REFUSED[named]
    arguments = {
        "image": scan(**of_scan),
        "spacing_mm": SPACING,
        "artifact": "noise",
        "strength": 1,
    }
    arguments |= changed
    with pytest.raises(UserError) as refused:
        degrade(arguments.pop("image"), **arguments)
    assert named in str(refused.value)


def test_files_that_are_no_volume_of_one_channel_are_refused(tmp_path: Path):
    flat, text = tmp_path / "flat.nii.gz", tmp_path / "text.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 2), np.int16), isVector=True), flat)
    text.write_text("no image")
    for source in (flat, text, tmp_path / "a.png"):
        with pytest.raises(UserError, match=source.name):
            degrade_file(source, tmp_path / "x.nii.gz", artifact="noise", strength=1)
    assert not (tmp_path / "x.nii.gz").exists()
