"""What is shown, from files or from a dataset: clouds, their classes, and the cameras that saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.counted import counted
from pointseg import datasets
from pointseg.images.readers.camera_files import read_cameras
from pointseg.images.readers.frame import Frame, ProvidesFrames
from pointseg.images.readers.organised import organised_frame
from pointseg.viewing.clouds import ViewedCloud, open_clouds, scene_cloud
from pointseg.viewing.palette import Palette
from pointseg.viewing.spec import ViewSpec


@dataclass(frozen=True)
class Contents:
    """Everything that the viewer shows."""

    clouds: list[ViewedCloud]
    """At least one."""
    palette: Palette
    """Of their classes."""
    frames: Sequence[Frame] = ()
    """Posed images in the world of the clouds."""
    up: str = "z"
    """The axis that points up."""


def contents_of_files(
    spec: ViewSpec,
    *,
    cameras: Path | None = None,
    images: Path | None = None,
    max_views: int | None = None,
    up: str | None = None,
) -> Contents:
    """Clouds in files.

    Args:
        spec: which.
        cameras: what ``read_cameras`` reads; None: a single organised .pcd is its own image.
        images: folder of the images; None: where the file says.
        max_views: cameras to show, evenly spread; None: all.
        up: the axis that points up; None: z, but -y of an organised .pcd that is its own image.

    Raises:
        UserError: files that cannot be read.
    """
    palette = Palette()
    frames: Sequence[Frame] = ()
    own = False
    if cameras is not None:
        frames = read_cameras(cameras, images, cloud=spec.inputs[0])
    elif images is not None:
        raise UserError("--images: needs --cameras, which say where the images were taken")
    elif len(spec.inputs) == 1 and spec.inputs[0].suffix.lower() == ".pcd":
        frames = _own_frame(spec.inputs[0])
        own = bool(frames)
    clouds = open_clouds(spec, palette)
    return Contents(clouds, palette, _spread(frames, max_views), up or ("-y" if own else "z"))


def contents_of_dataset(
    spec: ViewSpec,
    name: str,
    root: Path | None,
    config: Path | None,
    *,
    split: str | None = None,
    scene: str | None = None,
    max_views: int | None = None,
    up: str | None = None,
) -> Contents:
    """A scene of a dataset, with its images if it has some.

    Args:
        spec: how many points are shown; it names no files.
        name: of the dataset.
        root: its folder.
        config: description of the dataset ``folder``; None: the usual one.
        split: None: the first one.
        scene: None: the first one.
        max_views: cameras to show, evenly spread; None: all.
        up: the axis that points up; None: z.

    Raises:
        UserError: no such dataset, split or scene, or one that cannot be read.
    """
    dataset = datasets.open_dataset(name, root, config=config, labelled=False)
    split = split or dataset.splits()[0]
    scene = scene or next(iter(dataset.scenes(split)), None)
    if scene is None:
        raise UserError(f"{dataset.name}: the split {split} has no scenes")
    palette = Palette()
    classes = dataset.classes
    spec.progress(0, 1, f"{split} {scene}")
    loaded = dataset.load(split, scene)
    cloud = scene_cloud(loaded, classes.names, classes.colors, spec, palette)
    frames: Sequence[Frame] = ()
    if hasattr(dataset, "frames"):
        try:
            frames = cast(ProvidesFrames, dataset).frames(split, scene)
        except UserError as error:
            spec.log(f"shown without images: {error}")
    return Contents([cloud], palette, _spread(frames, max_views), up or "z")


def thinned(contents: Contents, spec: ViewSpec) -> list[str]:
    """How many points of each cloud are shown, in lines."""
    return [_shown(cloud.name, [cloud], spec) for cloud in contents.clouds]


def about(contents: Contents, spec: ViewSpec) -> list[str]:
    """What is shown altogether, in lines: which points, and what was subtracted from their positions."""
    clouds = contents.clouds
    name = clouds[0].name if len(clouds) == 1 else counted(len(clouds), "cloud")
    lines = [_shown(name, clouds, spec)]
    if contents.frames:
        lines.append(counted(len(contents.frames), "camera"))
    shift = clouds[0].scene.origin
    if shift.any():
        x, y, z = shift.tolist()
        lines.append(
            f"drawn less {x:.0f} {y:.0f} {z:.0f}, for browsers have 7 digits; a click shows coordinates of the file"
        )
    return lines


def _shown(name: str, clouds: Sequence[ViewedCloud], spec: ViewSpec) -> str:
    """How many of the points are shown, how they were chosen, and how many have no place."""
    shown, nowhere = sum(len(c.scene) for c in clouds), sum(c.nowhere for c in clouds)
    count = sum(c.count for c in clouds)
    are_all = shown + nowhere == count
    how = "one of each voxel" if spec.thinning == "voxel" else "at random"
    points = f"{shown:,} points" if are_all else f"{shown:,} of {count:,} points, {how}"
    return f"{name}: {points}{f', {nowhere:,} without a position left out' if nowhere else ''}"


def _own_frame(path: Path) -> tuple[Frame, ...]:
    """The image that an organised .pcd is itself; none if it is no image."""
    try:
        return (organised_frame(path),)
    except UserError:
        return ()


def _spread(frames: Sequence[Frame], most: int | None) -> Sequence[Frame]:
    if most is None or len(frames) <= most:
        return frames
    return [frames[k] for k in np.linspace(0, len(frames) - 1, most).round().astype(int).tolist()]
