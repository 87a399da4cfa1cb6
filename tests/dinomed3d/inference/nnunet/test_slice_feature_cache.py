"""Slice features shared by windows: the same masks, fewer slices through the encoder."""

from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from dinomed3d.inference.nnunet import predictor as module
from dinomed3d.inference.nnunet.predictor import Predictor
from dinomed3d.inference.nnunet.slice_feature_cache import (
    SliceFeatureCache,
    halo_of,
    is_cacheable,
)
from dinomed3d.inference.nnunet.sliding_window import WindowGrid, predict_windows
from dinomed3d.inference.nnunet.window_networks import HaloNetwork
from dinomed3d.networks import CnnSpec, NetworkSpec, build_network
from tests.dinomed3d.inference.models.write_model import tiny_network

PATCH = (6, 16, 16)


def network(components=("encoder", "lora", "detail"), slices=3, levels=3):
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
            widths=(4, 6, 8)[:levels],
            strides=((1, 1, 1), (1, 2, 2), (2, 2, 2))[:levels],
            kernels=((3, 3, 3),) * levels,
            blocks=(1,) * levels,
            decoder_blocks=(1,) * (levels - 1),
        ),
    )
    built = build_network(1, 3, **spec.to_arch_kwargs())
    for parameter in built.parameters():  # zero-initialised parts too
        torch.nn.init.normal_(parameter, std=0.1)
    return built.eval()


def run(predictor, data, patch=PATCH):
    grid = WindowGrid.over(data.shape[1:], patch, 0.5)
    predictor.clear_cache()
    slabs = predict_windows(
        data, grid, (0, data.shape[2]), predictor.predict, heads=3, batch=2, halo=predictor.halo
    )
    return torch.cat([slab.logits for slab in slabs], 1)


def predictor_of(built, mirroring=None, **options):
    return Predictor(
        [built], mirroring=mirroring, device=torch.device("cpu"), precision=None, **options
    )


def without_cache(built, mirroring=None):
    """The same network and halo, every window encoded anew."""
    predictor = predictor_of(built, mirroring)
    predictor.networks = [HaloNetwork(built, halo_of(built))]
    predictor.caches = []
    return predictor


class Plain(torch.nn.Module):
    """Hides what a network is, so that nothing is shared and no halo is given."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, windows):
        return self.inner(windows)


ADAPTED = ("encoder", "lora", "adapters", "detail")


@pytest.mark.parametrize("mirroring", [None, (0, 2)])
@pytest.mark.parametrize("slices", [1, 3, 5])
@pytest.mark.parametrize("components", [ADAPTED, ("encoder", "lora", "detail")], ids=len)
def test_shared_features_change_nothing(mirroring, slices, components):
    built = network(components, slices=slices)
    shared, plain = predictor_of(built, mirroring), without_cache(built, mirroring)
    assert isinstance(shared.networks[0], SliceFeatureCache)
    assert shared.halo == slices // 2
    for seed in (0, 1):  # a second volume must not see the first one's features
        torch.manual_seed(seed)
        data = torch.randn(1, 17, 16, 22)
        torch.testing.assert_close(run(shared, data), run(plain, data), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("halo", [(0, 0), (1, 1), (2, 1), (0, 2)])
@pytest.mark.parametrize("flip", [(), (2,), (2, 4)])
def test_one_window_is_equal_in_float32(halo, flip):
    built = network(ADAPTED)
    cache, window = SliceFeatureCache(built), torch.randn(1, 1, 6 + sum(halo), 16, 16)
    with torch.no_grad():
        for z in (0, 3):
            other = torch.randn_like(window)
            found = cache(other, [(z, 0, 0)], flip, halo=halo)
            torch.testing.assert_close(found, built(other, halo=halo), atol=1e-5, rtol=1e-5)
            cache.clear()


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("components", [ADAPTED, ("encoder", "lora", "detail")], ids=len)
def test_a_slice_is_encoded_once(slices, components):
    """With its true neighbours it is the same slice in every window; mirrored, if K is above 1, it is not."""
    predictor = predictor_of(network(components, slices=slices), mirroring=(0,))
    run(predictor, torch.randn(1, 18, 16, 16))
    (shared,) = predictor.networks
    assert shared.encoded == 18 * (
        1 if slices == 1 else 2
    )  # five windows of six slices would be 30
    assert len(shared.kept) <= 2 * PATCH[0]


def test_no_more_is_kept_than_the_limit_allows():
    built = network(ADAPTED)
    free, bound = predictor_of(built), predictor_of(built)
    data = torch.randn(1, 18, 16, 22)
    expected = run(free, data)
    bound.limit_cache(4 * free.slice_bytes + 1)
    assert torch.equal(run(bound, data), expected)
    (kept,), (all_kept,) = bound.networks, free.networks
    assert len(kept.kept) == 4 and kept.encoded > all_kept.encoded
    bound.limit_cache(0)
    assert torch.equal(run(bound, data), expected) and not kept.kept


def test_a_window_with_its_neighbours_is_not_one_with_repeated_ends():
    """What stock nnU-Net gives differs, but little: its Gaussian weighs a window's ends least."""
    built, data = network(ADAPTED), torch.randn(1, 17, 16, 16)
    own, bare = run(predictor_of(built), data), run(predictor_of(Plain(built)), data)
    assert not torch.allclose(own, bare, atol=1e-3)
    assert (own.argmax(0) != bare.argmax(0)).float().mean() < 0.2


