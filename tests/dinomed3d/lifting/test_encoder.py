"""What every encoder promises: any size, chunks, precision, frozen or trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinomed3d.lifting import Encoder, pad_to_multiple

MIB = 2**20


class Pooled(Encoder):
    """Mean of every 2 x 2 pixels times a weight; an image counts as one MiB."""

    stride, channels, taps = 2, 3, (0, 1)

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.calls: list[int] = []

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        self.calls.append(len(images))
        pooled = self.weight * F.avg_pool2d(images, 2)
        return pooled, 10 * pooled

    def bytes_per_image(self, height: int, width: int) -> int:
        return MIB


def test_padding_repeats_the_last_row_and_column():
    images = torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    padded = pad_to_multiple(images, 2)
    assert padded[0, 0].tolist() == [[1, 2, 3, 3], [4, 5, 6, 6], [7, 8, 9, 9], [7, 8, 9, 9]]


def test_padding_leaves_a_fitting_image_as_it_is():
    images = torch.zeros(1, 3, 4, 6)
    assert pad_to_multiple(images, 2) is images
    assert pad_to_multiple(images, 4).shape == (1, 3, 4, 8)
    assert pad_to_multiple(torch.zeros(1, 3, 1, 1), 16).shape == (1, 3, 16, 16)


def test_maps_by_hand():
    images = torch.arange(6.0).view(1, 1, 2, 3).repeat(1, 3, 1, 1)  # 0 1 2 | 3 4 5
    first, second = Pooled()(images)
    assert first.values[0, 0].tolist() == [[2.0, 3.5]]  # columns 2, 2 after padding
    assert second.values[0, 2].tolist() == [[20.0, 35.0]]
    assert (first.stride, first.image_size) == (2, (2, 3))


@pytest.mark.parametrize(("chunk_mib", "calls"), [(3, [3, 3, 1]), (100, [7]), (0.1, [1] * 7)])
def test_chunks_hold_as_many_images_as_fit(chunk_mib, calls):
    encoder, images = Pooled(chunk_mib=chunk_mib), torch.randn(7, 3, 4, 4)
    with torch.no_grad():
        maps = encoder(images)
    assert encoder.calls == calls
    for chunked, whole in zip(maps, encoder.maps(images), strict=True):
        assert torch.equal(chunked.values, whole)


def test_chunks_only_where_no_gradient_is_recorded():
    encoder = Pooled(chunk_mib=2)
    encoder(torch.randn(5, 3, 4, 4))
    assert encoder.calls == [5]
    encoder.freeze()(torch.randn(5, 3, 4, 4))
    assert encoder.calls == [5, 2, 2, 1]


def test_chunks_of_a_transformer_give_the_same_maps(tiny_encoder, monkeypatch):
    images = torch.randn(5, 3, 40, 50)
    whole = tiny_encoder(images)
    calls, maps = [], tiny_encoder.maps
    monkeypatch.setattr(tiny_encoder, "maps", lambda part: calls.append(len(part)) or maps(part))
    tiny_encoder.chunk_mib = 2.5 * tiny_encoder.bytes_per_image(48, 64) / MIB
    chunked = tiny_encoder(images)
    assert calls == [2, 2, 1]
    for a, b in zip(whole, chunked, strict=True):
        torch.testing.assert_close(a.values, b.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "cells"),
    [((16, 16), (1, 1)), ((1, 17), (1, 2)), ((56, 40), (4, 3)), ((48, 33), (3, 3))],
)
def test_any_size(tiny_encoder, size, cells):
    for tap in tiny_encoder(torch.randn(2, 3, *size)):
        assert tap.values.shape == (2, 24, *cells)
        assert (tap.stride, tap.image_size) == (16, size)


def test_an_unfitting_image_is_encoded_as_its_padded_self(tiny_encoder):
    images = torch.randn(1, 3, 20, 45)
    padded = tiny_encoder(pad_to_multiple(images, 16))
    for a, b in zip(tiny_encoder(images), padded, strict=True):
        assert torch.equal(a.values, b.values)


def test_images_do_not_see_each_other(tiny_encoder):
    images = torch.randn(3, 3, 32, 32)
    order = torch.tensor([2, 0, 1])
    for a, b in zip(tiny_encoder(images[order]), tiny_encoder(images), strict=True):
        torch.testing.assert_close(a.values, b.values[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (0, 3, 8, 8), (1, 3, 0, 8), (1, 3, 8)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="'images'"):
        Pooled()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("name", "value"), [("chunk_mib", 0), ("chunk_mib", -1.0), ("precision", torch.int8)]
)
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"'{name}'"):
        Pooled(**{name: value})


def test_frozen_stays_in_eval_mode_and_untouched():
    encoder = Pooled()
    network = nn.Sequential(encoder)
    assert encoder.freeze() is encoder
    network.train()
    assert network.training and not encoder.training
    tap = encoder(torch.randn(1, 3, 4, 4))[0]
    assert not tap.values.requires_grad and encoder.weight.grad is None


def test_submodules_of_a_frozen_encoder_stay_in_eval_mode(tiny_encoder):
    nn.Sequential(tiny_encoder).train()
    assert not any(module.training for module in tiny_encoder.modules())
    assert not any(parameter.requires_grad for parameter in tiny_encoder.parameters())


def test_a_frozen_encoder_still_passes_gradients_to_its_input():
    images = torch.zeros(1, 3, 2, 2, requires_grad=True)
    Pooled().freeze()(images)[0].values.sum().backward()
    assert torch.equal(images.grad, torch.full((1, 3, 2, 2), 0.25))


def test_unfrozen_trains_again(tiny_encoder):
    assert tiny_encoder.unfreeze() is tiny_encoder
    assert tiny_encoder.train().training
    sum(tap.values.square().sum() for tap in tiny_encoder(torch.randn(2, 3, 32, 32))).backward()
    assert all(p.grad is not None for p in tiny_encoder.parameters())


def test_no_gradient_under_no_grad(tiny_encoder):
    tiny_encoder.unfreeze()
    with torch.no_grad():
        assert not tiny_encoder(torch.randn(1, 3, 16, 16))[0].values.requires_grad


def test_bfloat16_stays_near_float32(tiny_encoder):
    images = torch.randn(2, 3, 48, 48)
    exact = tiny_encoder(images)
    tiny_encoder.precision = torch.bfloat16
    for a, b in zip(exact, tiny_encoder(images), strict=True):
        assert b.values.dtype == torch.float32
        error = (a.values - b.values).norm() / a.values.norm()
        assert 0 < error < 0.01


def test_maps_come_back_in_the_type_of_the_images():
    class Rough(Pooled):
        def maps(self, images: Tensor) -> tuple[Tensor, ...]:
            return tuple(tap.bfloat16() for tap in super().maps(images))

    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        images = torch.zeros(1, 3, 4, 4, dtype=dtype)
        assert {tap.values.dtype for tap in Rough()(images)} == {dtype}


def test_float32_precision_is_the_default():
    assert Pooled(precision=torch.float32).precision is None
