"""DITR: images onto points, by hand and as in DITR's released code; segmenters that read them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from dinomed3d.lifting import Encoder, build_encoder, on_devices
from dinomed3d.lifting.dino import LVD_MEAN, LVD_STD
from dinomed3d.runtime.errors import UserError
from pointseg import ditr as lifting_of_images
from pointseg.backbones import BackboneWeightsError, build_backbone, load_backbone
from pointseg.backbones.ptv3.point_transformer_v3 import PointTransformerV3
from pointseg.cloud import Cloud, collate
from pointseg.conventions import FUSES, SAMPLES
from pointseg.ditr import PointImages
from pointseg.ops.hardware.pieces import decided_for
from pointseg.segmenter import Segmenter
from pointseg.training.step.mix3d import mix3d
from tests.pointseg.backbones.clouds import cloud
from tests.pointseg.backbones.interface.test_image_injection import CONFIGS
from tests.pointseg.backbones.ptv3.test_point_transformer_v3 import DRAWN, TINY

STRIDE, SIZE = 4, (8, 12)  # 2 x 3 patches


class Colours(Encoder):
    """Gives each patch its mean colour, through a weight that could be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.stride, self.channels, self.taps = STRIDE, 3, (0,)
        self.gain = nn.Parameter(torch.ones(()))
        self.encoded: list[int] = []

    def maps(self, images):
        self.encoded.append(len(images))
        return (F.avg_pool2d(images, STRIDE) * self.gain,)

    def maps_and_cls_token(self, images):
        return (*self.maps(images), images.mean((2, 3)))

    def bytes_per_image(self, height, width):
        return 1


def point_images(encoder=None, **settings):
    config = {"channels": 3, "stride": STRIDE, "image_size": SIZE, **settings}
    return PointImages(Colours() if encoder is None else encoder, **config)


def of_maps(**settings):
    return PointImages(None, channels=3, stride=STRIDE, image_size=SIZE, **settings)


def seen_cloud(count=40, views=3, seed=0, share=0.5, samples=1):
    """Samples whose points lie anywhere in their random images."""
    parts = []
    for number in range(samples):
        points = cloud((count,), seed=seed + number)
        rng = torch.Generator().manual_seed(seed + number)
        uv = torch.rand(count, views, 2, generator=rng) * torch.tensor([SIZE[1], SIZE[0]])
        mask = torch.rand(count, views, generator=rng) < share
        images = torch.randint(256, (1, views, 3, *SIZE), generator=rng, dtype=torch.uint8)
        parts.append(replace(points, image_coord=uv, image_mask=mask, images=images))
    return collate(parts)


def chosen(points):
    """The same cloud with the last view of each point alone."""
    views = torch.arange(points.image_mask.shape[1])
    view = torch.where(points.image_mask, views, -1).amax(1)
    at = points.image_coord[torch.arange(len(points)), view.clamp(min=0)]
    seen = (view >= 0)[:, None]
    return replace(
        points, image_coord=at[:, None], image_mask=seen, image_view=view.to(torch.int16)
    )


def normalised(images):
    mean, std = (torch.tensor(v)[:, None, None] for v in (LVD_MEAN, LVD_STD))
    return (images / 255 - mean) / std


