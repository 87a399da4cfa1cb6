"""Features on points: cameras through `lift`, against loops over views and the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dinomed3d.lifting import (
    Camera,
    Cameras,
    FeatureMap,
    Last,
    Max,
    Mean,
    Nearest,
    SliceStack,
    in_image,
    lift,
    sample_and_fuse,
    sample_bilinear,
    sample_nearest,
    stack_slices,
    unstack_slices,
    z_buffer,
)

STRIDE, SIZE = 16, (96, 128)


def around(count: int) -> list[Camera]:
    """Cameras in a circle, all looking outward and a little down."""
    cameras = []
    for number in range(count):
        angle = torch.tensor(2 * torch.pi * number / count, dtype=torch.float64)
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(()).double()
        level = torch.stack(
            [
                torch.stack([sin, -cos, zero]),
                -torch.eye(3)[2].double(),
                torch.stack([cos, sin, zero]),
            ]
        )
        tilt = torch.linalg.matrix_exp(
            torch.tensor([[0, 0, 0], [0, 0, 0.2], [0, -0.2, 0]], dtype=torch.float64)
        )
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = tilt @ level
        pose[:3, 3] = torch.tensor([0.1, -0.2, 0.3])
        lens = torch.tensor([[70.0, 0, 64], [0, 70, 48], [0, 0, 1]])
        cameras.append(Camera(intrinsics=lens, size=SIZE, world_to_camera=pose))
    return cameras


@pytest.fixture(scope="module")
def room():
    """Six overlapping views, with a depth map of each; 900 points; maps of 5 channels."""
    random = torch.Generator().manual_seed(3)
    cameras = around(6)
    points = (torch.rand(900, 3, generator=random) - 0.5) * torch.tensor([8.0, 8, 4])
    depths = [z_buffer(camera, points, cell=0.3) for camera in cameras]
    maps = torch.randn(6, 5, 6, 8, generator=random)
    return cameras, depths, points, FeatureMap(maps, STRIDE, SIZE)


def loop(cameras, depths, points, maps, *, fuse, depth_tolerance=0.2):
    """What lifting is, view by view and point by point, in numpy; nearest cell."""
    found = [[] for _ in points]
    for camera, depth, values in zip(cameras, depths, maps, strict=True):
        pose, lens = camera.world_to_camera.numpy(), camera.intrinsics.numpy()
        for number, point in enumerate(points.astype(np.float64)):
            q = pose[:3, :3] @ point + pose[:3, 3]
            if q[2] <= 0:
                continue
            u, v, _ = lens @ q / q[2]
            if not (0 <= u < SIZE[1] and 0 <= v < SIZE[0]):
                continue
            before = depth[int(v), int(u)]
            if before > 0 and abs(q[2] - before) <= depth_tolerance:
                found[number].append((q[2], values[:, int(v) // STRIDE, int(u) // STRIDE]))
    out = np.zeros((len(points), maps.shape[1]), np.float32)
    for row, seen in zip(out, found, strict=True):
        if seen:
            features = np.stack([feature for _, feature in seen])
            row[:] = {
                Last: features[-1],
                Nearest: features[np.argmin([far for far, _ in seen])],
                Mean: features.mean(0),
                Max: features.max(0),
            }[fuse]
    return out, np.array([len(seen) for seen in found])


@pytest.mark.parametrize("fuse", [Last, Nearest, Mean, Max])
def test_against_a_loop_over_views_and_points(fuse, room):
    cameras, depths, points, features = room
    wanted, views = loop(
        cameras, [d.numpy() for d in depths], points.numpy(), features.values.numpy(), fuse=fuse
    )
    assert 100 < (views > 1).sum() and 100 < (views == 0).sum()  # by several, by none
    for chunk in (4.0, 0.001):
        values, seen = lift(
            features,
            Cameras(cameras, depths=depths),
            points,
            fuse=fuse(),
            sample=sample_nearest,
            chunk_mib=chunk,
        )
        torch.testing.assert_close(values, torch.from_numpy(wanted))
        assert seen.tolist() == (views > 0).tolist()


@pytest.mark.parametrize("sample", [sample_nearest, sample_bilinear])
def test_the_same_change_of_image_and_camera_changes_nothing(sample, room):
    cameras, _, points, features = room
    wanted = lift(features, Cameras(cameras), points, fuse=Mean(), sample=sample)
    mirrored = FeatureMap(features.values.flip(-1), STRIDE, SIZE)
    larger = FeatureMap(features.values, 2 * STRIDE, (192, 256))
    for maps, changed in (
        (mirrored, [camera.flipped() for camera in cameras]),
        (larger, [camera.resized(192, 256) for camera in cameras]),
    ):
        values, seen = lift(maps, Cameras(changed), points, fuse=Mean(), sample=sample)
        torch.testing.assert_close(values, wanted[0])
        assert torch.equal(seen, wanted[1])


@pytest.mark.parametrize("fuse", [Last, Nearest, Mean, Max])
def test_a_georeferenced_cloud(fuse, room):
    cameras, depths, points, features = room
    origin = torch.tensor([4e6, -1e7, 250.0], dtype=torch.float64)
    wanted = lift(features, Cameras(cameras, depths=depths), points, fuse=fuse())
    moved = Cameras([camera.moved(-origin) for camera in cameras], depths=depths)
    values, seen = lift(features, moved, points.double() + origin, fuse=fuse())
    assert torch.equal(seen, wanted[1])
    torch.testing.assert_close(values, wanted[0], atol=1e-5, rtol=1e-5)


def test_a_cloud_of_voxel_centres_seen_by_slices(tiny_encoder):
    """encode -> project -> sample -> fuse of points in any order, against encode -> upsample."""
    volume = torch.randn(1, 1, 4, 32, 48)
    stack = SliceStack(depth=4, height=32, width=48, image_height=32, image_width=48)
    order = torch.randperm(4 * 32 * 48)
    cloud = stack.voxel_centres()[order]
    for tap in tiny_encoder(stack_slices(volume, slices=3)):
        cells = tap.values.repeat_interleave(16, -1).repeat_interleave(16, -2)
        smooth = F.interpolate(tap.values, (32, 48), mode="bilinear")
        for maps, sample in ((cells, sample_nearest), (smooth, sample_bilinear)):
            fast = unstack_slices(maps, depth=4).flatten(2)[0].T[order]
            for fuse in (Last, Nearest, Mean, Max):
                values, seen = lift(tap, stack, cloud, fuse=fuse(), sample=sample)
                assert seen.all()
                torch.testing.assert_close(values, fast, atol=1e-5, rtol=1e-5)


def test_the_reference_lifts_the_same(shared):
    """DITR's own features on points: last visible view, nearest patch, zeros where unseen."""
    io = np.load(shared / "golden" / "ditr" / "io.npz")
    maps, coord, mask, lifted = (
        torch.from_numpy(io[name])
        for name in ("feature_maps", "image_coord", "image_mask", "lifted")
    )
    size = 14 * maps.shape[-2], 14 * maps.shape[-1]
    # What is marked visible and yet lies on no patch is guarded against, not read.
    mask &= in_image(coord, size)
    ends = io["offset"].tolist()
    for cloud, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        values, seen = sample_and_fuse(
            FeatureMap(maps[cloud], 14, size),
            coord[start:end],
            mask[start:end],
            fuse=Last(),
            sample=sample_nearest,
        )
        assert torch.equal(values, lifted[start:end])
        assert torch.equal(seen, mask[start:end].any(1))
