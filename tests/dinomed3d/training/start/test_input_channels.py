"""Kernels of input layers for other channels, by hand."""

import pytest
import torch

from dinomed3d.networks.embedding import inflate_kernel
from dinomed3d.training.start.input_channels import channel_matrix, describe_channels, with_channels

T = torch.tensor


@pytest.mark.parametrize(
    ("source", "target", "matrix"),
    [
        (["MRI"], ["MRI"], [[1.0]]),
        (["CT"], ["T1"], [[1.0]]),  # by position
        (["a", "b"], ["c", "d"], [[1.0, 0.0], [0.0, 1.0]]),  # by position
        (["T1", "FLAIR"], ["flair", "t1"], [[0.0, 1.0], [1.0, 0.0]]),  # by name
        (["T1", "FLAIR"], ["FLAIR"], [[0.0, 2.0]]),
        (["T1"], ["T1", "FLAIR"], [[0.5], [0.5]]),
        (["T1", "FLAIR"], ["T1", "PD"], [[1.0, 0.0], [0.5, 0.5]]),
        (["T1", "FLAIR"], ["CT"], [[1.0, 1.0]]),  # half of their sum, times two
        (["T1", "T1"], ["T1"], [[1.0, 1.0]]),  # a name that stands twice says nothing
        (["T1", "T1"], ["T1", "FLAIR"], [[1.0, 0.0], [0.0, 1.0]]),
    ],
)
def test_which_kernel_reads_which_channel(source, target, matrix):
    assert torch.equal(channel_matrix(source, target), T(matrix))


def test_an_embedding_keeps_its_slices_apart():
    """Two slices of two channels: a b, c d; the second channel alone is left."""
    kernel = T([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)
    matrix = channel_matrix(["T1", "FLAIR"], ["FLAIR"])
    found = with_channels(kernel, matrix, slices=2, cascade=torch.zeros(0, 0))
    assert found.flatten().tolist() == [4.0, 8.0]


def test_labels_of_the_cascade_follow_the_channels():
    kernel = T([1.0, 5.0, 6.0]).reshape(1, 3, 1, 1, 1)
    matrix = channel_matrix(["T1"], ["T1", "FLAIR"])
    found = with_channels(kernel, matrix, slices=1, cascade=T([[1.0, 0.0], [0.0, 1.0]]))
    assert found.flatten().tolist() == [0.5, 0.5, 5.0, 6.0]
    found = with_channels(kernel, matrix, slices=1, cascade=torch.zeros(1, 2))
    assert found.flatten().tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 1), (2, 4)])
def test_it_agrees_with_the_inflation_of_pretrained_kernels(before, after):
    """An embedding inflated for some channels and then given others is one inflated for those."""
    rgb = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    kernel = inflate_kernel(rgb, slices=3, modalities=before)
    matrix = channel_matrix([f"a{i}" for i in range(before)], [f"b{i}" for i in range(after)])
    found = with_channels(kernel, matrix, slices=3, cascade=torch.zeros(0, 0))
    torch.testing.assert_close(found, inflate_kernel(rgb, slices=3, modalities=after))


def test_the_log_says_where_kernels_come_from():
    assert describe_channels(["T1", "FLAIR"], ["T1", "FLAIR"]) == ""
    said = describe_channels(["T1", "FLAIR"], ["FLAIR", "PD", "CT"])
    for words in ("FLAIR from FLAIR", "PD from the mean", "CT from the mean", "2/3"):
        assert words in said
