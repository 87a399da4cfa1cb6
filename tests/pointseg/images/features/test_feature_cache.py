"""Features of images on disk."""

from __future__ import annotations

import json
import os
import pickle
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dinomed3d.runtime.errors import UserError
from pointseg.images.features.feature_cache import METADATA, FeatureCache, find_cache
from tests.pointseg.images.posed import frame, photo

NAMES = {"encoder": "vit_small_patch16_dinov3", "weights_sha256": "ab" * 32, "size": (32, 48)}
FEATURES = torch.arange(24.0).reshape(4, 2, 3)


@pytest.fixture
def image(tmp_path):
    return frame(photo(tmp_path / "images" / "a.png"))


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache", **NAMES, writable=True)


def test_what_is_put_is_got_by_any_reader(tmp_path, image, cache):
    assert cache.get(image) is None and cache.state(image) == "missing"
    cache.put(image, FEATURES)
    reader = pickle.loads(pickle.dumps(FeatureCache(tmp_path / "cache", **NAMES)))
    found = reader.get(image)
    assert found.dtype == torch.float16 and found.tolist() == FEATURES.tolist()
    assert reader.state(image) == "valid"
    metadata = json.loads((cache.folder / METADATA).read_text())
    assert metadata["encoder"] == NAMES["encoder"] and metadata["size"] == [32, 48]
    assert metadata["weights_sha256"] == "ab" * 32 and metadata["dtype"] == "float16"
    assert not [path for path in cache.folder.rglob("*") if ".part." in path.name]


def test_relative_and_absolute_paths_are_the_same_image(tmp_path, image, cache, monkeypatch):
    cache.put(image, FEATURES)
    monkeypatch.chdir(tmp_path)
    assert cache.get(frame(image.image.path.relative_to(tmp_path))) is not None


def test_a_changed_image_is_stale_and_made_anew(image, cache):
    cache.put(image, FEATURES)
    photo(image.image.path, seed=1)
    os.utime(image.image.path, ns=(1, 1))
    assert cache.state(image) == "stale" and cache.get(image) is None
    cache.put(image, FEATURES + 1)
    assert cache.state(image) == "valid" and cache.get(image)[0, 0, 0] == 1


def test_a_damaged_entry_is_stale(image, cache):
    cache.put(image, FEATURES)
    cache.path_of(image).write_bytes(b"cut off")
    assert cache.state(image) == "stale" and cache.get(image) is None


def test_changed_features_are_noticed_made_anew_and_explained(tmp_path, image, cache):
    cache.put(image, FEATURES)
    path = cache.path_of(image)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache.state(image) == "stale" and cache.get(image) is None
    assert re.search(
        rf"{path.name}: .* are damaged; .*pointseg-cache", cache.explain_missing(image)
    )
    with safe_open(path, framework="pt") as stored:  # without a checksum, as of older versions
        metadata = {key: value for key, value in stored.metadata().items() if key != "checksum"}
        values = stored.get_tensor("features").clone()
    save_file({"features": values}, path, metadata)
    assert cache.state(image) == "valid"


def test_why_an_image_has_none_is_said(image, cache):
    assert re.search(
        r"has no features of the image .*moved or copied.*pointseg-cache",
        cache.explain_missing(image),
    )
    cache.put(image, FEATURES)
    os.utime(image.image.path, ns=(5, 5))
    assert re.search(
        r"are of another content or time of .*pointseg-cache", cache.explain_missing(image)
    )


def test_an_image_that_is_gone_is_an_error(image, cache):
    cache.put(image, FEATURES)
    image.image.path.unlink()
    with pytest.raises(UserError, match="missing"):
        cache.get(image)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"weights_sha256": "cd" * 32}, "another weights"),
        ({"size": (64, 48)}, "another image size"),
        ({"encoder": "vit_base_patch16_dinov3"}, "another encoder"),
        ({"taps": (-2, -1)}, "another blocks"),
        ({"tile": 32}, "another tiles"),
    ],
)
def test_a_cache_for_something_else_is_refused(tmp_path, image, cache, other, message):
    cache.put(image, FEATURES)
    with pytest.raises(UserError, match=f"32 x 48.*{message}"):
        FeatureCache(tmp_path / "cache", **{**NAMES, **other})
    new = FeatureCache(tmp_path / "cache", **{**NAMES, **other}, writable=True)
    assert new.get(image) is None and cache.get(image) is not None  # both are kept


