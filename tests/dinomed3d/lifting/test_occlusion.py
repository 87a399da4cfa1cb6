"""A depth map from the cloud itself: which points it occludes."""

from __future__ import annotations

import math

import pytest
import torch

from dinomed3d.lifting import Camera, Cameras, z_buffer


def camera(**changes) -> Camera:
    given = dict(
        intrinsics=torch.tensor([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]]),
        size=(240, 320),
        world_to_camera=torch.eye(4),
    )
    return Camera(**(given | changes))


def upright(width: float, height: float, depth: float, gap: float) -> torch.Tensor:
    """Points of a plane that faces the camera, in its middle, in a square pattern."""
    x = torch.arange(-width / 2, width / 2 + 1e-6, gap)
    y = torch.arange(-height / 2, height / 2 + 1e-6, gap)
    return torch.cartesian_prod(x, y, torch.tensor([float(depth)]))


def floor(count: int = 20_000) -> torch.Tensor:
    """Points of a ground 1.5 m below the camera, 3 to 9 m away."""
    random = torch.Generator().manual_seed(1)
    place = torch.rand(count, 2, generator=random) * torch.tensor([12.0, 6]) + torch.tensor([-6, 3])
    return torch.stack([place[:, 0], torch.full((count,), 1.5), place[:, 1]], dim=-1)


def scan(surface, *, rings: int = 40, columns: int = 1200, tilt: float = 0.4) -> torch.Tensor:
    """A spinning LiDAR's hits, dense along its rings and sparse across; 1.5 m above the camera.

    `surface` gives the (N,) distances along (N, 3) directions from the scanner's place.
    """
    up = torch.linspace(-tilt, tilt, rings)[:, None]
    around = torch.linspace(-0.7, 0.7, columns)
    parts = up.cos() * around.sin(), -up.sin().expand(rings, columns), up.cos() * around.cos()
    directions = torch.stack(parts, dim=-1).view(-1, 3)
    start = torch.tensor([0.0, -1.5, 0])
    hits = start + surface(start, directions)[:, None] * directions
    return hits[hits.isfinite().all(-1)]


