"""DINOv2's real weights (ViT-S/14 without registers): every key, timm's tokens, all layouts alike."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from dinomed3d.lifting import DinoEncoder, build_encoder
from tests.dinomed3d.lifting.layouts import V2_PLAIN, as_hugging_face, as_meta

FILE = "weights/dinov2_vits14.safetensors"


@pytest.fixture(scope="module")
def encoder(shared) -> DinoEncoder:
    return build_encoder(V2_PLAIN, weights=shared / FILE)


def test_every_tensor_of_the_file_is_in_the_encoder(encoder, shared):
    stored, loaded = load_file(shared / FILE), encoder.vit.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(value.dtype == torch.float32 for value in loaded.values())
    assert all(torch.equal(value.float(), loaded[key]) for key, value in stored.items())


def timms(shared, **settings):
    model = timm.create_model(V2_PLAIN, num_classes=0, **settings)
    model.load_state_dict(load_file(shared / FILE), strict=True)
    return model.eval()


@pytest.mark.parametrize("size", [(70, 112), (28, 1246), (560, 42)])  # also above 518 pixels
def test_its_tokens_are_those_of_timm(encoder, shared, size):
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = timms(shared, dynamic_img_size=True).forward_features(images)
    maps, class_token = encoder.forward_with_cls(images)
    found = maps[-1].values.flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, wanted[:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(class_token, wanted[:, 0], atol=1e-4, rtol=1e-4)


def test_images_of_518_pixels_are_embedded_as_by_timms_model_of_that_fixed_size(encoder, shared):
    other = timms(shared)
    images = torch.randn(1, 3, 518, 518, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = other._pos_embed(other.patch_embed(images))
        found, _ = encoder.embed(images)
    assert found.shape == (1, 1 + 37 * 37, 384)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", [as_meta, as_hugging_face])
def test_metas_and_hugging_faces_files_of_the_same_tensors_are_the_same_encoder(
    encoder, layout, tmp_path
):
    state = layout(encoder.vit)
    assert state.keys() != encoder.vit.state_dict().keys()
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    other = build_encoder(V2_PLAIN, weights=tmp_path / "w.safetensors").vit.state_dict()
    wanted = encoder.vit.state_dict()
    assert other.keys() == wanted.keys()
    assert all((other[key] - value).abs().max() == 0 for key, value in wanted.items())
