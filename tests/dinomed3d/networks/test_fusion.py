"""Gated fusion against numbers worked by hand."""

import torch

from dinomed3d.networks.fusion import GatedFusion


def test_by_hand():
    """detail 2, semantic 3: update 0.5 * 3 + 1 = 2.5; gate sigmoid(0.4 * 2 - 0.2 * 2.5 + 0.1) = sigmoid(0.4)."""
    fusion = GatedFusion(1, 1)
    with torch.no_grad():
        fusion.enter.weight.fill_(0.5)
        fusion.enter.bias.fill_(1.0)
        fusion.gate.weight.copy_(torch.tensor([0.4, -0.2]).reshape(1, 2, 1, 1, 1))
        fusion.gate.bias.fill_(0.1)
    found = fusion(torch.full((1, 1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1, 1), 2.0))
    assert torch.allclose(found, torch.tensor(2 + torch.sigmoid(torch.tensor(0.4)).item() * 2.5))


def test_detail_passes_unchanged_at_the_start_and_the_update_learns_at_once():
    torch.manual_seed(0)
    fusion = GatedFusion(4, 6)
    semantic, detail = torch.randn(2, 4, 2, 3, 3), torch.randn(2, 6, 2, 3, 3)
    found = fusion(semantic, detail)
    assert torch.equal(found, detail)
    found.square().sum().backward()
    assert fusion.enter.weight.grad.any() and fusion.enter.bias.grad.any()
