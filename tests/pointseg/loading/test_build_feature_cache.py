"""Every image of a dataset encoded once."""

from __future__ import annotations

import json
import os
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.datasets.named_scenes import NamedScenes
from pointseg.ditr import PointImages
from pointseg.images.config import ImageConfig
from pointseg.images.features.encoder import open_encoder, weights_digest
from pointseg.images.features.feature_cache import FeatureCache
from pointseg.images.preprocess import load_images
from pointseg.loading import build_feature_cache
from pointseg.loading.build_feature_cache import CacheSpec, cache_features
from pointseg.models.image_encoder import open_image_features
from pointseg.models.network import point_images
from tests.pointseg.images.posed import (
    ENCODER,
    TINY,
    Posed,
    camera,
    photo,
    photographed,
    tiny_encoder,
)  # fmt: skip

SIZE = (32, 48)


@pytest.fixture
def dataset(tmp_path):
    return photographed(tmp_path / "images")


@pytest.fixture
def spec(tmp_path, dataset):
    return CacheSpec(
        dataset=dataset,
        encoder=tiny_encoder(),
        name=ENCODER,
        size=SIZE,
        out=tmp_path / "cache",
        max_views=3,
        batch=2,
        log=lambda text: None,
    )


def reader(spec):
    digest = weights_digest(spec.encoder)
    return FeatureCache(spec.out, encoder=ENCODER, weights_sha256=digest, size=SIZE)


def test_kept_features_are_those_that_a_network_would_make(spec, dataset):
    found = cache_features(spec)
    assert [(s.split, s.scenes, s.without_images, s.made) for s in found.splits] == [
        ("train", 2, 0, 6),
        ("test", 2, 1, 1),
    ]
    cache = reader(spec)
    frames = dataset.frames("train", "s1")[:3]
    assert [frame.name for frame in frames] == ["0", "1", "2"]  # 5 // 3 is 1
    images = torch.from_numpy(load_images(frames, SIZE)[0])
    network = PointImages(tiny_encoder(), channels=24, stride=16, image_size=SIZE)
    kept = torch.stack([cache.get(frame) for frame in frames])
    torch.testing.assert_close(kept.float(), network.encode(images), rtol=1e-3, atol=1e-5)
    coord = torch.tensor([[[4.0, 4], [40, 20], [1, 1]], [[20.0, 20], [40, 31], [47, 2]]])
    cloud = Cloud(
        coord=torch.zeros(2, 3),
        grid_coord=torch.zeros(2, 3, dtype=torch.long),
        feat=torch.zeros(2, 1),
        offset=torch.tensor([2]),
        image_coord=coord,
        image_mask=torch.ones(2, 3, dtype=torch.bool),
        images=images[None],
    )
    fresh, _ = network(cloud)
    cached, _ = network(replace(cloud, images=None, image_maps=kept[None]))
    torch.testing.assert_close(cached, fresh, rtol=1e-3, atol=1e-5)


def test_several_blocks_in_tiles(spec, dataset):
    """Kept features are those of training with the same images.taps and images.tile."""
    encoder = open_encoder(ENCODER, "none", TINY, taps=(0, -1))
    settings = {"encoder": encoder, "size": (48, 80), "taps": (0, -1), "tile": 32}
    cache_features(replace(spec, **settings))
    images = ImageConfig(encoder=ENCODER, encoder_config=TINY, size=(48, 80), taps=(0, -1), tile=32)
    features = open_image_features(images, weights=None, cache=spec.out, log=lambda text: None)
    assert features.cache is not None and features.config.channels == 48
    frames = dataset.frames("train", "s1")[:2]
    opened = open_image_features(images, weights="none", cache=None, log=lambda text: None)
    assert opened.config.channels == 48
    assert opened.config.weights_sha256 == features.config.weights_sha256
    network = point_images(opened.config, opened.encoder)
    found = network.encode(torch.from_numpy(load_images(frames, (48, 80))[0]))
    kept = torch.stack([features.cache.get(frame) for frame in frames])
    torch.testing.assert_close(kept.float(), found, rtol=1e-3, atol=1e-5)
    with pytest.raises(UserError, match="--tile 48"):
        replace(spec, **settings | {"tile": 40})
    with pytest.raises(UserError, match=r"images.tile=48"):
        open_image_features(replace(images, tile=40), weights="none", cache=None)


