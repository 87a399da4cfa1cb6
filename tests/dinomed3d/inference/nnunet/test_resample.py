"""Resampling: by hand, properties, and against nnU-Net's own."""

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.resampling.default_resampling import (
    compute_new_shape,
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

import dinomed3d.inference.nnunet.resample as resample_module
from dinomed3d.inference.nnunet.resample import (
    Resampling,
    axis_matrix,
    linear,
    nearest,
    new_shape,
    resample,
    resample_array,
)


def reader(array, axis=None):
    planes = np.moveaxis(array, axis or 0, 0)
    return lambda part: torch.from_numpy(np.ascontiguousarray(planes[part]))


def test_linear_by_hand():
    # two voxels to four: centres at -0.25, 0.25, 0.75, 1.25 of the old ones
    first, second, weight = linear(2, 4)
    assert first.tolist() == [0, 0, 0, 1] and second.tolist() == [0, 1, 1, 1]
    assert weight.tolist() == [0, 0.25, 0.75, 0]
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    torch.testing.assert_close(axis_matrix(2, 4, 1), torch.tensor(expected))


def test_nearest_by_hand():
    assert nearest(2, 4).tolist() == [0, 0, 1, 1]
    assert nearest(5, 2).tolist() == [1, 3]  # centres at 0.75 and 3.25
    assert axis_matrix(2, 3, 0).tolist() == [[1, 0], [0, 1], [0, 1]]  # a centre at 0.5 goes up


def test_shapes_are_rounded_as_nnunet_rounds_them():
    assert new_shape((100, 10, 1), (0.7, 1.0, 3.0), (0.8, 1.0, 3.0)) == (87, 10, 1)  # not 88
    rng = np.random.default_rng(0)
    steps = np.round(np.arange(0.1, 5, 0.05), 2)
    for _ in range(5000):
        shape = tuple(int(n) for n in rng.integers(1, 600, 3))
        old, new = rng.choice(steps, 3).tolist(), rng.choice(steps, 3).tolist()
        assert new_shape(shape, old, new) == tuple(compute_new_shape(shape, old, new))


@pytest.mark.parametrize("order", [0, 1, 3])
def test_constant_in_constant_out(order):
    for size, new_size in ((7, 11), (11, 7), (1, 4), (5, 1)):
        matrix = axis_matrix(size, new_size, order)
        torch.testing.assert_close(matrix.sum(1), torch.ones(new_size))


def test_the_same_size_is_the_identity():
    torch.testing.assert_close(axis_matrix(9, 9, 3), torch.eye(9))


GRIDS = [
    ((20, 30, 25), (31, 22, 40), (1.5, 1, 1), (1, 1.4, 0.7)),
    ((9, 40, 33), (17, 30, 50), (5, 0.8, 0.8), (2.5, 1, 0.6)),  # planes across axis 0
    ((40, 9, 33), (30, 9, 50), (0.8, 5, 0.8), (1, 5, 0.6)),  # across axis 1, whose size stays
    ((40, 33, 9), (41, 33, 15), (0.8, 0.8, 5), (0.8, 0.8, 3)),
    ((3, 40, 30), (3, 30, 20), (1, 1, 1), (1, 1, 1)),
    ((1, 40, 30), (1, 30, 45), (999, 1, 1), (999, 1, 1)),
    ((4, 5, 6), (4, 5, 6), (1, 1, 1), (1, 1, 1)),
]


@pytest.mark.parametrize(("shape", "new_shape", "spacing", "new_spacing"), GRIDS)
@pytest.mark.parametrize(
    ("function", "order"),
    [
        (resample_data_or_seg_to_shape, 3),
        (resample_data_or_seg_to_shape, 1),
        (resample_torch_fornnunet, 1),
    ],
)
def test_equals_nnunet(shape, new_shape, spacing, new_spacing, order, function, monkeypatch):
    monkeypatch.setattr(resample_module, "SLAB_VOXELS", 2000)  # several slabs
    data = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
    torch_one = function is resample_torch_fornnunet
    options = {} if torch_one else {"order": order, "order_z": 0}
    threads = torch.get_num_threads()
    expected = function(
        data.copy(), new_shape, spacing, new_spacing, is_seg=False, force_separate_z=None, **options
    )
    torch.set_num_threads(threads)
    _, axis = determine_do_sep_z_and_axis(None, spacing, new_spacing)
    orders = [0 if a == axis else order for a in range(3)]
    resampling = Resampling(
        shape=shape,
        new_shape=new_shape,
        orders=tuple(orders),
        separate=None if axis is None else int(axis),
        clip=not torch_one,
    )
    ours = resample_array(reader(data[0], resampling.separate), resampling, resampling.separate)
    np.testing.assert_allclose(ours.numpy(), expected[0], atol=3e-5 if torch_one else 2e-6)


def test_clips_as_skimage_does():
    step = np.zeros((1, 1, 8), np.float32)
    step[..., 4:] = 1  # a cubic spline overshoots at a step
    resampling = Resampling(shape=(1, 1, 8), new_shape=(1, 1, 16), orders=(3, 3, 3))
    held = resample(reader(step), resampling)
    free = Resampling(shape=(1, 1, 8), new_shape=(1, 1, 16), orders=(3, 3, 3), clip=False)
    assert held.min() == 0 and held.max() == 1
    assert resample(reader(step), free).max() > 1.01
