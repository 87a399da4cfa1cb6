"""Posed cameras: where points lie in images, and which are seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dinomed3d.lifting import Camera, Cameras, Lens, check_rigid

K = torch.tensor([[500.0, 0, 320], [0, 400, 240], [0, 0, 1]])
LENS = torch.tensor([-0.3, 0.1, 0.002, -0.001, 0.01])


def turned(x: float, y: float, z: float, at=(0.0, 0, 0)) -> torch.Tensor:
    """World to camera of a camera somewhere, its axes turned by a rotation vector."""
    skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.linalg.matrix_exp(skew)
    pose[:3, 3] = -pose[:3, :3] @ torch.tensor(at, dtype=torch.float64)
    return pose


def camera(pose=None, **changes) -> Camera:
    given = dict(intrinsics=K, size=(480, 640), world_to_camera=torch.eye(4))
    if pose is not None:
        given["world_to_camera"] = pose
    return Camera(**(given | changes))


POSES = [turned(0, 0, 0), turned(0.3, -1.2, 2, (1, 2, 3)), turned(-2, 0.1, 0.4, (-50, 7, 0.2))]


# --- projection


def test_by_hand():
    points = torch.tensor([[0.0, 0, 2], [1, 0, 2], [0, 1, 2], [-1.28, -1.2, 2], [1, 1, 1000]])
    uv, depth = camera().project(points)
    wanted = [[320, 240], [570, 240], [320, 440], [0, 0], [320.5, 240.4]]
    torch.testing.assert_close(uv, torch.tensor(wanted, dtype=torch.float64), atol=1e-5, rtol=0)
    assert depth.tolist() == [2, 2, 2, 2, 1000]


def test_a_pose_by_hand():
    # At x = 10, looking along the world's x; the image's right is the world's -y, its down is -z.
    pose = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, -10], [0, 0, 0, 1]])
    uv, depth = camera(pose).project(torch.tensor([[14.0, 0, 0], [14, 1, 0], [14, 0, 1]]))
    assert uv.tolist() == [[320, 240], [320 - 125, 240], [320, 240 - 100]]
    assert depth.tolist() == [4, 4, 4]
    assert camera(pose).centre.tolist() == [10, 0, 0]


def test_skew():
    skewed = K.clone()
    skewed[0, 1] = 10
    uv, _ = camera(intrinsics=skewed).project(torch.tensor([[0.0, 1, 2]]))
    assert uv.tolist() == [[325, 440]]


def test_distortion_by_hand():
    # At x = y = 0.5: r2 = 0.5, radial = 1 + 0.05 + 0.05 + 0.05 = 1.15;
    # x' = 0.575 + 2 p1 0.25 + p2 (0.5 + 0.5), y' = 0.575 + p1 + 0.5 p2
    lens = torch.tensor([0.1, 0.2, 0.01, 0.02, 0.4])
    uv, _ = camera(distortion=lens).project(torch.tensor([[1.0, 1, 2]]))
    wanted = [320 + 500 * (0.575 + 0.005 + 0.02), 240 + 400 * (0.575 + 0.01 + 0.01)]
    torch.testing.assert_close(uv, torch.tensor([wanted], dtype=torch.float64), atol=1e-4, rtol=0)


LENSES = [
    None,
    LENS,
    Lens(fisheye=True, radial=(0.02, 0.01, -0.003, 0.0004)),
    Lens(fisheye=True, radial=(0.02,), tangential=(0.001, 0.002), prism=(0.003, 0.001)),
    Lens(radial=(0.2, 0.02, 0.01), divisor=(0.15, 0.01, 0.002), tangential=(0.001, 0.002)),
]


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("pose", POSES)
def test_there_and_back(pose, lens):
    one = camera(pose, distortion=lens).resized(48, 64)
    depth = 1 + 9 * torch.rand(48, 64, dtype=torch.float64)
    points = one.unproject(depth)
    uv, found = one.project(points.view(-1, 3))
    v, u = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    pixels = torch.stack([u, v], dim=-1).view(-1, 2).double()
    torch.testing.assert_close(uv, pixels, atol=1e-8, rtol=0)
    torch.testing.assert_close(found, depth.view(-1))


def test_unprojection_by_hand():
    depth = torch.zeros(480, 640)
    depth[240, 320] = 4.0
    depth[0, 0], depth[0, 1] = math.nan, math.inf
    points = camera().unproject(depth)
    torch.testing.assert_close(
        points[240, 320], torch.tensor([0.5 / 500 * 4, 0.5 / 400 * 4, 4]).double()
    )
    assert points.isfinite().all(-1).sum() == 1  # unknown depth, unknown place


def test_beyond_the_turning_point_of_a_lens_model_nothing_is_seen():
    # r (1 - 0.3 r^2) grows to r = 1.054 and falls to 0 at r = 1.83: there it is no lens any more.
    lens = torch.tensor([-0.3, 0, 0, 0, 0])
    points = torch.tensor([[1.0, 0, 1], [1.1, 0, 1], [1.8, 0, 1]])
    uv, _ = camera(distortion=lens).project(points)
    assert uv[:, 0].isnan().tolist() == [False, True, True]
    assert Cameras([camera(distortion=lens)]).project(0, points)[1].tolist() == [False] * 3
    assert not camera(distortion=0 * lens).project(points)[0].isnan().any()
    assert not camera(distortion=-lens).project(points)[0].isnan().any()


def test_a_fisheye_by_hand():
    # 45 degrees off the axis: pi/4 (1 + 0.1 (pi/4)^2) = 0.8338455, and 90 degrees or more are not seen.
    lens = Lens(fisheye=True, radial=(0.1,))
    points = torch.tensor([[1.0, 0, 1], [0, -1, 1], [0, 0, 1], [1, 0, 0], [1, 0, -1]])
    uv, depth = camera(distortion=lens).project(points)
    wanted = [[320 + 500 * 0.8338455, 240], [320, 240 - 400 * 0.8338455], [320, 240]]
    torch.testing.assert_close(uv[:3], torch.tensor(wanted).double(), atol=1e-4, rtol=0)
    assert uv[3:].isnan().all() and depth.tolist() == [1, 1, 1, 0, -1]
    # a (1 - a^2) grows up to 1 / sqrt(3) of the angle, 33 degrees
    bent = camera(distortion=Lens(fisheye=True, radial=(-1.0,)))
    off = torch.tensor([0.55, 0.6]).tan()
    uv, _ = bent.project(torch.stack([off, 0 * off, 1 + 0 * off], 1))
    assert uv.isnan().any(1).tolist() == [False, True]


def test_a_divided_lens_is_one_to_one_up_to_where_it_turns():
    # r / (1 + r^2) grows up to r = 1; r / (1 - r^2) has no value beyond it
    assert Lens(divisor=(1.0,)).limit == pytest.approx(1)
    assert Lens(divisor=(-1.0,)).limit == pytest.approx(1)
    assert Lens(radial=(0.2, 0, 0)).limit == Lens(fisheye=True).limit == math.inf


def test_pixels_that_no_ray_reaches():
    lens = torch.tensor([-0.3, 0, 0, 0, 0])  # radii up to 0.703 of the image plane
    low = K - torch.tensor([[0.0, 0, 0], [0, 0, 240], [0, 0, 0]])
    one = camera(distortion=lens, size=(1, 2000), intrinsics=low)
    reached = one.unproject(torch.ones(1, 2000))[0, :, 2].isfinite()
    radius = (torch.arange(2000) + 0.5 - 320).abs() / 500
    assert reached[radius < 0.7].all() and not reached[radius > 0.71].any()


def test_far_from_the_origin_nothing_is_lost():
    near = camera(turned(0.3, -1.2, 2, (1, 2, 3)))
    points = near.unproject(torch.full((480, 640), 5.0)).view(-1, 3)[::997]
    wanted = near.project(points)[0]
    origin = torch.tensor([5e6, -1e7, 400.0], dtype=torch.float64)
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = -origin
    far = camera(near.world_to_camera @ shift)
    torch.testing.assert_close(far.project(points + origin)[0], wanted, atol=1e-4, rtol=0)
    # Relative to an origin, float32 is enough for a hundredth of a pixel.
    moved = far.moved(origin)
    torch.testing.assert_close(moved.project(points.float())[0], wanted, atol=1e-2, rtol=0)
    torch.testing.assert_close(moved.centre, near.centre, atol=1e-6, rtol=0)


def test_without_float64_geometry_is_relative_to_the_camera(monkeypatch):
    # Points on a grid that float32 holds exactly, 1e6 m away; the camera stands between its values.
    at = (1e6 + 0.0123, -2e6, 7.0)
    points = torch.tensor(at).round() + 0.25 * torch.randint(-40, 40, (200, 3))
    one = camera(turned(0.2, 0.5, -0.1, at))
    exact, depth = one.project(points.double())
    monkeypatch.setattr("dinomed3d.lifting.camera.exact_type", lambda device: torch.float32)
    rough, rough_depth = one.project(points.float())
    assert rough.dtype == torch.float32
    front = depth > 1
    assert front.sum() > 50
    torch.testing.assert_close(rough[front].double(), exact[front], atol=0.01, rtol=1e-5)
    torch.testing.assert_close(rough_depth.double(), depth, atol=1e-4, rtol=0)


# --- the image changes, the camera with it


@pytest.mark.parametrize("lens", [None, LENS])
def test_positions_follow_a_resized_image(lens):
    one = camera(POSES[1], distortion=lens)
    points = one.unproject(torch.full((480, 640), 3.0)).view(-1, 3)[::1001]
    small = one.resized(120, 320)
    assert small.size == (120, 320)
    torch.testing.assert_close(
        small.project(points)[0], one.project(points)[0] * torch.tensor([0.5, 0.25]).double()
    )


@pytest.mark.parametrize("lens", [None, LENS])
def test_positions_follow_a_mirrored_image(lens):
    one = camera(POSES[1], distortion=lens)
    points = one.unproject(torch.full((480, 640), 3.0)).view(-1, 3)[::1001]
    (u, v), (mirrored, same) = one.project(points)[0].T, one.flipped().project(points)[0].T
    torch.testing.assert_close(mirrored, 640 - u)
    torch.testing.assert_close(same, v)
    torch.testing.assert_close(one.flipped().flipped().intrinsics, one.intrinsics)


def test_the_content_of_an_image_is_found_after_resizing_and_mirroring():
    """A picture of the points' own world x: looked up, whatever was done to the image."""
    one = camera()
    x = one.unproject(torch.full((480, 640), 2.0))[..., 0].float()
    points = torch.tensor([[-0.9, 0.3, 2], [0.2, -0.5, 2], [1.1, 0.1, 2]])
    half = torch.nn.functional.avg_pool2d(x[None], 2)[0]
    cases = (one, x), (one.resized(240, 320), half), (one.resized(240, 320).flipped(), half.flip(1))
    for changed, image in cases:
        u, v = changed.project(points)[0].floor().long().T
        torch.testing.assert_close(image[v, u], points[:, 0], atol=0.01, rtol=0)


