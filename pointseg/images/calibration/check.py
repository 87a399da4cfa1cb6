"""Whether images and points of a scene meet: figures, pictures and issues in plain words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.lifting import Camera
from dinomed3d.runtime.atomic_files import new_file
from dinomed3d.runtime.errors import UserError
from pointseg.images.calibration.agreement import (
    ENOUGH,
    Agreement,
    ProjectedPoints,
    compute_agreement,
    pixels_of,
    project_points,
    render_depth_map,
)
from pointseg.images.calibration.issues import Issue, IssueList
from pointseg.images.calibration.pose_check import (
    PoseCheckResult,
    compare_pose_hypotheses,
    depth_unit,
    half_pixel,
    lens_problem,
    looked_through,
    pose_words,
    unit_words,
)
from pointseg.images.calibration.pose_conventions import alternative_poses
from pointseg.images.explain_unseen import explain_no_visible_points
from pointseg.images.projection import frames_in_view
from pointseg.images.readers.frame import Frame
from pointseg.images.readers.image_files import DepthFile
from pointseg.images.select_views import select_views
from pointseg.images.visibility import VisibilityConfig
from pointseg.pictures.overlay import from_images, over_image
from pointseg.scene import Scene

SAMPLE = 1_000_000
"""Points that figures and pictures are made of, at most; hidden points are told from all of them."""
SEARCHED = 20_000
"""Points, roughly, by which it is told whether an image shows the scene."""

NOTHING_SEEN = ("nothing", "hidden", "through")
"""Kinds of issues about views that see no point."""
STRAY = 0.01
"""Share of the points that wrong poses, too, may have in view of an image."""
HARDLY_ANY = 0.02
"""Share of the points in an image that must be visible for the hidden ones not to be drawn."""


@dataclass(frozen=True, kw_only=True)
class CheckSpec:
    """One check of a scene's images."""

    scene: Scene
    frames: Sequence[Frame]
    """All that the scene has."""
    out: Path
    """Folder of the pictures; made if need be."""
    count: int | None = None
    """How many frames are looked at, evenly spread over those that have points in view; None: all frames."""
    visibility: VisibilityConfig = field(
        default_factory=lambda: VisibilityConfig(occlusion="z-buffer")
    )
    up: str = "z"
    """The axis of the points that points up, for pictures."""
    turn: NDArray[np.float64] | None = None
    """(3, 3) rotation that brought the world of the files to that of the points; None: none."""
    unit_m: float | None = None
    """Metres per unit that the points and poses have in their files, as someone says; None: no one does."""
    units: Mapping[str, float] = field(default_factory=dict)
    """The units that could be said, metres by name."""
    size: tuple[int, int] = (800, 640)
    """Width and height of each picture of the cloud, pixels."""
    progress: Callable[[float, int, str], None] = lambda done, total, name: None


@dataclass(frozen=True)
class View:
    """What was found of one image."""

    name: str
    stated: Agreement
    others: Mapping[str, Agreement]
    """With the pose read in other ways."""


@dataclass(frozen=True, kw_only=True)
class CameraCheck:
    """What was found."""

    views: tuple[View, ...]
    """Of the images that were looked at."""
    showing: int
    """How many of all images have some of the points in view."""
    verdict: PoseCheckResult
    issues: tuple[Issue, ...]
    seen: float
    """Share of the points that at least one view sees."""
    inside: float
    """Share that lies in at least one image that was looked at."""
    pictures: tuple[Path, ...]


