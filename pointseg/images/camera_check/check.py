"""Checks whether images and points of a scene fit: statistics, pictures, and issues in plain words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.images.camera_check.agreement import (
    Agreement,
    ProjectedPoints,
    is_behind_points,
    project_points,
)
from pointseg.images.camera_check.depth_units import depth_factor, explain_depth_factor
from pointseg.images.camera_check.issues import Issue, IssueList
from pointseg.images.camera_check.pose_check import PoseCheckResult, compare_pose_hypotheses
from pointseg.images.camera_check.pose_conventions import alternative_poses
from pointseg.images.camera_check.sampled_scene import (
    SEARCHED_POINTS,
    CheckedView,
    SampledScene,
)
from pointseg.images.explain_unseen import explain_no_visible_points
from pointseg.images.projection import camera_near, frames_in_view
from pointseg.images.readers.frame import Frame
from pointseg.images.readers.image_files import DepthFile
from pointseg.images.readers.intrinsics import intrinsics_problem
from pointseg.images.select_views import select_views
from pointseg.images.visibility import VisibilityConfig
from pointseg.pictures.overlay import from_images, over_image
from pointseg.scene import Scene

NOTHING_VISIBLE = ("nothing", "occluded", "behind")
"""Kinds of issues of views in which no point is visible."""
FEW_VISIBLE = 0.02
"""Share of visible points in an image below which the occluded ones are drawn, too."""


@dataclass(frozen=True, kw_only=True)
class CheckSpec:
    """One check of a scene's images."""

    scene: Scene
    """The points, in metres."""
    frames: Sequence[Frame]
    """All frames that the scene has."""
    out: Path | None = None
    """Folder of the pictures; made if need be. None: none are drawn."""
    count: int | None = None
    """How many frames are checked, evenly spaced among those with points in view; None: all frames."""
    visibility: VisibilityConfig = field(
        default_factory=lambda: VisibilityConfig(occlusion="z-buffer")
    )
    """When a point is visible."""
    up: str = "z"
    """Axis of the points that points up in pictures."""
    turn: NDArray[np.float64] | None = None
    """(3, 3) rotation from the world of the files to that of the points; None: none."""
    unit_m: float | None = None
    """Stated metres per unit of points and poses in their files; None: there is no such setting."""
    units: Mapping[str, float] = field(default_factory=dict)
    """Metres per unit of the units that could be stated, by name."""
    size: tuple[int, int] = (800, 640)
    """Width and height of each picture of the cloud, in pixels."""
    progress: Callable[[float, int, str], None] = lambda done, total, name: None
    """Called with the number of frames done, their total, and the name of the next."""


@dataclass(frozen=True, kw_only=True)
class CameraCheck:
    """Result of a check."""

    views: tuple[CheckedView, ...]
    """The checked images."""
    showing: int
    """How many of all images have points in view."""
    pose_check: PoseCheckResult
    """Which pose convention fits the images together."""
    issues: tuple[Issue, ...]
    """What is wrong."""
    seen: float
    """Share of the points that are visible in at least one checked image."""
    inside: float
    """Share of the points that lie inside at least one checked image."""
    pictures: tuple[Path, ...]
    """The files that were written."""


def check_cameras(spec: CheckSpec) -> CameraCheck:
    """Project a scene into its images, draw both onto each other, and report what looks wrong.

    Writes ``views/NAME.png`` (points over each image, coloured by distance), ``cloud.png`` (the cloud in the
    colours of the images) and, if another pose convention fits better, ``views/NAME.other.png`` with that.

    Raises:
        UserError: there are no points, no images, or no image can be read.
    """
    scene = spec.scene
    if not len(scene) or not spec.frames:
        what = "no images" if len(scene) else "no points"
        raise UserError(f"scene {scene.name}: has {what}; there is nothing to check")
    frames, showing = _frames_to_check(spec)
    world = SampledScene(scene, spec.visibility, spec.turn, spec.up)
    issues = IssueList()
    views: list[CheckedView] = []
    pictures: list[Path] = []
    errors: list[UserError] = []
    for number, frame in enumerate(frames):
        spec.progress(number, len(frames), frame.name)
        try:
            image = frame.read_image()
        except UserError as error:
            issues.add("image", frame, str(error))
            errors.append(error)
            continue
        depth = _depth(frame, issues)
        projected, view = world.check(frame, image, depth)
        world.paint(projected, image)
        views.append(view)
        _add_view_issues(issues, frame, view, projected, depth, spec)
        if spec.out is not None:
            pictures.append(_draw(spec.out, frame.name, image, projected, view.title))
    spec.progress(len(frames), len(frames), "")
    if not views:
        raise errors[0]
    pose_check = compare_pose_hypotheses(
        [v.stated for v in views], _by_convention(views), by_share=world.hardly_in(showing)
    )
    _add_pose_issues(issues, pose_check, views)
    if pose_check.alternative is not None:
        if spec.out is not None:
            pictures += _draw_alternative(spec, spec.out, frames, world, pose_check.alternative)
    elif "unit" not in issues and not world.seen.any():
        issues.drop(*NOTHING_VISIBLE)
        asked = frames if showing else spec.frames
        cameras = [camera_near(scene, frame.camera) for frame in asked]
        names = [frame.name for frame in asked]
        reason = explain_no_visible_points(world.points, cameras, names, spec.visibility)
        issues.add_general(f"scene {scene.name}: {reason}")
    if spec.out is not None:
        pictures.insert(0, _draw_cloud(spec, spec.out, world))
    return CameraCheck(
        views=tuple(views),
        showing=len(showing),
        pose_check=pose_check,
        issues=issues.items(),
        seen=float(world.seen.mean()),
        inside=float(world.inside.mean()),
        pictures=tuple(pictures),
    )