# --- what is seen


def test_exact_borders():
    # fx = 512, fy = 256, cx = cy = 0: at depth 1, u = 512 x and v = 256 y without rounding.
    lens = torch.tensor([[512.0, 0, 0], [0, 256, 0], [0, 0, 1]])
    one = camera(intrinsics=lens, size=(256, 512))
    inner = 1 - 2**-20
    points = torch.tensor(
        [[0, 0, 1], [inner, inner, 1], [1, 0, 1], [0, 1, 1], [-1e-9, 0, 1], [0, -1e-9, 1]]
    )
    uv, visible, _ = Cameras([one]).project(0, points)
    assert visible.tolist() == [True, True, False, False, False, False]
    assert uv[1].tolist() == [512 * inner, 256 * inner]


def test_behind_the_camera_nothing_is_seen():
    points = torch.tensor([[0.0, 0, -2], [0, 0, 0], [0.1, 0.1, -0.0], [0, 0, 1e-3]])
    uv, visible, distance = Cameras([camera()]).project(0, points)
    assert visible.tolist() == [False, False, False, True]
    assert uv[:3].isnan().all()
    assert distance.tolist() == pytest.approx([-2, 0, 0, 1e-3])


def test_limits_of_depth_are_exclusive():
    points = torch.tensor([[0.0, 0, z] for z in (0.5, 1, 1.5, 4, 5)])
    seen = Cameras([camera()], near=1, far=4).project(0, points)[1]
    assert seen.tolist() == [False, False, True, False, False]


