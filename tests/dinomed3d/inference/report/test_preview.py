"""Previews: upright whatever way a volume is stored, and of every volume there is."""

import io
import itertools
import warnings

import numpy as np
import pytest
from PIL import Image

from dinomed3d.inference.report import preview
from dinomed3d.inference.report.preview import (
    anatomical_axes,
    centre_of_foreground,
    draw_preview,
    grey_window,
)

IDENTITY = np.eye(4).tolist()


def drawn(image, mask, spacing_mm=(1.0, 1.0, 1.0), affine=IDENTITY):
    png = draw_preview(image, mask, spacing_mm=spacing_mm, affine=affine)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), png


def rgb(value):
    colour = preview.COLOURS[(value - 1) % len(preview.COLOURS)]
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def where(picture, value):
    """Rows and columns of the pixels that have the pure colour of a label: its outline."""
    return np.nonzero((picture == rgb(value)).all(-1))


def body():
    """A cube in RAS, (Z, Y, X): label 1 right, 2 left, 3 anterior, 4 superior; near the middle planes."""
    mask = np.zeros((31, 31, 31), np.uint8)
    middle = slice(13, 18)
    mask[middle, middle, 25:29] = 1
    mask[middle, middle, 2:6] = 2
    mask[middle, 25:29, middle] = 3
    mask[25:29, middle, middle] = 4
    mask[2:6, middle, middle] = 5  # inferior and posterior, so that the centre is the middle
    mask[middle, 2:6, middle] = 6
    return mask, np.where(mask > 0, 200, 20).astype(np.int16)


def test_the_patient_is_upright():
    mask, image = body()
    picture, _ = drawn(image, mask)
    third = picture.shape[1] // 3
    axial, coronal, sagittal = (picture[:, k * third : (k + 1) * third] for k in range(3))
    middle = third / 2
    for panel in (axial, coronal):
        assert where(panel, 1)[1].max() < middle < where(panel, 2)[1].min()  # right is left
    half = picture.shape[0] / 2
    assert where(axial, 3)[0].max() < half < where(axial, 6)[0].min()  # anterior up
    assert where(coronal, 4)[0].max() < half < where(coronal, 5)[0].min()  # superior up
    assert where(sagittal, 4)[0].max() < half < where(sagittal, 5)[0].min()
    assert where(sagittal, 3)[1].max() < middle < where(sagittal, 6)[1].min()  # anterior left
    assert not len(where(axial, 4)[0]) and not len(where(sagittal, 1)[0])


def test_any_storage_order_gives_the_same_picture():
    mask, image = body()
    expected, _ = drawn(image, mask, spacing_mm=(3.0, 2.0, 1.0), affine=np.diag([1, 2, 3, 1]))
    matrix = np.diag([1.0, 2.0, 3.0, 1.0])
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            turn = np.zeros((4, 4))  # new voxel (x, y, z) -> old voxel (x, y, z)
            turn[3, 3] = 1
            for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
                turn[old, new] = -1 if flip else 1
                turn[old, 3] = 30 if flip else 0
            step = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
            turned = [v.T.transpose(order)[step].T for v in (image, mask)]
            spacing = [np.linalg.norm((matrix @ turn)[:3, axis]) for axis in (2, 1, 0)]
            picture, _ = drawn(*turned, spacing_mm=spacing, affine=(matrix @ turn).tolist())
            np.testing.assert_array_equal(picture, expected)


