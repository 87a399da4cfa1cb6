"""Stage I's head and network: values by hand, sizes, and which tap is read."""

import pytest
import torch

from dinomed3d.lifting import build_encoder
from dinomed3d.networks.embedding import MultiSliceEmbedding
from dinomed3d.networks.proxy import ProxyHead, ProxyNetwork


def test_head_by_hand():
    """Two channels to one class, then bilinear: pixel centres lie at -.25, .25, .75, 1.25 cells."""
    head = ProxyHead(2, 1)
    with torch.no_grad():
        head.seg_layers.weight.copy_(torch.tensor([3.0, 5.0]).view(1, 2, 1, 1))
        head.seg_layers.bias.fill_(1.0)
    tap = torch.tensor([[[0.0, 1.0]], [[0.0, 2.0]]])[None]  # (1, 2, 1, 2): cells (0, 0) and (1, 2)
    logits = head(tap, (1, 4))
    assert logits.flatten().tolist() == pytest.approx(
        [1, 1 + 13 / 4, 1 + 3 * 13 / 4, 14]
    )  # from 1 to 3 + 10 + 1


@pytest.mark.parametrize("size", [(8, 12), (9, 13), (5, 4), (1, 1)])
def test_any_slice_keeps_its_size_and_place(tiny_encoder, size):
    """Padding lies below and to the right, and is cut off there."""
    embedding = MultiSliceEmbedding(slices=3, modalities=1, voxels_per_token=4, patch=16)
    embedding.inflate(tiny_encoder)
    network = ProxyNetwork(embedding, tiny_encoder, ProxyHead(24, 2))
    stacks = torch.randn(2, 3, *size)
    by_hand = torch.nn.functional.pad(stacks, (0, -size[1] % 4, 0, -size[0] % 4), mode="replicate")
    logits = network(stacks)
    assert logits.shape == (2, 2, *size)
    torch.testing.assert_close(logits, network(by_hand)[..., : size[0], : size[1]])


def test_the_last_tap_is_read():
    torch.manual_seed(0)
    encoder = build_encoder(
        "vit_small_patch16_dinov3", weights="none", frozen=False, embed_dim=24, depth=3,
        num_heads=2, init_values=1.0, taps=(0, 2),
    )  # fmt: skip
    embedding = MultiSliceEmbedding(slices=3, modalities=1, voxels_per_token=16, patch=16)
    network = ProxyNetwork(embedding, encoder, ProxyHead(24, 2))
    stacks = torch.randn(1, 3, 32, 32)
    network(stacks).sum().backward()
    assert encoder.vit.blocks[2].mlp.fc1.weight.grad.any()
    expected = network.head(encoder.maps(stacks)[1], (32, 32))
    torch.testing.assert_close(network(stacks), expected)