def test_depth_maps_hide_what_lies_behind_or_before():
    depth = torch.full((480, 640), 2.0)
    points = torch.tensor([[0.0, 0, z] for z in (1.5, 1.75, 2, 2.25, 2.5)])
    seen = Cameras([camera()], depths=[depth], depth_tolerance=0.25).project(0, points)[1]
    assert seen.tolist() == [False, True, True, True, False]  # the tolerance is inclusive


@pytest.mark.parametrize("unknown", [0.0, math.nan, math.inf, -1.0])
def test_unknown_depth_is_not_seen(unknown):
    depth = torch.full((480, 640), unknown)
    points = torch.tensor([[0.0, 0, z] for z in (0.1, 2, 1000)])
    assert not Cameras([camera()], depths=[depth]).project(0, points)[1].any()


def test_depth_of_the_pixel_that_a_point_falls_into():
    depth = torch.full((480, 640), 9.0)
    depth[100, 200] = 2.0
    uv = torch.tensor([[200, 100], [200.999, 100.999], [201, 100], [199.999, 100], [200, 99.999]])
    x = (uv.double() - torch.tensor([320.0, 240])) / torch.tensor([500.0, 400])
    points = torch.cat([2 * x, torch.full((5, 1), 2.0)], dim=1)
    points[:, :2] += 1e-9  # no rounding below a border
    seen = Cameras([camera()], depths=[depth]).project(0, points)[1]
    assert seen.tolist() == [True, True, False, False, False]


