"""Slice features shared by windows: the same masks, fewer slices through the encoder."""

import pytest
import torch

from dinomed3d.inference.nnunet.predictor import Predictor
from dinomed3d.inference.nnunet.slice_feature_cache import SliceFeatureCache, is_cacheable
from dinomed3d.inference.nnunet.sliding_window import WindowGrid, predict_windows
from dinomed3d.networks import CnnSpec, NetworkSpec, build_network
from tests.dinomed3d.inference.models.write_model import tiny_network

PATCH = (6, 16, 16)


def network(components=("encoder", "lora", "detail"), slices=3):
    torch.manual_seed(0)
    spec = NetworkSpec(
        encoder_overrides={"embed_dim": 24, "depth": 2, "num_heads": 2, "init_values": 1.0},
        taps=(0, 1),
        voxels_per_token=4,
        components=components,
        slices=slices,
        token_width=8,
        adapter_width=4,
        lora_rank=2,
        cnn=CnnSpec(
            widths=(4, 6, 8),
            strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
            kernels=((3, 3, 3),) * 3,
            blocks=(1, 1, 1),
            decoder_blocks=(1, 1),
        ),
    )
    built = build_network(1, 3, **spec.to_arch_kwargs())
    for parameter in built.parameters():  # zero-initialised parts too
        torch.nn.init.normal_(parameter, std=0.1)
    return built.eval()


def run(predictor, data):
    grid = WindowGrid.over(data.shape[1:], PATCH, 0.5)
    predictor.clear_cache()
    slabs = predict_windows(data, grid, (0, data.shape[2]), predictor.predict, heads=3, batch=2)
    return torch.cat([slab.logits for slab in slabs], 1)


class Plain(torch.nn.Module):
    """Hides what a network is, so that nothing is shared."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, windows):
        return self.inner(windows)


@pytest.mark.parametrize("mirroring", [None, (0, 2)])
@pytest.mark.parametrize("slices", [1, 3, 5])
def test_shared_features_change_nothing(mirroring, slices):
    built = network(slices=slices)
    options = {"mirroring": mirroring, "device": torch.device("cpu"), "precision": None}
    shared, plain = Predictor([built], **options), Predictor([Plain(built)], **options)
    assert isinstance(shared.networks[0], SliceFeatureCache)
    for seed in (0, 1):  # a second volume must not see the first one's features
        torch.manual_seed(seed)
        data = torch.randn(1, 17, 16, 22)
        torch.testing.assert_close(run(shared, data), run(plain, data), atol=2e-3, rtol=1e-3)


def test_a_slice_is_encoded_once():
    predictor = Predictor(
        [network(slices=1)], mirroring=None, device=torch.device("cpu"), precision=None
    )
    run(predictor, torch.randn(1, 18, 16, 16))
    (shared,) = predictor.networks
    assert shared.encoded == 18  # five windows of six slices would be 30
    assert len(shared.kept) <= 2 * PATCH[0]


def test_with_adapters_nothing_is_shared():
    assert is_cacheable(network())
    assert not is_cacheable(network(components=("encoder", "lora", "adapters", "detail")))
    assert not is_cacheable(network(components=("detail",)))
    assert not is_cacheable(tiny_network(3, 1, 3))
