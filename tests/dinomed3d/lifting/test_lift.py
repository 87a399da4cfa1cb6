"""The path through the core, and the fast volume path that equals it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from dinomed3d.lifting import (
    FeatureMap,
    Last,
    Max,
    Mean,
    Nearest,
    Random,
    SliceStack,
    lift,
    on_devices,
    sample_and_fuse,
    sample_bilinear,
    sample_nearest,
    stack_slices,
    unstack_slices,
)


class Drawn(Random):
    """Random, always of the same seed."""

    def __init__(self):
        super().__init__(torch.Generator().manual_seed(7))


FUSES = [Last, Nearest, Mean, Max, Drawn]


def assert_same(values, others, fuse):
    """To the bit; to rounding for a mean, which is summed in one pass on a CPU."""
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if fuse is Mean else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(values, others, **tolerance)


class Rails:
    """Cameras in a row along z, each with the (y, x) plane as its image; all see z from 0 to 9."""

    def __init__(self, *positions):
        self.positions = positions

    def __len__(self):
        return len(self.positions)

    def project(self, view, points):
        z, y, x = points.unbind(-1)
        return torch.stack([x, y], dim=-1), (z >= 0) & (z <= 9), (z - self.positions[view]).abs()


@pytest.mark.parametrize(
    ("fuse", "wanted"),
    [
        (Last(), [30, 30, 35]),
        (Nearest(), [10, 30, 15]),
        (Mean(), [20, 20, 25]),
        (Max(), [30, 30, 35]),
    ],
)
def test_three_views_by_hand(fuse, wanted):
    maps = torch.tensor([[10.0, 20], [20, 30], [30, 40]]).view(3, 1, 1, 2)
    features = FeatureMap(maps, 4, (4, 8))
    points = torch.tensor([[1.0, 2, 2], [8, 2, 2], [2, 2, 4], [10, 2, 2]])  # the last one unseen
    values, seen = lift(features, Rails(0, 5, 9), points, fuse=fuse)
    torch.testing.assert_close(values, torch.tensor([*wanted, 0.0]).view(4, 1))
    assert seen.tolist() == [True, True, True, False]


def test_another_way_of_reading_the_maps():
    features = FeatureMap(torch.tensor([[[[10.0, 20]]]]), 4, (4, 8))
    points = torch.tensor([[0.0, 2, 3], [0, 2, 5]])
    assert lift(features, Rails(0), points, fuse=Last(), sample=sample_nearest)[0].tolist() == [
        [10],
        [20],
    ]
    assert lift(features, Rails(0), points, fuse=Last())[0].tolist() == [[12.5], [17.5]]


@pytest.mark.parametrize("fuse", [Last, Nearest, Mean, Max])
def test_the_order_of_sites_does_not_matter(fuse):
    features = FeatureMap(torch.randn(3, 5, 2, 2), 4, (8, 8))
    points = 12 * torch.rand(40, 3) - 1
    order = torch.randperm(40)
    straight, mixed = (
        lift(features, Rails(0, 4, 8), s, fuse=fuse()) for s in (points, points[order])
    )
    assert 0 < straight[1].sum() < 40
    torch.testing.assert_close(mixed[0], straight[0][order])
    assert torch.equal(mixed[1], straight[1][order])


@pytest.mark.parametrize("fuse", FUSES)
def test_no_sites(fuse):
    values, seen = lift(
        FeatureMap(torch.randn(1, 5, 2, 2), 4, (8, 8)), Rails(0), torch.zeros(0, 3), fuse=fuse()
    )
    assert values.shape == (0, 5) and seen.shape == (0,)


@pytest.mark.parametrize("fuse", FUSES)
def test_constant_in_constant_out(fuse):
    features = FeatureMap(torch.full((3, 5, 2, 3), 0.7), 4, (8, 12))
    values, seen = lift(features, Rails(0, 4, 8), 12 * torch.rand(40, 3) - 1, fuse=fuse())
    assert 0 < seen.sum() < 40
    assert_same(values[seen], torch.full_like(values[seen], 0.7), fuse)
    assert (values[~seen] == 0).all()


# --- however it is cut into pieces


class Panned(Rails):
    """No two views show a point in the same pixel, and each shows other points."""

    def project(self, view, points):
        uv, visible, distance = super().project(view, points)
        return uv + 0.7 * self.positions[view], visible & (distance < 5), distance


@pytest.fixture
def rails():
    """Seven views of 500 points."""
    random = torch.Generator().manual_seed(0)
    features = FeatureMap(torch.randn(7, 5, 3, 4, generator=random), 4, (12, 16))
    return features, Panned(*range(7)), 14 * torch.rand(500, 3, generator=random) - 2


def one_by_one(features):
    for view in range(len(features.values)):
        yield FeatureMap(features.values[view : view + 1], features.stride, features.image_size)


@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
@pytest.mark.parametrize("fuse", FUSES)
def test_views_one_by_one_or_all_at_once(fuse, sample, rails):
    features, views, points = rails
    whole = lift(features, views, points, fuse=fuse(), sample=sample)
    for given in (
        one_by_one(features),
        list(one_by_one(features)),
        [FeatureMap(part, 4, (12, 16)) for part in features.values.split([3, 0, 4])],
    ):
        values, seen = lift(given, views, points, fuse=fuse(), sample=sample)
        assert_same(values, whole[0], fuse)
        assert torch.equal(seen, whole[1])


@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
@pytest.mark.parametrize("fuse", FUSES)
def test_chunks_of_any_size(fuse, sample, rails, monkeypatch):
    features, views, points = rails
    whole = lift(features, views, points, fuse=fuse(), sample=sample)
    monkeypatch.setattr(sys.modules["dinomed3d.lifting.lift"], "MAPS_MIB", 500 / 2**20)  # two maps
    values, seen = lift(features, views, points, fuse=fuse(), sample=sample, chunk_mib=700 / 2**20)
    assert_same(values, whole[0], fuse)
    assert torch.equal(seen, whole[1])


@pytest.mark.parametrize("chunk_mib", [None, 700 / 2**20])
@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
@pytest.mark.parametrize("fuse", FUSES)
def test_the_ways_of_devices_give_the_same(fuse, sample, chunk_mib, rails, monkeypatch):
    features, views, points = rails
    whole = lift(features, views, points, fuse=fuse(), sample=sample)
    monkeypatch.setattr(on_devices, "is_cpu", lambda device: False)
    for given in (features, one_by_one(features)):
        values, seen = lift(given, views, points, fuse=fuse(), sample=sample, chunk_mib=chunk_mib)
        torch.testing.assert_close(values, whole[0])
        assert torch.equal(seen, whole[1])
    monkeypatch.setattr(on_devices, "MAPS_MIB", 500 / 2**20)  # two maps
    values, _ = lift(features, views, points, fuse=fuse(), sample=sample)
    torch.testing.assert_close(values, whole[0])


def test_pixels_in_all_views_count_in_a_chunk_of_devices():
    maps = FeatureMap(torch.zeros(100, 3, 1, 1), 1, (1, 1))  # 12 bytes of features, 800 of pixels
    assert on_devices.rows_of_views(maps, 8000) == 10
    maps = FeatureMap(torch.zeros(1, 100, 1, 1), 1, (1, 1))
    assert on_devices.rows_of_views(maps, 8000) == 20
    maps.values.requires_grad_()
    assert on_devices.rows_of_views(maps, 8000) >= 2**31  # gradients: not cut


@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
def test_points_without_a_view_may_lie_anywhere(sample):
    maps = FeatureMap(torch.ones(2, 3, 4, 5), 2, (8, 10))
    uv = torch.tensor([[1.0, 1], [float("nan"), 2], [1e30, -1e30], [9, 7]])
    values = on_devices.sample_every(maps, torch.tensor([0, -1, -1, 1]), uv, sample=sample)
    assert values.tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
@pytest.mark.parametrize("fuse", FUSES)
def test_against_adding_every_view_to_the_fusion(fuse, sample, rails):
    """Selecting views before sampling gives what sampling all of them gives."""
    features, views, points = rails
    kind = fuse()
    kind.start(len(points), 5, like=features.values)
    for view in range(7):
        uv, visible, distance = views.project(view, points)
        index = torch.nonzero(visible).squeeze(1)
        kind.add(index, sample(features, view, uv[index]), distance[index])
    values, seen = lift(features, views, points, fuse=fuse(), sample=sample)
    assert_same(values, kind.result()[0], fuse)
    assert torch.equal(seen, kind.result()[1])


@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
@pytest.mark.parametrize("fuse", FUSES)
def test_known_pixels_give_what_projection_gives(fuse, sample, rails):
    features, views, points = rails
    uv, visible, distance = (
        torch.stack(values, dim=1)
        for values in zip(*(views.project(view, points) for view in range(7)), strict=True)
    )
    whole = lift(features, views, points, fuse=fuse(), sample=sample)
    for chunk in (4.0, 700 / 2**20):
        values, seen = sample_and_fuse(
            features, uv, visible, distance=distance, fuse=fuse(), sample=sample, chunk_mib=chunk
        )
        assert_same(values, whole[0], fuse)
        assert torch.equal(seen, whole[1])


def test_where_one_view_is_selected_nothing_else_is_sampled(rails):
    features, views, points = rails
    rows = []

    def counted(maps, view, uv):
        rows.append(len(uv))
        return sample_nearest(maps, view, uv)

    _, seen = lift(features, views, points, fuse=Last(), sample=counted)
    assert sum(rows) == seen.sum()


@pytest.mark.parametrize("fuse", FUSES)
def test_no_more_is_computed_at_a_time_than_the_chunk_holds(fuse, rails):
    features, _, points = rails
    projected, sampled = [], []

    class Counted(Rails):
        def project(self, view, points):
            projected.append(len(points))
            return super().project(view, points)

    def counted(maps, view, uv):
        sampled.append(len(uv))
        return sample_nearest(maps, view, uv)

    views, chunk = Counted(*range(7)), 2000 / 2**20  # of 5 channels in float32
    lift(features, views, points, fuse=fuse(), sample=counted, chunk_mib=chunk)
    assert len(projected) >= 7 and max(projected) <= 2000 // 20
    assert len(sampled) >= 4 and max(sampled) <= 2000 // 20


def test_begun_with_the_last_view_settled_sites_are_passed_over():
    asked = []

    class Counted(Rails):
        def project(self, view, points):
            asked.append((view, len(points)))
            uv, visible, distance = super().project(view, points)
            return uv, visible & (distance < 3), distance

    features = FeatureMap(torch.arange(3.0).view(3, 1, 1, 1), 4, (4, 4))
    points = torch.tensor([[0.0, 1, 1], [3, 1, 1], [4, 1, 1], [9, 1, 1]])
    values, seen = lift(features, Counted(1, 2, 5), points, fuse=Last())
    assert values.flatten().tolist() == [1, 2, 2, 0] and seen.tolist() == [True, True, True, False]
    assert asked == [(2, 4), (1, 2), (0, 1)]


def test_gradients_of_views_one_by_one(rails):
    features, views, points = rails
    grads = []
    for given in ((lambda f: f), (lambda f: list(one_by_one(f)))):
        maps = features.values.clone().requires_grad_()
        values, _ = lift(given(FeatureMap(maps, 4, (12, 16))), views, points, fuse=Nearest())
        values.square().sum().backward()
        grads.append(maps.grad)
    torch.testing.assert_close(*grads)


# --- slices: the general path and the fast one are the same


@pytest.mark.parametrize("fuse", FUSES)
@pytest.mark.parametrize(
    "slices",
    [
        SliceStack(depth=5, height=32, width=48, image_height=32, image_width=48),
        SliceStack(depth=5, height=8, width=12, image_height=32, image_width=48),  # enlarged
        SliceStack(depth=1, height=7, width=100, image_height=32, image_width=48),  # unevenly
    ],
)
def test_at_token_centres_lifting_is_a_reshape(slices, fuse):
    maps = torch.randn(slices.depth, 6, 2, 3)
    features = FeatureMap(maps, 16, (32, 48))
    values, seen = lift(features, slices, slices.token_centres(16), fuse=fuse())
    assert seen.all()
    general = values.T.view(1, 6, slices.depth, 2, 3)
    torch.testing.assert_close(general, unstack_slices(maps, depth=slices.depth))


@pytest.mark.parametrize("fuse", FUSES)
@pytest.mark.parametrize(
    "slices",
    [
        SliceStack(depth=4, height=64, width=48, image_height=64, image_width=48),
        SliceStack(depth=4, height=20, width=9, image_height=64, image_width=48),
    ],
)
def test_at_voxel_centres_lifting_is_an_interpolation(slices, fuse):
    maps = torch.randn(slices.depth, 6, 4, 3)
    features = FeatureMap(maps, 16, (64, 48))
    values, seen = lift(features, slices, slices.voxel_centres(), fuse=fuse())
    assert seen.all()
    size = slices.height, slices.width
    upsampled = F.interpolate(maps, size, mode="bilinear", align_corners=False)
    general = values.T.view(1, 6, slices.depth, *size)
    torch.testing.assert_close(
        general, unstack_slices(upsampled, depth=slices.depth), atol=1e-5, rtol=1e-5
    )


def test_from_volume_to_sites_and_back(tiny_encoder):
    """encode -> project -> sample -> fuse, against encode -> reshape."""
    volume = torch.randn(1, 1, 3, 32, 48)
    slices = SliceStack(depth=3, height=32, width=48, image_height=32, image_width=48)
    for tap in tiny_encoder(stack_slices(volume, slices=3)):
        values, seen = lift(tap, slices, slices.token_centres(tap.stride), fuse=Nearest())
        fast = unstack_slices(tap.values, depth=3)
        assert seen.all()
        torch.testing.assert_close(values.T.view_as(fast), fast, atol=1e-5, rtol=1e-5)


def test_a_slice_stays_in_its_place():
    maps = torch.zeros(4, 1, 2, 2)
    maps[2, 0, 1, 0] = 1
    slices = SliceStack(depth=4, height=2, width=2, image_height=2, image_width=2)
    values, _ = lift(FeatureMap(maps, 1, (2, 2)), slices, slices.voxel_centres(), fuse=Last())
    assert torch.nonzero(values.view(4, 2, 2)).tolist() == [[2, 1, 0]]


def test_outside_the_volume_nothing_is_seen():
    slices = SliceStack(depth=2, height=4, width=4, image_height=4, image_width=4)
    outside = torch.tensor([[-1.0, 0, 0], [2, 0, 0], [0, -1, 0], [0, 4, 0], [0, 0, 4]])
    values, seen = lift(FeatureMap(torch.ones(2, 3, 1, 1), 4, (4, 4)), slices, outside, fuse=Mean())
    assert not seen.any() and not values.any()


@pytest.mark.parametrize("fuse", FUSES)
def test_gradients_reach_the_maps(fuse):
    maps = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    slices = SliceStack(depth=3, height=5, width=5, image_height=8, image_width=8)
    points = slices.voxel_centres().double()

    def values(m):
        return lift(FeatureMap(m, 4, (8, 8)), slices, points, fuse=fuse())[0]

    assert torch.autograd.gradcheck(values, (maps,), fast_mode=True)


# --- bad input


def flat(count, channels=1):
    return FeatureMap(torch.zeros(count, channels, 1, 1), 4, (4, 4))


@pytest.mark.parametrize(
    ("features", "views", "settings", "names"),
    [
        (flat(2), 3, {}, "3 views .* 2 images"),
        ([flat(2)], 3, {}, "3 views .* 2 images"),
        ([flat(1), flat(1)], 3, {}, "3 views .* 2 images"),
        ([flat(2), flat(2)], 3, {}, "3 views .* 4 or more images"),
        ([], 0, {}, "'features'"),
        ([flat(1, 3), flat(1, 4)], 2, {}, "channels, got 3 and 4"),
        (flat(1), 1, {"chunk_mib": 0}, "'chunk_mib'"),
        (flat(1), 1, {"points": torch.zeros(3)}, "'points'"),
        (flat(1), 1, {"points": torch.zeros(4, 2)}, "'points'"),
        (flat(1), 1, {"points": torch.zeros(1, 4, 3)}, "'points'"),
    ],
)
@pytest.mark.parametrize("fuse", [Last, Mean])
def test_what_cannot_be_lifted_is_refused(features, views, settings, names, fuse):
    settings = {"points": torch.zeros(1, 3)} | settings
    with pytest.raises(ValueError, match=f"lift: .*{names}"):
        lift(features, Rails(*range(views)), settings.pop("points"), fuse=fuse(), **settings)


@pytest.mark.parametrize(
    ("uv", "visible", "distance"),
    [((4, 2, 2), (4, 1), None), ((4, 2), (4, 2), None), ((4, 2, 2), (4, 2), (4,))],
)
def test_pixels_that_do_not_belong_together_are_refused(uv, visible, distance):
    with pytest.raises(ValueError, match="sample_and_fuse: "):
        sample_and_fuse(
            flat(2),
            torch.zeros(uv),
            torch.zeros(visible, dtype=torch.bool),
            distance=None if distance is None else torch.zeros(distance),
            fuse=Last(),
        )


# --- the core as a package


def test_the_core_stands_alone():
    code = "import sys, dinomed3d.lifting; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout.split()
    ours = {m for m in modules if m.startswith(("dinomed3d", "planners", "pointseg"))}
    assert "dinomed3d.lifting.weights" in ours
    allowed = ("dinomed3d.lifting", "dinomed3d.runtime", "dinomed3d.hub")
    assert all(m == "dinomed3d" or m.startswith(allowed) for m in ours)
    heavy = {"nnunetv2", "monai", "torchio", "SimpleITK", "batchgenerators", "matplotlib"}
    assert not heavy & {m.split(".")[0] for m in modules}