def test_a_depth_map_of_another_resolution():
    depth = torch.tensor([[2.0, 9], [9, 9]])  # the upper left quarter of the image
    points = camera().unproject(torch.full((480, 640), 2.0)).view(-1, 3)
    seen = Cameras([camera()], depths=[depth]).project(0, points)[1].view(480, 640)
    assert seen[:240, :320].all() and seen.sum() == 240 * 320


def test_views_with_and_without_depth():
    asked = []

    class Lazy(list):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    maps = Lazy([None, torch.full((480, 640), 5.0)])
    both = Cameras([camera(), camera()], depths=maps)
    points = torch.tensor([[0.0, 0, 2]])
    for _ in range(3):
        assert both.project(0, points)[1].tolist() == [True]
    for _ in range(3):
        assert both.project(1, points)[1].tolist() == [False]
    assert asked == [0, 1]  # read once while they are used


@pytest.mark.parametrize("lens", [None, LENS])
def test_against_a_loop_over_points(lens):
    """In numpy, one point at a time, straight from the textbook."""
    random = np.random.default_rng(5)
    pose, depth = POSES[1].numpy(), random.uniform(0.5, 6, (480, 640)).astype(np.float32)
    points = random.normal(size=(400, 3)) * 4
    one = camera(POSES[1], distortion=lens)
    seen = Cameras([one], depths=[torch.from_numpy(depth)], near=0.3, far=7, depth_tolerance=2)
    uv, visible, distance = seen.project(0, torch.from_numpy(points))
    for point, found, sees, far in zip(
        points, uv.tolist(), visible, distance.tolist(), strict=True
    ):
        x, y, z = pose[:3, :3] @ point + pose[:3, 3]
        assert far == pytest.approx(z)
        if z <= 0 or (x * x + y * y) / (z * z) > 0.6:
            assert not (z <= 0 and sees)
            continue
        x, y = x / z, y / z
        if lens is not None:
            k1, k2, p1, p2, k3 = lens.double().tolist()
            r2 = x * x + y * y
            radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
            x, y = (
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            )
        u, v = 500 * x + 320, 400 * y + 240
        assert found == pytest.approx([u, v])
        inside = 0 <= u < 640 and 0 <= v < 480 and 0.3 < z < 7
        assert bool(sees) == (inside and abs(z - depth[int(v), int(u)]) <= 2)


# --- bad input


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.eye(3), r"\(3, 3\)"),
        (torch.full((4, 4), -math.inf), "finite"),
        (turned(1, 2, 3, (4, 5, 6)).T, "transposed"),
        (torch.diag(torch.tensor([1.0, 1, 1, 2])), "0, 0, 0, 2$"),
        (torch.diag(torch.tensor([2.0, 2, 2, 1])), "scaled by 2, determinant 8"),
        (torch.diag(torch.tensor([1.0, 1, 0, 1])), "orthonormal"),
        (torch.diag(torch.tensor([1.0, 1.1, 1, 1])), "0.21"),
        (torch.diag(torch.tensor([1.0, -1, 1, 1])), "determinant -1"),
    ],
)
def test_no_rigid_transform(matrix, message):
    with pytest.raises(ValueError, match=f"pose of a.png .*{message}"):
        check_rigid(matrix, "pose of a.png")
    if tuple(matrix.shape) == (4, 4):
        with pytest.raises(ValueError, match="Camera: 'world_to_camera'"):
            camera(matrix)


def test_poses_with_few_digits_are_rigid():
    check_rigid(torch.round(turned(1, 2, 3, (4, 5, 6)), decimals=4), "pose")


def unprojected(**_):
    return camera().unproject(torch.ones(240, 320))