def check_cameras(spec: CheckSpec) -> CameraCheck:
    """Project a scene into its images, draw both onto each other, and tell what looks wrong.

    Writes ``views/NAME.png`` (points over each image, by depth), ``cloud.png`` (the cloud in the colours of
    the images) and, where another reading of the poses fits better, ``views/NAME.other.png`` with that.

    Raises:
        UserError: no points, no images, or none that can be read.
    """
    scene, out = spec.scene, spec.out
    if not len(scene) or not spec.frames:
        what = "no points" if not len(scene) else "no images"
        raise UserError(f"scene {scene.name}: has {what}; there is nothing to check")
    looked, able = _looked_at(spec)
    world = _World(spec)
    issues, views, pictures = IssueList(), [], []
    errors: list[UserError] = []
    for number, frame in enumerate(looked):
        spec.progress(number, len(looked), frame.name)
        try:
            image = frame.read_image()
        except UserError as error:
            issues.add("image", frame, str(error))
            errors.append(error)
            continue
        depth = None
        try:
            read = frame.read_depth()
            depth = None if read is None else torch.from_numpy(read)
        except UserError as error:
            issues.add("depth map", frame, str(error))
        shown, view = world.view(frame, image, depth)
        views.append(view)
        _tell(issues, frame, view, shown, depth, spec)
        world.paint(shown, image)
        path = out / "views" / f"{_file(frame.name)}.png"
        _save(over_image(image, *_drawn(shown), title=_title(frame, view)), path)
        pictures.append(path)
    spec.progress(len(looked), len(looked), "")
    if not views:
        raise errors[0]
    verdict = compare_pose_hypotheses(
        [v.stated for v in views], _by_reading(views), by_share=world.hardly_in(able)
    )
    if verdict.other is not None:
        issues.drop("unit", "half a pixel", *NOTHING_SEEN)  # they follow from that
        issues.add_general(pose_words(verdict))
        pictures += _draw_other(spec, looked, world, verdict.other)
    else:
        _single_poses(issues, views)
    if "unit" in issues:
        issues.drop("hidden", "through")
    elif not world.seen.any() and verdict.other is None:
        issues.drop(*NOTHING_SEEN)
        asked = looked if able else spec.frames
        cameras, names = [world.near(frame.camera) for frame in asked], [f.name for f in asked]
        issues.add_general(
            f"scene {scene.name}: {explain_no_visible_points(world.points, cameras, names, spec.visibility)}"
        )
    picture = from_images(
        world.points.numpy(),
        world.colors(),
        world.seen,
        own=world.color,
        up=spec.up,
        size=spec.size,
    )
    _save(picture, out / "cloud.png")
    return CameraCheck(
        views=tuple(views),
        showing=len(able),
        verdict=verdict,
        issues=issues.items(),
        seen=float(world.seen.mean()),
        inside=float(world.inside.mean()),
        pictures=(out / "cloud.png", *pictures),
    )


def _looked_at(spec: CheckSpec) -> tuple[Sequence[Frame], Sequence[Frame]]:
    """The frames to look at, and all that have points in view.

    Most photos of a site do not show one tile of it, and say nothing about whether poses are right.
    """
    able = [
        spec.frames[number] for number in frames_in_view(spec.scene, spec.frames, sample=SEARCHED)
    ]
    if spec.count is None or len(spec.frames) <= spec.count:
        return spec.frames, able
    among = able or spec.frames
    return [among[number] for number in select_views(among, spec.count)], able


