"""Multi-slice embedding: the inflated kernel and the enlarged slices."""

import pytest
import torch

from dinomed3d.lifting import build_encoder
from dinomed3d.networks.embedding import MultiSliceEmbedding, colours_of, inflate_kernel

KERNEL = torch.tensor([1.0, 10.0, 100.0])[None, :, None, None]  # (1, 3, 1, 1): red, green, blue


def test_three_slices_of_one_modality_keep_the_rgb_kernel():
    assert torch.equal(inflate_kernel(KERNEL, slices=3, modalities=1), KERNEL)


def test_one_slice_gets_the_sum_of_the_colours():
    assert inflate_kernel(KERNEL, slices=1, modalities=1).flatten().tolist() == [111.0]


def test_five_slices_spread_each_colour_around_its_place():
    # triangles of reach 1 around 0, 1, 2, read at 0, .5, 1, 1.5, 2 and divided by their sums 1.5, 2, 1.5
    expected = [1 / 1.5, 0.5 / 1.5 + 10 * 0.25, 10 * 0.5, 10 * 0.25 + 100 * 0.5 / 1.5, 100 / 1.5]
    found = inflate_kernel(KERNEL, slices=5, modalities=1).flatten()
    assert torch.allclose(found, torch.tensor(expected))


def test_colours_keep_their_kernel_in_their_order():
    found = inflate_kernel(KERNEL, slices=1, modalities=3, colours=(2, 0, 1)).flatten().tolist()
    assert found == [100.0, 1.0, 10.0]
    # neighbouring slices are the other colours: then each is shared as by any channels
    shared = inflate_kernel(KERNEL, slices=3, modalities=3, colours=(0, 1, 2))
    assert torch.equal(shared, inflate_kernel(KERNEL, slices=3, modalities=3))


@pytest.mark.parametrize(
    ("channels", "colours"),
    [
        (("R", "G", "B"), (0, 1, 2)),
        (("Blue", " green ", "RED"), (2, 1, 0)),
        (("T1", "T2", "FLAIR"), None),
        (("R", "G"), None),
        (("R", "G", "B", "A"), None),
        (("red", "green", "b"), None),
        ((), None),
    ],
)
def test_channels_are_colours_by_their_names(channels, colours):
    assert colours_of(channels) == colours


def test_modalities_share_equally_and_stand_inside_slices():
    found = inflate_kernel(KERNEL, slices=3, modalities=2).flatten().tolist()
    assert found == [0.5, 0.5, 5.0, 5.0, 50.0, 50.0]


@pytest.mark.parametrize("slices", [1, 3, 5, 7, 9])
@pytest.mark.parametrize("modalities", [1, 2, 4])
def test_a_constant_volume_gives_the_same_tokens(slices, modalities):
    settings = dict(embed_dim=24, depth=1, num_heads=2)
    rgb = build_encoder("vit_small_patch16_dinov3", weights="none", **settings)
    expected = rgb.embed(torch.full((1, 3, 32, 48), 0.7))[0]
    embedding = MultiSliceEmbedding(
        slices=slices, modalities=modalities, voxels_per_token=4, patch=16
    )
    embedding.inflate(rgb)
    images = embedding(torch.full((1, modalities, 5, 8, 12), 0.7))
    found = rgb.embed(images)[0]
    assert images.shape == (5, slices * modalities, 32, 48)
    assert torch.allclose(found, expected.expand_as(found), atol=1e-5)


def test_slices_are_enlarged_without_moving():
    """A ramp along x stays the same ramp: voxel centres keep their place under enlargement."""
    ramp = torch.arange(8.0).expand(1, 1, 1, 4, 8)
    embedding = MultiSliceEmbedding(slices=1, modalities=1, voxels_per_token=4, patch=16)
    image = embedding(ramp)[0, 0, 0]
    positions = (torch.arange(32) + 0.5) / 4 - 0.5
    assert torch.allclose(image, positions.clamp(0, 7), atol=1e-6)


@pytest.mark.parametrize(
    ("modalities", "tokens"),
    [
        (1, [1 + 10 + 200, 1 + 20 + 300, 2 + 30 + 300]),
        (2, [2 + 20 + 300, 2 + 30 + 400, 3 + 40 + 400]),  # means of (1, 3), (2, 4), (3, 5)
    ],
)
def test_from_volume_to_tokens_by_hand(tiny_encoder, modalities, tokens):
    """Weights 1, 10, 100 for the slices before, at and after; both ends count once more; bias 0.25."""
    proj = tiny_encoder.vit.patch_embed.proj
    with torch.no_grad():
        proj.weight.zero_()
        proj.weight[:, :, 0, 0] = KERNEL.flatten()
        proj.bias.fill_(0.25)
    embedding = MultiSliceEmbedding(slices=3, modalities=modalities, voxels_per_token=16, patch=16)
    embedding.inflate(tiny_encoder)
    assert tiny_encoder.in_channels == 3 * modalities
    volume = torch.stack([torch.tensor([1.0, 2, 3]) + 2 * m for m in range(modalities)])
    images = embedding(volume[None, :, :, None, None].expand(1, modalities, 3, 16, 16))
    found = tiny_encoder.vit.patch_embed(images)[:, 0, 0, 0]
    assert found.tolist() == [token + 0.25 for token in tokens]