def views(**settings):
    Cameras([camera()], **settings).project(0, torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("make", "settings", "names"),
    [
        (camera, {"intrinsics": K.T}, "'intrinsics'"),
        (camera, {"intrinsics": K[:2]}, "'intrinsics'"),
        (camera, {"intrinsics": K * math.nan}, "'intrinsics'"),
        (camera, {"intrinsics": K * torch.tensor([[0.0], [1], [1]])}, "'intrinsics'"),
        (camera, {"intrinsics": 2 * K}, "'intrinsics'"),
        (camera, {"intrinsics": (525, 525, 320, 240)}, "'intrinsics'.*fx, fy, cx, cy"),
        (camera, {"intrinsics": "K"}, "'intrinsics'.*str"),
        (camera, {"world_to_camera": np.eye(4)[:3]}, "'world_to_camera'.*0, 0, 0, 1"),
        (camera, {"world_to_camera": None}, "'world_to_camera'.*NoneType"),
        (camera, {"size": (0, 640)}, r"'size'.*\(height, width\)"),
        (camera, {"size": (480, 640, 3)}, "'size'"),
        (camera, {"size": (480.5, 640)}, "'size'"),
        (camera, {"size": 480}, "'size'"),
        (camera, {"distortion": torch.zeros(6)}, "'distortion'"),
        (camera, {"distortion": torch.full((5,), math.inf)}, "'distortion'"),
        (unprojected, {}, r"'depth' .*\(480, 640\), got \(240, 320\)"),
        (views, {"depths": []}, "1 cameras but 0 depth maps"),
        (views, {"depths": [torch.ones(1, 4, 4)]}, r"depth map 0 .*\(1, 4, 4\)"),
        (views, {"near": 2, "far": 2}, "near < far"),
        (views, {"near": -1}, "near < far"),
        (views, {"depth_tolerance": -0.1}, "'depth_tolerance'"),
        (views, {"depth_tolerance": math.nan}, "'depth_tolerance'"),
    ],
)
def test_what_makes_no_camera_is_refused(make, settings, names):
    with pytest.raises(ValueError, match=f"Cameras?.*: .*{names}"):
        make(**settings)


E = np.eye(4)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (
            lambda: Camera(K, (640, 480), E),
            r"intrinsics=K, size=\(height, width\), world_to_camera",
        ),
        (lambda: Camera(K, size=(480, 640), world_to_camera=E), "1 without"),
        (lambda: Camera(intrinsics=K, size=(480, 640), camera_to_world=E), r"inv\(camera_to_w"),
        (lambda: Camera(intrinsics=K, size=(480, 640), pose=E), r"world_to_camera=pose.*inv\(pose"),
        (lambda: Camera(K=K, size=(480, 640), world_to_camera=E), "'K'.*intrinsics=K"),
        (lambda: Camera(intrinsics=K, width=640, world_to_camera=E), r"size=\(height, width"),
        (lambda: Camera(intrinsics=K, size=(480, 640)), "lacks world_to_camera; "),
        (lambda: Camera(intrinsics=K, size=(480, 640), world_to_camera=E, fov=1), "'fov'.*dist"),
    ],
)
def test_another_call_is_answered_with_the_one_that_is_taken(call, named):
    with pytest.raises(TypeError, match=f"^Camera: .*{named}"):
        call()


def test_arrays_make_the_same_camera_as_tensors():
    wanted = camera(POSES[1])
    made = camera(POSES[1].numpy(), intrinsics=K.numpy(), size=np.array([480, 640]))
    assert torch.equal(made.world_to_camera, wanted.world_to_camera) and made.size == wanted.size
    assert torch.equal(made.intrinsics, wanted.intrinsics)


def test_a_camera_keeps_its_numbers_when_the_array_is_used_for_the_next_view():
    found, matrix = np.eye(4), K.numpy().copy()
    made = Camera(intrinsics=matrix, size=(480, 640), world_to_camera=found)
    found[0, 3] = matrix[0, 2] = 5
    assert made.world_to_camera[0, 3] == 0 and torch.equal(made.intrinsics, K)


def test_rows_of_numbers_keep_their_digits():
    rows = np.eye(4).tolist()
    rows[0][3] = 5_412_345.678
    assert camera(rows).world_to_camera[0, 3] == 5_412_345.678


def test_cameras_travel_between_processes():
    import pickle

    copy = pickle.loads(pickle.dumps(camera(POSES[1], distortion=LENS)))
    assert torch.equal(copy.world_to_camera, POSES[1]) and copy.size == (480, 640)
