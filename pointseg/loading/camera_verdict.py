"""A short check of a dataset's cameras before a training on its images: a few views of a few scenes, no pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.dataset import Dataset
from pointseg.datasets.mixture import Mixture
from pointseg.images.camera_check.check import CameraCheck, CheckSpec, check_cameras
from pointseg.images.camera_check.pose_check import PoseCheckResult, compare_pose_hypotheses
from pointseg.images.camera_check.report import CANNOT_TELL
from pointseg.images.config import ImageConfig
from pointseg.images.projection import frames_in_view
from pointseg.images.readers.frame import Frame, ProvidesFrames
from pointseg.images.select_views import select_views
from pointseg.loading.posed_scene import measured_points
from pointseg.scene import Scene

SCENES, VIEWS = 3, 4
"""Scenes of each dataset, and views of each scene, that are compared at most."""
TRIED_SCENES = 12
"""Scenes that are asked for images, at most; most scenes of some datasets have none."""
POINTS, PIXELS = 100_000, 1 << 16
"""Points of a scene and pixels of an image, at most: so many tell as much as all, in a tenth of a second."""
SEARCHED_FRAMES = 200
"""Frames that are searched for points, at most."""
MOST_ISSUES = 3
"""Issues that are said, at most; those of one kind are one."""


@dataclass(frozen=True)
class CameraVerdict:
    """What a few views of a few scenes say about the cameras."""

    checks: dict[str, CameraCheck]
    """The results by the name of the scene."""
    poses: PoseCheckResult
    """Of all of them together."""

    @property
    def views(self) -> str:
        """How many views were compared, in words."""
        count = sum(len(check.views) for check in self.checks.values())
        names = ", ".join(self.checks)
        return f"{count} images of {len(self.checks)} {'scene' if len(self.checks) == 1 else 'scenes'} ({names})"

    def lines(self) -> list[str]:
        """What to say before a training."""
        if self.poses.alternative is not None:
            return [f"warning: the cameras look wrong in {self.views}: {self.poses}"]
        fit = f"plausible as stated; {self.poses.reason}" if self.poses.reason else CANNOT_TELL
        issues = [
            f"warning: cameras of {name}: {issue}"
            for name, check in self.checks.items()
            for issue in check.issues
            if not issue.note
        ]
        return [f"cameras: poses of {self.views}: {fit}", *issues[:MOST_ISSUES]]


def camera_verdicts(
    dataset: Dataset, splits: Sequence[str], config: ImageConfig, *, up: str = "z"
) -> tuple[CameraVerdict, ...]:
    """Compare a few views of a few scenes with their points, in seconds.

    Random numbers are its own: a training with it is the one without.

    Args:
        dataset: with images.
        splits: from which scenes are taken, evenly spread.
        config: when a point is visible.
        up: axis of the points that points up.

    Returns:
        The verdict; one for each dataset of a ``Mixture``. Datasets without images have none.

    Raises:
        UserError: the cameras of a scene cannot be read, or none of its images can.
    """
    found = (_verdict(dataset, scenes, config, up) for scenes in _groups(dataset, splits))
    return tuple(each for each in found if each.checks)


def _verdict(
    dataset: Dataset, scenes: Sequence[tuple[str, str]], config: ImageConfig, up: str
) -> CameraVerdict:
    """Of the first scenes that have images."""
    checks: dict[str, CameraCheck] = {}
    for split, name in scenes:
        frames = cast(ProvidesFrames, dataset).frames(split, name)
        if not frames:
            continue
        own, label = None, f"{split}/{name}"
        if isinstance(dataset, Mixture):
            own, label = dataset.image_config(split, name), name
        check = _check(dataset.load(split, name), frames, own or config, up)
        if check is not None:
            checks[label] = check
        if len(checks) == SCENES:
            break
    views = [view for check in checks.values() for view in check.views]
    names = dict.fromkeys(name for view in views for name in view.others)
    others = {name: [view.others.get(name, view.stated) for view in views] for name in names}
    unseen = not any(check.showing for check in checks.values())
    poses = compare_pose_hypotheses([view.stated for view in views], others, by_share=unseen)
    return CameraVerdict(checks, poses)


def require_plausible_cameras(
    verdict: CameraVerdict, *, how_to_look: str, go_on: str, say: Callable[[str], None]
) -> None:
    """Say a verdict, and refuse poses of which another reading certainly fits.

    Args:
        verdict: the result.
        how_to_look: what draws the cameras, for messages.
        go_on: what trains in spite of the verdict, for messages.
        say: receives the lines.

    Raises:
        UserError: depth maps, colours or the points in view show that poses are read wrongly.
    """
    poses = verdict.poses
    if poses.alternative is not None and poses.sure:
        raise UserError(
            f"the cameras are wrong in {verdict.views}: {poses}. Correct them and look with {how_to_look}; or train "
            f"all the same with {go_on}"
        )
    lines = verdict.lines()
    if any(line.startswith("warning") for line in lines) or not poses.reason:
        lines[-1] += f". Look with {how_to_look}"
    for line in lines:
        say(line)


def _groups(dataset: Dataset, splits: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """Scenes to look at, evenly spread, for each dataset."""
    places = [(split, name) for split in splits for name in dataset.scenes(split)]
    groups: dict[int, list[tuple[str, str]]] = {}
    for split, name in places:
        number = dataset.source(split, name) if isinstance(dataset, Mixture) else 0
        groups.setdefault(number, []).append((split, name))
    for group in groups.values():
        few = [group[number] for number in select_views(group, TRIED_SCENES)]
        # evenly spread from the first one on: 0, 4, 8, then those between
        step = max(1, len(few) // SCENES)
        yield [each for start in range(step) for each in few[start::step]]


def _check(
    scene: Scene, frames: Sequence[Frame], config: ImageConfig, up: str
) -> CameraCheck | None:
    """The check of one scene; None without points."""
    scene = measured_points(scene, lambda text: None)
    if not len(scene):
        return None
    if len(scene) > POINTS:
        rows = np.random.default_rng(0).choice(len(scene), POINTS, replace=False)
        scene = scene.select(np.sort(rows))
    some = [frames[number] for number in select_views(frames, SEARCHED_FRAMES)]
    showing = [some[number] for number in frames_in_view(scene, some)] or some
    few = [_smaller(showing[number]) for number in select_views(showing, VIEWS)]
    rule = config.visibility
    if rule.occlusion == "depth":
        rule = replace(rule, occlusion="z-buffer")
    return check_cameras(CheckSpec(scene=scene, frames=few, visibility=rule, up=up))


def _smaller(frame: Frame) -> Frame:
    """The frame with a smaller image, the depth map as it is."""
    height, width = frame.camera.size
    ratio = math.sqrt(PIXELS / (height * width))
    if ratio >= 1:
        return frame
    size = max(1, int(height * ratio)), max(1, int(width * ratio))
    return replace(frame, camera=frame.camera.resized(*size), image=_SmallerImage(frame, size))


@dataclass(frozen=True)
class _SmallerImage:
    """The image of a frame, reduced."""

    frame: Frame
    """The whole one."""
    size: tuple[int, int]
    """Height and width, pixels."""

    def __str__(self) -> str:
        return str(self.frame.image)

    def read(self) -> NDArray[np.uint8]:
        """See ImageSource.read."""
        image = Image.fromarray(self.frame.read_image())
        return np.asarray(image.resize(self.size[::-1], Image.Resampling.BOX))

    def key(self) -> str:
        """See ImageSource.key."""
        return self.frame.image.key()
