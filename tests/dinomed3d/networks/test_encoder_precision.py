"""The encoder never runs in float16: its largest activations would become infinite."""

import pytest
import torch

from dinomed3d.lifting import stack_slices
from dinomed3d.networks import encoder_precision as module
from dinomed3d.networks.encoder_precision import encoder_precision
from tests.dinomed3d.networks.test_network import awaken, tiny

CPU = torch.device("cpu")


def large_activation(layer, inputs, output):
    """One value of a layer that is too large for float16."""
    output = output.clone()
    output[0, 7, 1] = 70_000.0
    return output


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("run", ["stage one", "volume", "shared"])
def test_float16_autocast_leaves_the_encoder_its_range(run, native, monkeypatch):
    monkeypatch.setattr(module, "has_native_bfloat16", lambda kind: native)
    network = awaken(tiny()).eval()
    vit = network.encoder.encoder.vit
    for layer in (vit.patch_embed.proj, vit.blocks[0].mlp.fc1, vit.blocks[3].mlp.fc1):
        layer.register_forward_hook(
            large_activation
        )  # of images, of a frozen block, of a tuned one
    volume = torch.randn(1, 1, 4, 24, 24)

    def logits():
        if run == "stage one":
            return network.stage_one()(stack_slices(volume, slices=3))
        if run == "volume":
            return network(volume)
        slices = network.encoder.each_slice(network.images(volume))
        return network(volume, network.encoder.across_slices(slices, depth=4))

    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            expected = logits().float()
        with torch.autocast("cpu", torch.float16):
            found = logits().float()
    assert found.isfinite().all()
    assert (found - expected).abs().mean() < 0.05 * expected.std()


def test_only_float16_is_replaced(monkeypatch):
    a = torch.ones(2, 2)
    for native, instead in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(module, "has_native_bfloat16", lambda kind, native=native: native)
        for around, inside in (
            (torch.float16, instead),
            (torch.bfloat16, torch.bfloat16),
            (None, torch.float32),
        ):
            with torch.autocast("cpu", around or torch.bfloat16, enabled=around is not None):
                with encoder_precision(CPU):
                    assert (a @ a).dtype == inside
                assert (a @ a).dtype == (around or torch.float32)  # what was there is there again


def test_without_autocast_float32_stays_float32():
    network = tiny().eval()
    with torch.no_grad():
        taps = network.encoder(network.embedding(torch.randn(1, 1, 2, 16, 16)), depth=2)
    assert {tap.dtype for tap in taps} == {torch.float32}