def _frames_to_check(spec: CheckSpec) -> tuple[Sequence[Frame], Sequence[Frame]]:
    """The frames to check, and all that have points in view.

    Most photos of a large site do not show one tile of it and cannot tell whether poses are correct.
    """
    numbers = frames_in_view(spec.scene, spec.frames, count=SEARCHED_POINTS)
    showing = [spec.frames[number] for number in numbers]
    if spec.count is None or len(spec.frames) <= spec.count:
        return spec.frames, showing
    among = showing or spec.frames
    return [among[number] for number in select_views(among, spec.count)], showing


def _depth(frame: Frame, issues: IssueList) -> Tensor | None:
    try:
        read = frame.read_depth()
    except UserError as error:
        issues.add("depth map", frame, str(error))
        return None
    return None if read is None else torch.from_numpy(read)


def _add_view_issues(
    issues: IssueList,
    frame: Frame,
    view: CheckedView,
    projected: ProjectedPoints,
    depth: Tensor | None,
    spec: CheckSpec,
) -> None:
    """Add what is wrong with one image apart from its pose."""
    problem = intrinsics_problem(frame.camera)
    if problem:
        issues.add("intrinsics", frame, problem)
    factor = None if depth is None else depth_factor(projected, frame.camera, depth)
    if factor is not None:
        scale = frame.depth.scale if isinstance(frame.depth, DepthFile) else None
        text = explain_depth_factor(factor, scale=scale, unit_m=spec.unit_m, units=spec.units)
        issues.add("unit", frame, text)
    if not view.stated.inside:
        issues.add("nothing", frame, "no point lies inside the image", note=True)
    elif not view.stated.visible:
        text = f"{view.stated.inside} points lie inside the image, and all of them are occluded"
        tolerance = spec.visibility.depth_tolerance_m
        if depth is not None and is_behind_points(projected, frame.camera, depth, tolerance):
            text += ", many although they are nearer than the depth map: is it of this image?"
            issues.add("behind", frame, text)
        else:  # perhaps by a wall
            issues.add("occluded", frame, text, note=True)


def _add_pose_issues(
    issues: IssueList, pose_check: PoseCheckResult, views: Sequence[CheckedView]
) -> None:
    """Add poses that fit better in another convention, of all views or of single ones."""
    if pose_check.alternative is not None:
        issues.drop("unit", *NOTHING_VISIBLE)  # they follow from it
        issues.add_general(str(pose_check))
        return
    for view in views:
        others = {name: [found] for name, found in view.others.items()}
        single = compare_pose_hypotheses([view.stated], others, by_share=False)
        if single.alternative is not None:
            issues.add_general(f"{view.name}: {single} (of this view alone)")
    if "unit" in issues:
        issues.drop("occluded", "behind")


def _by_convention(views: Sequence[CheckedView]) -> dict[str, list[Agreement]]:
    """Agreement of all views per alternative; a view that it does not change counts as stated."""
    names = list(dict.fromkeys(name for view in views for name in view.others))
    return {name: [view.others.get(name, view.stated) for view in views] for name in names}


def _draw_alternative(
    spec: CheckSpec, out: Path, frames: Sequence[Frame], world: SampledScene, alternative: str
) -> list[Path]:
    paths = []
    for frame in frames:
        camera = alternative_poses(frame.camera, world.turn).get(alternative)
        if camera is None:
            continue
        try:
            image = frame.read_image()
        except UserError:
            continue
        camera = camera_near(spec.scene, camera)
        projected = project_points(camera, world.points, spec.visibility)
        title = f"{frame.name}: pose read as {alternative}"
        paths.append(_draw(out, f"{frame.name}.other", image, projected, title))
    return paths


def _draw_cloud(spec: CheckSpec, out: Path, world: SampledScene) -> Path:
    picture = from_images(
        world.points.numpy(), world.image_colors(), world.seen,
        own=world.color, up=spec.up, size=spec.size,
    )  # fmt: skip
    return _save(picture, out / "cloud.png")


def _draw(
    out: Path, name: str, image: NDArray[np.uint8], projected: ProjectedPoints, title: str
) -> Path:
    """Draw the visible points over an image; all inside it where hardly any is visible."""
    which = projected.visible
    if which.sum() < FEW_VISIBLE * projected.inside.sum():
        which = projected.inside
    uv, depth = projected.uv[which].numpy(), projected.depth[which].numpy()
    file = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    return _save(over_image(image, uv, depth, title=title), out / "views" / f"{file}.png")


def _save(picture: Image.Image, path: Path) -> Path:
    with new_file(path) as part:
        picture.save(part, format="PNG")
    return path