def test_a_cache_is_found_without_its_weights(tmp_path, cache):
    names = {"encoder": NAMES["encoder"], "size": (32, 48)}
    with pytest.raises(UserError, match="is empty"):
        find_cache(tmp_path / "cache", **names).stride  # noqa: B018
    cache.set_metadata(5, channels=24, stride=16)
    found = find_cache(tmp_path / "cache", **names)
    assert (found.channels, found.stride, found.views) == (24, 16, 5)
    assert found.weights_sha256 == "ab" * 32 and not found.writable
    with pytest.raises(UserError, match="another image size"):
        find_cache(tmp_path / "cache", encoder=NAMES["encoder"], size=(16, 16))
    FeatureCache(tmp_path / "cache", **{**NAMES, "weights_sha256": "ef" * 32}, writable=True)
    with pytest.raises(UserError, match="several sets of weights"):
        find_cache(tmp_path / "cache", **names)
    assert find_cache(tmp_path / "cache", **names, weights_sha256="ab" * 32).channels == 24


def test_blocks_and_tiles_are_part_of_what_is_found(tmp_path, cache):
    named = {key: value for key, value in NAMES.items() if key != "weights_sha256"}
    for taps, tile in (((-2, -1), None), ((-1,), 32), ((0,), 16)):
        other = {"taps": taps, "tile": tile}
        made = FeatureCache(tmp_path / "cache", **NAMES, **other, writable=True)
        assert find_cache(tmp_path / "cache", **named, **other).folder == made.folder
    assert find_cache(tmp_path / "cache", **named).folder == cache.folder
    assert len({path.name for path in (tmp_path / "cache").iterdir()}) == 4


def test_caches_that_do_not_say_blocks_and_tiles_are_of_the_last_block_and_whole_images(
    tmp_path, cache, image
):
    cache.put(image, FEATURES)
    metadata = json.loads((cache.folder / METADATA).read_text())
    del metadata["taps"], metadata["tile"]
    (cache.folder / METADATA).write_text(json.dumps(metadata))
    assert FeatureCache(tmp_path / "cache", **NAMES).get(image) is not None
    with pytest.raises(UserError, match="another blocks"):
        FeatureCache(tmp_path / "cache", **NAMES, taps=(0,))


def test_no_cache_at_all(tmp_path):
    with pytest.raises(UserError, match="pointseg-cache-features"):
        FeatureCache(tmp_path, **NAMES)


def test_pools_grow_and_do_not_shrink(cache):
    assert cache.views is None
    cache.set_metadata(4, channels=24, stride=16)
    cache.set_metadata(4, channels=24, stride=16)
    assert cache.views == 4
    cache.set_metadata(10, channels=24, stride=16)
    with pytest.raises(UserError, match="holds 10 images of each scene"):
        cache.set_metadata(4, channels=24, stride=16)
    cache.set_metadata(None, channels=24, stride=16)
    assert cache.views is None
    with pytest.raises(UserError, match="holds all images of each scene"):
        cache.set_metadata(10, channels=24, stride=16)


def test_what_must_not_be_put(tmp_path, image, cache):
    with pytest.raises(UserError, match="opened for reading"):
        FeatureCache(tmp_path / "cache", **NAMES).put(image, FEATURES)
    with pytest.raises(ValueError, match=r"must be \(C, h, w\)"):
        cache.put(image, FEATURES[0])
    with pytest.raises(UserError, match="float16"):
        cache.put(image, FEATURES * 1e5)
    assert cache.state(image) == "missing"


def test_a_description_that_is_not_ours(tmp_path, cache):
    (cache.folder / METADATA).write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        FeatureCache(tmp_path / "cache", **NAMES)
    (cache.folder / METADATA).write_text("[]")
    with pytest.raises(UserError, match="cannot be read"):
        FeatureCache(tmp_path / "cache", **NAMES)
    (cache.folder / METADATA).write_text('{"format": "pointseg-features-0"}')
    with pytest.raises(UserError, match="'format' must be .*is 'pointseg-features-0'"):
        FeatureCache(tmp_path / "cache", **NAMES)