def by_loop(points, fuse="last"):
    """Nearest patches, point after point."""
    feat = torch.zeros(len(points), 3)
    ends = points.offset if points.image_offset is None else points.image_offset
    for i in range(len(points)):
        sample = int((ends <= i).sum())
        maps = F.avg_pool2d(normalised(points.images[sample]), STRIDE)
        views = points.image_mask[i].nonzero()[:, 0].tolist()
        found = []
        for view in views:
            u, v = points.image_coord[i, view].tolist()
            found.append(maps[view, :, int(v // STRIDE), int(u // STRIDE)])
        if found:
            rows = torch.stack(found)
            feat[i] = {"last": rows[-1], "mean": rows.mean(0), "max": rows.amax(0)}[fuse]
    return feat


def numbered(coord, mask, maps):
    """A cloud of the given pixels; maps of one channel per view are given three."""
    coord, mask = torch.tensor(coord), torch.tensor(mask)
    maps = torch.tensor(maps)[None, :, None].expand(-1, -1, 3, -1, -1).float()
    points = cloud((len(coord),), extent=20)
    return replace(points, image_coord=coord, image_mask=mask, image_maps=maps)


# Two views of 2 x 3 patches. Point 0 is in patch (0, 0) of view 0; point 1 in (1, 2) of view 0 and (0, 1)
# of view 1; point 2 nowhere; point 3 in patch (1, 0) of view 1; points 4 and 5 just beyond the maps.
COORD = [
    [[0.0, 0.0], [5.0, 5.0]],
    [[11.9, 7.9], [4.0, 3.9]],
    [[1.0, 1.0], [1.0, 1.0]],
    [[1.0, 1.0], [3.9, 4.0]],
    [[12.0, 1.0], [1.0, 8.0]],
    [[-0.1, 1.0], [float("nan"), 1.0]],
]
MASK = [[True, False], [True, True], [False, False], [False, True], [True, True], [True, True]]
MAPS = [[[1, 2, 3], [4, 5, 6]], [[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize(
    ("fuse", "second"), [("last", 20), ("random", 20), ("mean", 13), ("max", 20)]
)
def test_by_hand(fuse, second):
    feat, seen = of_maps(fuse=fuse).eval()(numbered(COORD, MASK, MAPS))
    assert feat[:, 0].tolist() == [1, second, 0, 40, 0, 0]
    assert torch.equal(feat, feat[:, :1].expand(-1, 3))
    assert seen.tolist() == [True, True, False, True, False, False]


@pytest.mark.parametrize("share", [0.5, 0.0])
@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("fuse", ["last", "mean", "max"])
def test_the_ways_of_devices_give_the_same(fuse, sample, share, monkeypatch):
    points = seen_cloud(samples=3, share=share)
    points.image_mask[:, 1] = False  # a view that need not be encoded
    given = [points, chosen(points)] if fuse == "last" else [points]
    network = point_images(fuse=fuse, sample=sample, missing_token=True)
    whole = [network(some) for some in given]
    monkeypatch.setattr(on_devices, "is_cpu", lambda device: False)
    with decided_for("cuda"):
        for some, (feat, seen) in zip(given, whole, strict=True):
            found = network(some)
            torch.testing.assert_close(found[0], feat)
            assert torch.equal(found[1], seen)


def test_bilinear_by_hand():
    # from the centre of a patch to that of its neighbour
    points = numbered([[[2.0, 2.0]], [[5.0, 2.0]], [[6.0, 4.0]]], [[True]] * 3, MAPS[:1])
    feat, _ = of_maps(sample="bilinear")(points)
    torch.testing.assert_close(feat[:, 0], torch.tensor([1, 1.75, 3.5]))


def test_random_selects_each_visible_view_equally_often():
    rows = 3000
    points = numbered(
        [[[1.0, 1.0]] * 3] * rows, [[True, False, True]] * rows, [[[1]], [[10]], [[100]]]
    )
    images = PointImages(None, channels=3, stride=16, image_size=SIZE, fuse="random").train()
    torch.manual_seed(0)
    first = images(points)[0][:, 0]
    assert set(first.tolist()) == {1, 100} and abs((first == 1).float().mean() - 0.5) < 0.05
    torch.manual_seed(0)
    assert torch.equal(images(points)[0][:, 0], first)
    assert set(images.eval()(points)[0][:, 0].tolist()) == {100}


@pytest.mark.parametrize("fuse", ["last", "mean", "max"])
@pytest.mark.parametrize("samples", [1, 3])
def test_as_a_loop_over_points(fuse, samples):
    points = seen_cloud(samples=samples)
    feat, seen = point_images(fuse=fuse)(points)
    torch.testing.assert_close(feat, by_loop(points, fuse), atol=1e-6, rtol=1e-5)
    assert torch.equal(seen, points.image_mask.any(1))
    assert not feat[~seen].any()


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("samples", [1, 3])
def test_a_chosen_view_gives_what_all_views_give(sample, samples):
    points = seen_cloud(samples=samples, views=4)
    points.image_mask[:40, 1] = False  # a view of the first sample shows nothing and is not encoded
    points.image_coord[0, 3, 0] = SIZE[1]  # beyond the map: not seen there
    points.image_mask[0] = torch.tensor([False, False, False, True])
    many, one = point_images(sample=sample), point_images(sample=sample)
    wanted, seen = many(points)
    found, seen_too = one(chosen(points))
    assert torch.equal(found, wanted) and torch.equal(seen, seen_too)
    assert not seen[0] and one.encoder.encoded == many.encoder.encoded == [4 * samples - 1]


def test_a_view_that_is_not_there_is_refused():
    points = chosen(seen_cloud())
    wrong = replace(points, image_view=points.image_view + 2, image_mask=torch.ones(40, 1) > 0)
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        point_images()(wrong)


def test_the_order_of_points_does_not_matter():
    points, rows = seen_cloud(), torch.randperm(40)
    moved = replace(
        points,
        image_coord=points.image_coord[rows],
        image_mask=points.image_mask[rows],
    )
    assert torch.equal(point_images()(moved)[0], point_images()(points)[0][rows])


def test_unseen_points_do_not_depend_on_images():
    points = seen_cloud(share=0.2)
    images = point_images(missing_token=True)
    feat, seen = images(points)
    other, _ = images(replace(points, images=255 - points.images))
    assert torch.equal(feat[~seen], other[~seen]) and not torch.equal(feat[seen], other[seen])


def test_each_image_that_shows_a_point_is_encoded_once():
    points = seen_cloud(views=5, samples=2)
    mask = points.image_mask.clone()
    mask[:40, 3:] = False  # the first sample has three views, the others are black
    mask[40:, 1] = False  # of the second, one shows no point
    images = point_images()
    images(replace(points, image_mask=mask))
    assert images.encoder.encoded == [7]
    images.encoder.encoded.clear()
    feat, seen = images(replace(points, image_mask=torch.zeros_like(mask)))
    assert not images.encoder.encoded and not seen.any() and not feat.any()


def test_many_images_are_encoded_in_parts(monkeypatch):
    points, images = seen_cloud(views=7), point_images(fuse="mean")
    wanted = images(points)[0]
    monkeypatch.setattr("pointseg.ditr._IMAGES", 2)
    torch.testing.assert_close(images(points)[0], wanted)


def test_class_tokens_come_from_the_same_pass(monkeypatch):
    monkeypatch.setattr("pointseg.ditr._IMAGES", 2)
    images, given = point_images(), seen_cloud().images[0]
    maps, summaries = images.encode_with_cls(given)
    assert images.encoder.encoded == [2, 1]
    assert torch.equal(maps, images.encode(given))
    torch.testing.assert_close(summaries, normalised(given).mean((2, 3)))
    with torch.autocast("cpu", torch.bfloat16):
        assert {t.dtype for t in images.encode_with_cls(given)} == {torch.bfloat16}
    with pytest.raises(UserError, match="--weights"):
        of_maps().encode_with_cls(given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_given_maps_are_used(dtype):
    points, images = seen_cloud(samples=2), point_images()
    wanted, seen = images(points)
    images.encoder.encoded.clear()
    maps = images.encode(points.images.flatten(0, 1)).unflatten(0, (2, 3)).to(dtype)
    images.encoder.encoded.clear()
    feat, seen_too = images(replace(points, image_maps=maps))
    assert not images.encoder.encoded and feat.dtype == torch.float32
    torch.testing.assert_close(feat, wanted, atol=0.02, rtol=0.02)
    assert torch.equal(seen, seen_too)
    without, _ = of_maps()(replace(points, image_maps=maps, images=None))
    assert torch.equal(without, feat)


def test_images_of_merged_clouds_are_their_own():
    points = seen_cloud(samples=3)
    mixed = mix3d(points, 1.0, np.random.default_rng(0))
    assert len(mixed.offset) == 2 and len(mixed.image_offset) == 3
    feat, _ = point_images()(mixed)
    torch.testing.assert_close(feat, by_loop(mixed), atol=1e-6, rtol=1e-5)


def test_the_encoder_is_frozen_and_not_saved():
    images = point_images(missing_token=True).train()
    assert [name for name, _ in images.named_parameters()] == ["missing_token"]
    assert list(images.state_dict()) == ["missing_token"]
    assert not images.encoder.training and not images.encoder.gain.requires_grad
    feat, seen = images(seen_cloud())
    feat.sum().backward()
    assert images.encoder.gain.grad is None
    assert images.missing_token.grad.tolist() == [float((~seen).sum())] * 3
    assert list(of_maps().state_dict()) == []
    assert "fuse=last" in repr(images)


def test_the_encoder_moves_along():
    images = nn.ModuleList([point_images()])
    images.double()
    assert images[0].encoder.gain.dtype == torch.float64
    points = seen_cloud()
    assert images[0](points)[0].dtype == torch.float32  # as the cloud's features are
    assert images.to("meta")[0].encoder.gain.device.type == "meta"
    assert copy.deepcopy(point_images()).encoder is not None


def test_autocast_decides_the_type():
    points = seen_cloud()
    with torch.autocast("cpu", torch.bfloat16):
        feat, _ = point_images()(points)
    assert feat.dtype == torch.bfloat16
    torch.testing.assert_close(feat.float(), by_loop(points), atol=0.02, rtol=0.02)


def test_a_vision_transformer():
    encoder = build_encoder(
        "vit_small_patch14_reg4_dinov2",
        weights="none",
        taps=(1,),
        norm=True,
        embed_dim=24,
        depth=2,
        num_heads=2,
        img_size=28,
    )
    images = PointImages(encoder, channels=24, stride=14, image_size=(28, 42))
    points = seen_cloud()
    points = replace(points, images=F.pad(points.images, (0, 30, 0, 20)))
    feat, seen = images(points)
    tokens = encoder.vit.forward_features(normalised(points.images[0]))
    patches = tokens[:, 5:].unflatten(1, (2, 3))
    for i in (0, 17, 39):
        if seen[i]:
            view = int(points.image_mask[i].nonzero()[-1])
            u, v = points.image_coord[i, view]
            torch.testing.assert_close(feat[i], patches[view, int(v) // 14, int(u) // 14])


def small_vit(taps, **more):
    return build_encoder(
        "vit_small_patch14_dinov2", weights="none", taps=taps, embed_dim=24, depth=3, num_heads=2, img_size=28, **more
    )  # fmt: skip


def test_several_blocks_are_channels_one_after_the_other():
    """Each after the final norm, in the order of the blocks."""
    torch.manual_seed(0)
    encoder = small_vit((0, 2))
    images = torch.randint(256, (2, 3, 28, 42), dtype=torch.uint8)
    network = PointImages(encoder, channels=48, stride=14, image_size=(28, 42))
    found = network.encode(images)
    wanted = encoder.vit.forward_intermediates(
        normalised(images), indices=[0, 2], norm=True, output_fmt="NCHW", intermediates_only=True
    )
    torch.testing.assert_close(found, torch.cat(wanted, 1))
    assert network.encode_with_cls(images)[1].shape == (2, network.token_channels) == (2, 24)
    last = PointImages(encoder, channels=24, stride=14, image_size=(28, 42)).encode(images)
    assert torch.equal(found[:, 24:], last) and not torch.equal(found[:, :24], last)
    for channels in (72, 36, 12):
        with pytest.raises(UserError, match=f"{channels} channels.*48"):
            PointImages(encoder, channels=channels, stride=14, image_size=(28, 42))


def test_tiles_of_an_image_are_encoded_as_images():
    torch.manual_seed(0)
    encoder = small_vit((2,))
    images = torch.randint(256, (2, 3, 42, 70), dtype=torch.uint8)
    whole = PointImages(encoder, channels=24, stride=14, image_size=(42, 70))
    for tile in (70, 84):
        one = PointImages(encoder, channels=24, stride=14, image_size=(42, 70), tile=tile)
        assert torch.equal(one.encode(images), whole.encode(images))
    tiled = PointImages(encoder, channels=24, stride=14, image_size=(42, 70), tile=56).encode(
        images
    )
    left, right = whole.encode(images[..., :56]), whole.encode(images[..., 14:])
    torch.testing.assert_close(tiled[..., :3], left[..., :3])  # cell 2 is as far from both borders
    torch.testing.assert_close(tiled[..., 3:], right[..., 2:])
    with pytest.raises(ValueError, match="'tile'"):
        PointImages(encoder, channels=24, stride=14, image_size=(42, 70), tile=50)


@pytest.fixture
def golden(shared):
    folder = shared / "golden" / "ditr"
    return folder, {key: torch.from_numpy(v) for key, v in np.load(folder / "io.npz").items()}


def golden_cloud(golden):
    names = ("coord", "grid_coord", "feat", "offset", "image_coord", "image_mask")
    points = Cloud(**{name: golden[name] for name in names})
    return replace(points, image_maps=golden["feature_maps"])


def golden_images():
    return PointImages(None, channels=24, stride=14, image_size=(12 * 14, 16 * 14))


def test_as_the_reference(golden):
    folder, values = golden
    points, images = golden_cloud(values), golden_images()
    lifted, seen = images(points)
    assert torch.equal(lifted, values["lifted"])
    # some pixels of the fixture are beyond the image; nothing is seen there
    inside = (values["image_coord"] >= 0) & (values["image_coord"] < torch.tensor([224, 168]))
    assert torch.equal(seen, (values["image_mask"] & inside.all(2)).any(1))
    network = PointTransformerV3(**json.loads((folder / "config.json").read_text())).eval()
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    network.curve_sequences = lambda: DRAWN["ditr"]
    found = {}
    stages = [key.removeprefix("at:") for key in values if key.startswith("at:")]
    for stage in stages:
        network.get_submodule(stage).register_forward_hook(
            lambda _, __, out, stage=stage: found.setdefault(stage, out)
        )
    segmenter = Segmenter(network, 4, images).eval()
    with torch.no_grad():
        features = network(points, lifted, seen)
        scores = segmenter(points)
    for stage in stages:
        torch.testing.assert_close(found[stage], values[f"at:{stage}"], rtol=0, atol=1e-4)
    torch.testing.assert_close(features.feat, values["out"], rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, segmenter.seg_head(values["out"]), rtol=0, atol=1e-4)


def published(path, network, head, extra=()):
    """A file as DITR's training writes it."""
    state = {f"module.backbone.{key}": value for key, value in network.state_dict().items()}
    state |= {f"module.seg_head.{key}": value for key, value in head.state_dict().items()}
    state |= dict(extra)
    best = {"epoch": 100, "best_metric_value": np.float64(0.805), "optimizer": {}, "scaler": None}
    torch.save({"state_dict": state, **best}, path)


def ditr(channels=24, seed=0):
    torch.manual_seed(seed)
    return build_backbone("ptv3", **TINY, image_channels=channels)


def test_published_checkpoints_load(tmp_path):
    source, target, head = ditr(), ditr(seed=1), nn.Linear(12, 20)
    published(tmp_path / "model_best.pth", source, head)
    found = load_backbone(target, tmp_path / "model_best.pth")
    assert found is not None and torch.equal(found.weight, head.weight)
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())


@pytest.mark.parametrize(
    "prefix", ["module.dinov2.", "module.backbone.dinov2.", "dinov2._orig_mod."]
)
def test_an_encoder_in_the_file_is_left_out_and_reported(tmp_path, caplog, prefix):
    source, target = ditr(), ditr(seed=1)
    extra = {f"{prefix}blocks.{i}.norm1.weight": torch.ones(24) for i in range(3)}
    published(tmp_path / "model_best.pth", source, nn.Linear(12, 20), extra.items())
    with caplog.at_level("INFO"):
        load_backbone(target, tmp_path / "model_best.pth")
    assert "the 3 tensors of its image encoder (dinov2." in caplog.text
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_checkpoint_for_another_encoder_is_refused(tmp_path, name):
    source = build_backbone(name, **CONFIGS[name], image_channels=1024)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    target = build_backbone(name, **CONFIGS[name], image_channels=384)
    with pytest.raises(BackboneWeightsError, match="1024.*vit_large.*vit_small.*384"):
        load_backbone(target, tmp_path / "weights.pth", encoder="vit_small")
    with pytest.raises(BackboneWeightsError, match="384"):
        load_backbone(target, tmp_path / "weights.pth")


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("pooling", ["max", "masked_mean"])
def test_a_segmenter_learns_and_its_encoder_does_not(name, pooling):
    torch.manual_seed(0)
    backbone = build_backbone(name, **CONFIGS[name], image_channels=3, image_pooling=pooling)
    segmenter = Segmenter(backbone, 4, point_images(missing_token=True)).train()
    points = seen_cloud(samples=2)
    with torch.autocast("cpu", torch.bfloat16):
        logits = segmenter(points)
    F.cross_entropy(logits.float(), torch.randint(4, (80,))).backward()
    assert not [key for key in segmenter.state_dict() if "gain" in key]
    assert segmenter.images.encoder.gain.grad is None
    assert segmenter.images.missing_token.grad.any()
    branches = [p for n, p in segmenter.named_parameters() if "proj_image_feat" in n]
    assert branches and all(p.grad.isfinite().all() for p in branches)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_without_any_view_left_images_say_nothing(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, **CONFIGS[name], image_channels=3)
    segmenter = Segmenter(backbone, 4, point_images()).eval()
    points = seen_cloud()
    unseen = replace(points, image_mask=torch.zeros_like(points.image_mask))
    with torch.no_grad():
        dropped = segmenter(unseen)
        assert torch.equal(dropped, segmenter(replace(unseen, images=255 - points.images)))
        assert not torch.allclose(dropped, segmenter(points))


def test_segmenters_without_images_are_unchanged():
    segmenter = Segmenter(build_backbone("ptv3", **TINY), 4)
    assert {key.split(".")[0] for key in segmenter.state_dict()} == {"backbone", "seg_head"}
    assert segmenter(cloud()).shape == (170, 4)


def test_segmenters_that_do_not_fit_are_refused():
    plain, reading = build_backbone("ptv3", **TINY), ditr(3)
    for make, names in (
        (lambda: Segmenter(plain, 0), "'num_classes'"),
        (lambda: Segmenter(plain, 4, point_images()), "'images' gives 3"),
        (lambda: Segmenter(reading, 4), "takes 3 features"),
        (lambda: Segmenter(reading, 4, point_images())(cloud()), "'image_coord'"),
    ):
        with pytest.raises(ValueError, match=names):
            make()


@pytest.mark.parametrize(
    ("images", "change", "names"),
    [
        (point_images, lambda c: replace(c, images=None), "'images' or 'image_maps'"),
        (
            point_images,
            lambda c: replace(c, image_mask=c.image_mask[:, :2]),
            r"'image_mask' .*\(40, 2\)",
        ),
        (
            point_images,
            lambda c: replace(c, images=c.images[..., :8]),
            r"'images' .*\(1, 3, 3, 8, 8\)",
        ),
        (
            point_images,
            lambda c: replace(c, image_maps=torch.zeros(1, 3, 5, 2, 3)),
            r"'image_maps' .*\(1, 3, 5, 2, 3\)",
        ),
        (of_maps, lambda c: c, "encoder.*--weights"),
        (
            lambda: point_images(fuse="nearest"),
            lambda c: c,
            "nearest .*'image_view'",
        ),
        (lambda: point_images(fuse="mean"), lambda c: chosen(c), "mean .*'image_view'"),
        (
            point_images,
            lambda c: replace(chosen(c), image_coord=c.image_coord),
            r"'image_coord' .*\(N, 1, 2\)",
        ),
    ],
)
def test_clouds_that_are_refused(images, change, names):
    with pytest.raises(UserError, match=names):
        images()(change(seen_cloud()))


def test_recipes_name_every_choice():
    assert set(FUSES) == {*lifting_of_images._FUSES, "nearest"}
    assert set(SAMPLES) == set(lifting_of_images._SAMPLES)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"fuse": "first"}, "'fuse' .*'first'"),
        ({"sample": "cubic"}, "'sample' .*'cubic'"),
        ({"stride": 0}, "'stride'"),
        ({"encoder": Colours(), "channels": 1024}, "1024 channels"),
    ],
)
def test_settings_that_are_refused(settings, names):
    given = {"encoder": None, "channels": 3, "stride": 4, "image_size": SIZE} | settings
    with pytest.raises(ValueError, match=names):
        PointImages(given.pop("encoder"), **given)


class Wrong(Colours):
    def maps(self, images):
        return (super().maps(images)[0][:, :2],)


def test_an_encoder_that_does_not_give_what_it_states():
    with pytest.raises(UserError, match=r"\(3, 2, 3\).*\(2, 2, 3\)"):
        point_images(Wrong())(seen_cloud())