class _World:
    """The points of a scene, a part of them to look at, and what images show there."""

    def __init__(self, spec: CheckSpec) -> None:
        scene, self.visibility = spec.scene, spec.visibility
        self.turn = None if spec.turn is None else torch.from_numpy(spec.turn).double()
        self.origin = torch.from_numpy(np.asarray(scene.origin, np.float64))
        self.all = torch.from_numpy(np.ascontiguousarray(scene.coord))
        index = np.arange(len(scene))
        if len(index) > SAMPLE:
            index = np.sort(np.random.default_rng(0).choice(len(index), SAMPLE, replace=False))
        self.points = self.all[torch.from_numpy(index)]
        self.color = scene["color"][index] if "color" in scene else None
        self.seen = np.zeros(len(index), bool)
        self.inside = np.zeros(len(index), bool)
        self._sum = np.zeros((len(index), 3))
        self._count = np.zeros((len(index), 1))

    def hardly_in(self, frames: Sequence[Frame]) -> bool:
        """Whether none of the frames has more than a few stray points in view."""
        step = -(-len(self.points) // SEARCHED)
        few = min(ENOUGH, STRAY * len(self.points)) / step
        for frame in frames:
            shown = project_points(self.near(frame.camera), self.points[::step], VisibilityConfig())
            if shown.inside.sum() > few:
                return False
        return True

    def near(self, camera: Camera) -> Camera:
        """For the points as they are held."""
        return camera.moved(self.origin)

    def view(
        self, frame: Frame, image: NDArray[np.uint8], depth: Tensor | None
    ) -> tuple[ProjectedPoints, View]:
        """Look at one image, with its pose and with other readings of it."""
        shown, stated = self.weighed(frame.camera, image, depth)
        hiding = self.color is not None  # nothing else of other readings asks what is hidden
        others = {
            name: self.weighed(camera, image, depth, hiding=hiding)[1]
            for name, camera in alternative_poses(frame.camera, self.turn).items()
        }
        return shown, View(frame.name, stated, others)

    def weighed(
        self,
        camera: Camera,
        image: NDArray[np.uint8],
        depth: Tensor | None,
        *,
        hiding: bool = True,
    ) -> tuple[ProjectedPoints, Agreement]:
        """What a camera sees, and the figures."""
        camera = self.near(camera)
        occluder = None if self.visibility.occlusion == "none" else depth
        if depth is None and hiding and self.visibility.occlusion == "z-buffer":
            occluder = render_depth_map(camera, self.all)
        shown = project_points(camera, self.points, self.visibility, occluder=occluder)
        evidence = compute_agreement(
            shown,
            camera,
            image=image,
            depth=depth,
            color=self.color,
            depth_tolerance_m=self.visibility.depth_tolerance_m,
        )
        return shown, evidence

    def paint(self, shown: ProjectedPoints, image: NDArray[np.uint8]) -> None:
        """Give the visible points the colours of an image."""
        visible = shown.visible.numpy()
        self._sum[visible] += pixels_of(shown, image)
        self._count[visible] += 1
        self.seen |= visible
        self.inside |= shown.inside.numpy()

    def colors(self) -> NDArray[np.float64]:
        """(N, 3) mean over the images that show a point."""
        return np.asarray(self._sum / np.maximum(self._count, 1))


def _tell(
    issues: IssueList,
    frame: Frame,
    view: View,
    shown: ProjectedPoints,
    depth: Tensor | None,
    spec: CheckSpec,
) -> None:
    """What is wrong with one image, its pose aside."""
    lens = lens_problem(frame.camera)
    if lens:
        issues.add("lens", frame, lens)
    if depth is not None:
        factor = depth_unit(shown, frame.camera, depth)
        if factor is not None:
            scale = frame.depth.scale if isinstance(frame.depth, DepthFile) else None
            told = unit_words(factor, scale=scale, unit_m=spec.unit_m, units=spec.units)
            issues.add("unit", frame, told)
    if half_pixel(shown):
        issues.add(
            "half a pixel", frame,
            "the points lie on the corners of pixels, not in their middle: K has pixel centres at whole "
            "numbers (in a manifest: \"pixel_centre\": 0)",
        )  # fmt: skip
    if not view.stated.inside:
        issues.add("nothing", frame, "no point lies in the image", note=True)
    elif not view.stated.visible:
        told = f"{view.stated.inside} points lie in the image, and all of them are hidden"
        if depth is not None and looked_through(
            shown, frame.camera, depth, spec.visibility.depth_tolerance_m
        ):
            told += ", many although they are nearer than the depth map: is it of this image?"
            issues.add("through", frame, told)
        else:  # by a wall, perhaps
            issues.add("hidden", frame, told, note=True)


def _single_poses(issues: IssueList, views: Sequence[View]) -> None:
    """Views whose own pose fits worse than another reading of it, where most fit."""
    for view in views:
        others = {name: [found] for name, found in view.others.items()}
        verdict = compare_pose_hypotheses([view.stated], others, by_share=False)
        if verdict.other is not None:
            text = f"{view.name}: {pose_words(verdict)} (of this view alone)"
            issues.add_general(text)


def _by_reading(views: Sequence[View]) -> dict[str, list[Agreement]]:
    """The alternatives that all views have; views that are the same either way count as stated."""
    names = list(dict.fromkeys(name for view in views for name in view.others))
    return {name: [view.others.get(name, view.stated) for view in views] for name in names}


def _draw_other(spec: CheckSpec, looked: Sequence[Frame], world: _World, other: str) -> list[Path]:
    paths = []
    for frame in looked:
        camera = alternative_poses(frame.camera, world.turn).get(other)
        if camera is None:
            continue
        try:
            image = frame.read_image()
        except UserError:
            continue
        shown = project_points(world.near(camera), world.points, spec.visibility)
        path = spec.out / "views" / f"{_file(frame.name)}.other.png"
        _save(over_image(image, *_drawn(shown), title=f"{frame.name}: pose read as {other}"), path)
        paths.append(path)
    return paths


def _drawn(shown: ProjectedPoints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels and depths of the points that are visible, or, where hardly any are, of all in the image."""
    which = shown.visible
    if which.sum() < HARDLY_ANY * shown.inside.sum():
        which = shown.inside
    return shown.uv[which].numpy(), shown.depth[which].numpy()


def _title(frame: Frame, view: View) -> str:
    found = view.stated
    return (
        f"{frame.name}: {found.inside / found.points:.1%} of the points inside, "
        f"{found.visible / found.points:.1%} visible"
    )


def _file(name: str) -> str:
    """A view's name as a file's."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def _save(picture: object, path: Path) -> None:
    from PIL import Image

    assert isinstance(picture, Image.Image)
    with new_file(path) as part:
        picture.save(part, format="PNG")