def street(start: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """The nearest of a facade at 20 m, the ground 1.7 m below, a box of 3 x 1.7 m at 8 m."""
    x, y, z = directions.unbind(-1)
    facade = 20 / z
    ground = torch.where(y > 0, (1.7 - start[1]) / y, torch.inf)
    box = 8 / z
    place = start + box[:, None] * directions
    hit = (place[:, 0].abs() < 1.5) & (place[:, 1] > 0)
    return torch.minimum(torch.minimum(facade, ground), torch.where(hit, box, torch.inf))


def seen(
    view: Camera, cloud: torch.Tensor, *, depth_tolerance: float = 0.2, **settings
) -> torch.Tensor:
    return Cameras(
        [view], depths=[z_buffer(view, cloud, **settings)], depth_tolerance=depth_tolerance
    ).project(0, cloud)[1]


def in_image(view: Camera, cloud: torch.Tensor) -> torch.Tensor:
    return Cameras([view]).project(0, cloud)[1]


@pytest.mark.parametrize("settings", [{}, {"cell": 0.05}])
def test_a_plane_before_a_wall(settings):
    plane, wall = upright(1, 1, 2, 0.05), upright(9, 7, 6, 0.05)
    visible = seen(camera(), torch.cat([plane, wall]), **settings)
    before, behind = visible[: len(plane)], visible[len(plane) :]
    assert before.all()
    # At 6 m the plane's shadow is three times as wide; a gap of 7.5 pixels is 0.15 m there.
    across = wall[:, :2].abs().amax(1)
    assert not behind[across < 1.35].any()
    inside = in_image(camera(), wall)
    assert behind[(across > 1.66) & inside].all() and not behind[~inside].any()


def test_the_depths_themselves():
    depth = z_buffer(camera(), torch.cat([upright(1, 1, 2, 0.05), upright(9, 7, 6, 0.05)]))
    assert depth.shape == (240, 320) and depth.dtype == torch.float32
    assert (depth[50:190, 90:230] == 2).all()  # no hole between the points of the plane
    rest = torch.ones_like(depth, dtype=torch.bool)
    rest[44:196, 84:236] = False
    assert (depth[rest] == 6).all()  # nor an outline that grew


def test_pixels_without_surface_are_unknown():
    depth = z_buffer(camera(), upright(1, 1, 2, 0.05))
    assert (depth[:40] == 0).all() and (depth[:, :80] == 0).all()


def test_the_ground_does_not_hide_itself():
    ground = floor()
    inside = in_image(camera(), ground)
    assert inside.sum() > 5000
    assert seen(camera(), ground)[inside].float().mean() > 0.99
    assert seen(camera(), ground, cell=0.08)[inside].float().mean() > 0.98


def test_the_ground_before_and_behind_a_plane():
    ground, plane = floor(), upright(2, 3, 6, 0.04)
    cloud = torch.cat([ground, plane])
    inside = in_image(camera(), ground)
    visible = seen(camera(), cloud)[: len(ground)]
    hidden = inside & (ground[:, 2] > 6.5) & (ground[:, 0].abs() / ground[:, 2] < 0.95 / 6)
    assert hidden.sum() > 300 and visible[hidden].float().mean() < 0.01
    free = inside & ((ground[:, 2] < 5.9) | (ground[:, 0].abs() / ground[:, 2] > 1.1 / 6))
    assert visible[free].float().mean() > 0.99


def test_a_sparse_scan_of_a_street():
    cloud = scan(street)
    view = camera()
    inside = in_image(view, cloud)
    # What really is visible from the camera, 1.5 m below the scanner.
    away = cloud.norm(dim=-1)
    free = street(torch.zeros(3), cloud / away[:, None])
    truth = away < free + 0.05
    visible = seen(view, cloud)
    assert inside.sum() > 5000 and (inside & ~truth).sum() > 200
    assert visible[inside & truth].float().mean() > 0.98
    assert (
        visible[inside & ~truth].float().mean() < 0.25
    )  # above the box's highest ring nothing is known
    # Points alone, one pixel each, would have hidden next to nothing.
    alone = seen(view, cloud, cell=1e-6)
    assert alone[inside & ~truth].float().mean() > 0.8


def test_a_cloud_far_away_and_a_turned_camera():
    pose = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    cloud = torch.cat([upright(1, 1, 2, 0.05), upright(9, 7, 6, 0.05)]).double()
    turned = cloud @ pose[:3, :3].double()
    origin = torch.tensor([4e6, 5e6, 100.0], dtype=torch.float64)
    moved = camera(world_to_camera=pose).moved(-origin)
    assert torch.equal(
        seen(moved, turned + origin), seen(camera(world_to_camera=pose), turned.float())
    )


def test_order_and_chunks_do_not_matter():
    cloud = torch.cat([floor(5000), upright(2, 2, 5, 0.1)])
    whole = z_buffer(camera(), cloud)
    assert torch.equal(whole, z_buffer(camera(), cloud[torch.randperm(len(cloud))], chunk=700))


def test_a_point_is_never_behind_its_own_pixel():
    random = torch.Generator().manual_seed(0)
    cloud = torch.rand(3000, 3, generator=random) * torch.tensor([4.0, 3, 30]) - torch.tensor(
        [2, 1.5, 0]
    )
    depth = z_buffer(camera(), cloud)
    uv, inside, distance = Cameras([camera()]).project(0, cloud)
    u, v = uv[inside].long().T
    found = depth[v, u]
    assert (found > 0).all() and (found <= distance[inside] + 1e-5).all()


@pytest.mark.parametrize("cloud", [torch.zeros(0, 3), torch.tensor([[0.0, 0, -5]])])
def test_nothing_in_view(cloud):
    assert not z_buffer(camera(), cloud).any()


def test_surfaces_out_of_the_image_hide_what_is_at_its_border():
    # The nearer plane continues beyond the left border; points at the border are hidden all the same.
    plane, wall = upright(9, 7, 3, 0.05), upright(12, 9, 6, 0.05)
    visible = seen(camera(), torch.cat([plane, wall]))
    assert visible[: len(plane)][in_image(camera(), plane)].all()
    assert not visible[len(plane) :].any()


@pytest.mark.parametrize("cell", [0.0, -1.0, math.inf, math.nan])
def test_a_cell_without_size(cell):
    with pytest.raises(ValueError, match="z_buffer: 'cell' must be positive or None, got"):
        z_buffer(camera(), torch.zeros(0, 3), cell=cell)


def test_a_limit_without_size():
    with pytest.raises(ValueError, match="z_buffer: 'limit' must be at least 1, got 0"):
        z_buffer(camera(), torch.zeros(0, 3), limit=0)