def test_axes_by_hand():
    assert anatomical_axes(IDENTITY) == [(2, True), (1, True), (0, True)]
    lps = np.diag([-1, -1, 1, 1])
    assert anatomical_axes(lps.tolist()) == [(2, True), (1, False), (0, False)]
    sagittal = [[0, 0, 2, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]  # x: P, y: I, z: R
    assert anatomical_axes(sagittal) == [(0, True), (2, False), (1, False)]
    c = np.sqrt(0.5)  # 45 degrees: still one direction for each
    oblique = [[c, -c, 0, 0], [c, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert sorted(world for world, _ in anatomical_axes(oblique)) == [0, 1, 2]
    flat = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert anatomical_axes(flat) == [(2, True), (1, True), (0, True)]


def test_letters_stand_where_they_belong(monkeypatch):
    written = []
    draw = preview.ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        preview.ImageDraw.ImageDraw,
        "text",
        lambda self, at, text, **more: (written.append(text), draw(self, at, text, **more)),
    )
    mask, image = body()
    drawn(image, mask)
    assert "".join(written) == "APRL" + "SIRL" + "SIAP"  # top, bottom, left, right


def test_planes_go_through_the_foreground():
    mask = np.zeros((10, 20, 30), np.uint8)
    assert centre_of_foreground(mask) == [5, 10, 15]
    mask[2:5, 4:9, 10:13] = 1
    assert centre_of_foreground(mask) == [3, 6, 11]
    pair = np.zeros((5, 5, 21), np.uint8)
    pair[2, 2, 3] = pair[2, 1:4, 17] = 1  # two organs: between them is nothing to see
    assert centre_of_foreground(pair) == [2, 2, 17]


def test_one_voxel_of_a_large_volume_is_found_and_drawn():
    mask = np.zeros((40, 300, 300), np.uint8)
    assert mask.size > preview.SAMPLE_VOXELS
    mask[21, 155, 201] = 2
    assert centre_of_foreground(mask) == [21, 155, 201]
    picture, _ = drawn(np.zeros(mask.shape, np.int16), mask)
    assert len(where(picture, 2)[0]) >= 3  # once in each panel


def test_proportions_follow_the_spacing():
    mask = np.ones((10, 20, 40), np.uint8)
    picture, _ = drawn(np.zeros(mask.shape), mask, spacing_mm=(8.0, 2.0, 1.0))
    rim = (picture == rgb(1)).all(-1)  # the outline runs around each panel
    panels = np.split(rim, np.flatnonzero(np.diff(rim.any(0).astype(int))) + 1, axis=1)
    rows = [np.flatnonzero(panel.any(1)) for panel in panels]
    sizes = [(np.ptp(r) + 1) / p.shape[1] for r, p in zip(rows, panels, strict=True) if len(r)]
    assert sizes == pytest.approx([1, 2, 2], rel=0.02)  # 40 x 40, 80 x 40 and 80 x 40 mm


def test_odd_volumes_are_drawn():
    rng = np.random.default_rng(0)
    worst = rng.normal(size=(6, 7, 8))
    worst[0, 0, :5] = np.nan, np.inf, -np.inf, 1e308, -1e308
    odd = [
        np.zeros((5, 6, 7)),
        np.full((5, 6, 7), np.nan),
        np.full((5, 6, 7), 1e308),
        np.where(worst > 0, 1e308, -1e308),
        worst,
        rng.normal(size=(1, 30, 40)),
        rng.normal(size=(30, 1, 40)),
        rng.normal(size=(1, 1, 1)),
        rng.normal(size=(1, 1, 500)),
    ]
    types = ("u1", "i1", ">i2", "<u2", "i4", "u8", "f4", ">f8", "f2", "?")
    odd += [body()[1].astype(dtype) for dtype in types]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for image in odd:
            for value in (0, 1):
                picture, _ = drawn(image, np.full(image.shape, value, np.uint8))
                assert picture.size


def test_many_labels_reuse_the_colours():
    mask = np.full((4, 4, 4), 300, np.uint16)
    picture, _ = drawn(np.zeros(mask.shape), mask)
    assert len(where(picture, 300)[0]) and not len(where(picture, 300 % 256)[0])


def test_the_window_leaves_out_extremes():
    image = np.arange(1001.0).reshape(7, 11, 13)
    assert grey_window(image) == pytest.approx((10, 990))
    image[0, 0, :3] = np.nan, np.inf, -np.inf
    low, high = grey_window(image)
    assert 10 <= low < 20 and 989 < high < 992


@pytest.mark.parametrize(
    "image, mask",
    [
        ((4, 4, 4), (4, 4, 5)),
        ((4, 4), (4, 4)),
        ((2, 4, 4, 4), (2, 4, 4, 4)),
        ((0, 4, 4), (0, 4, 4)),
    ],
)
def test_what_is_not_two_volumes_is_refused(image, mask):
    with pytest.raises(ValueError, match="'image' and 'mask'"):
        drawn(np.zeros(image), np.zeros(mask, np.uint8))


def test_hippocampus(shared):
    import nibabel as nib

    folder = shared / "data/medical/Dataset004_Hippocampus"
    file = sorted((folder / "labelsTr").glob("*.nii.gz"))[0]
    seg = nib.load(file)
    image = nib.load(folder / "imagesTr" / file.name.replace(".nii.gz", "_0000.nii.gz"))
    arrays = [np.asanyarray(volume.dataobj).T for volume in (image, seg)]
    picture, png = drawn(
        arrays[0], arrays[1].astype(np.uint8), image.header.get_zooms()[2::-1], image.affine
    )
    assert 10_000 < len(png) < 80_000
    anterior, posterior = (where(picture[:, -250:], value)[1] for value in (1, 2))
    assert anterior.mean() < posterior.mean()  # in the sagittal slice, the nose is on the left