def test_a_second_run_makes_nothing_and_an_interrupted_one_goes_on(spec, monkeypatch):
    logged = []

    def stop(done, total, name):
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_features(replace(spec, progress=stop))
    rest = cache_features(replace(spec, log=logged.append))
    assert (rest.splits[0].kept, rest.splits[0].made) == (4, 2)
    assert logged[0].startswith("3 images to encode") and "4 are cached" in logged[0]
    again = cache_features(spec)
    assert [s.made for s in again.splits] == [0, 0]


def test_changed_images_are_encoded_anew_and_a_larger_pool_adds(spec, dataset):
    cache_features(spec)
    image = dataset.frames("train", "s0")[1].image.path
    photo(image, seed=77)
    os.utime(image, ns=(5, 5))
    assert reader(spec).get(dataset.frames("train", "s0")[1]) is None
    found = cache_features(spec)
    assert (found.splits[0].stale, found.splits[0].made, found.splits[0].kept) == (1, 1, 5)
    more = cache_features(replace(spec, max_views=None))
    assert (more.splits[0].made, more.splits[0].kept) == (4, 6)
    with pytest.raises(UserError, match="holds all images of each scene"):
        cache_features(spec)


def test_what_is_odd_about_the_files_is_said(spec, dataset, monkeypatch):
    logged = []
    monkeypatch.setattr(NamedScenes, "remarks", lambda self: ["2 clouds are in no split"])
    named = NamedScenes("folder", dataset.held)
    for name in ("frames", "load", "classes", "fields"):
        setattr(named, name, getattr(dataset, name, None))
    named.look_at = lambda split, scene: None
    cache_features(replace(spec, dataset=named, log=logged.append))
    assert "2 clouds are in no split" in logged


def test_two_at_once(spec):
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(cache_features, [spec, replace(spec, encoder=tiny_encoder())])
    assert first.folder == second.folder
    assert cache_features(spec).splits[0].kept == 6


def test_bytes_are_said_first_and_are_true(spec, dataset):
    logged = []
    found = cache_features(replace(spec, log=logged.append, max_views=None))
    assert logged[0].startswith("11 images to encode, ")
    sizes = [path.stat().st_size for path in found.folder.rglob("*.safetensors")]
    assert len(sizes) == 11 and found.bytes_per_image == 2 * 24 * 2 * 3
    assert all(found.bytes_per_image < size < found.bytes_per_image + 500 for size in sizes)
    assert json.loads((found.folder / "cache.json").read_text())["channels"] == 24


def test_a_pool_is_of_images_that_show_the_scene(spec, dataset):
    frames = dataset.held["train"]["s0"]
    away = torch.eye(4)
    away[0, 3] = 100
    blind = [replace(f, camera=camera(world_to_camera=away)) for f in frames[:3]]
    dataset.held = {"train": {"a": (*blind, *frames[3:])}}
    assert cache_features(spec).splits[0].made == 2
    cache = reader(spec)
    assert [cache.get(f) is not None for f in dataset.frames("train", "a")] == [False] * 3 + [
        True
    ] * 2


def test_an_image_of_two_scenes_is_encoded_once(spec, dataset):
    dataset.held = {"train": {"a": dataset.held["train"]["s0"], "b": dataset.held["train"]["s0"]}}
    assert cache_features(spec).splits[0].made == 3


def test_a_full_disk_is_refused_before_anything_is_encoded(spec, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 10, 100)
    monkeypatch.setattr(build_feature_cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="--out .*cache: "):
        cache_features(spec)
    assert not list(spec.out.rglob("*.safetensors"))


def test_wrong_input(spec, dataset):
    dataset.frames("train", "s1")[0].image.path.unlink()
    with pytest.raises(UserError, match="0.png: this image is missing"):
        cache_features(spec)
    with pytest.raises(UserError, match="no split 'lost'"):
        cache_features(replace(spec, splits=("lost",)))
    with pytest.raises(UserError, match="no scene of the splits train has images"):
        cache_features(replace(spec, dataset=Posed({"train": {"blind": ()}})))
    with pytest.raises(UserError, match="has no images"):
        cache_features(replace(spec, dataset=type("Blind", (), {"name": "blind"})()))
    with pytest.raises(UserError, match="must be >= 1"):
        replace(spec, batch=0)
    with pytest.raises(UserError, match="--image-size"):
        replace(spec, size=(0, 1))