def test_slices_of_a_2d_network_share_nothing():
    torch.manual_seed(0)
    spec = replace(network().spec, slices=1)
    built = build_network(1, 3, **spec.to_arch_kwargs()).eval()
    predictor = predictor_of(built, mirroring=(0, 1))
    found = run(predictor, torch.randn(1, 3, 16, 22), patch=PATCH[1:])
    assert found.shape == (3, 3, 16, 22) and predictor.slice_bytes == 0


def test_which_networks_share():
    assert is_cacheable(network()) and is_cacheable(network(ADAPTED))
    assert not is_cacheable(network(components=("detail",)))
    assert not is_cacheable(tiny_network(3, 1, 3))
    every = replace(network(ADAPTED).spec, tuned_blocks=2)
    assert not is_cacheable(build_network(1, 3, **every.to_arch_kwargs()))


def test_a_network_without_an_embedding_is_given_the_window_alone():
    built = network(ADAPTED)
    options = {"mirroring": (0,), "device": torch.device("cpu"), "precision": None}
    window = torch.randn(1, 1, 8, 16, 16)
    inner = window[:, :, 2:]
    mirrored = Predictor([Plain(built)], **options)(inner, [(2, 0, 0)])
    both = Predictor([Plain(built), built], **options)(window, [(2, 0, 0)], (2, 0))
    own = Predictor([built], **options)(window, [(2, 0, 0)], (2, 0))
    torch.testing.assert_close(both, (mirrored + own) / 2, atol=1e-4, rtol=1e-4)


def test_compiled_it_predicts_the_same_with_few_graphs(monkeypatch):
    """Whatever slices a window lacks and however many windows there are: one graph a part, or one a kind of size."""
    torch._dynamo.reset()
    counters.clear()
    built = network(ADAPTED, levels=2)
    data = torch.randn(1, 17, 16, 22)
    expected = run(without_cache(built, (0,)), data)
    monkeypatch.setattr(module, "compiler", lambda kind, *, by_default: ("eager", ""))
    compiled = predictor_of(built, (0,))
    torch.testing.assert_close(run(compiled, data), expected, atol=2e-3, rtol=1e-3)
    # each_slice of six slices, of some, of one; across_slices; the rest of the network
    assert counters["stats"]["unique_graphs"] <= 5
    assert not counters["graph_break"]
    torch._dynamo.reset()
