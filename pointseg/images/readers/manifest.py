"""Reads and writes ``cameras.json``, the description of the posed images of a scene.

    {"format": "pointseg-cameras-1",
     "pose_direction": "camera_to_world",
     "views": [{"image": "color/0.jpg", "width": 1296, "height": 968,
                "K": [[1170, 0, 648], [0, 1170, 484], [0, 0, 1]],
                "pose": [[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 1.2], [0, 0, 0, 1]],
                "depth": "depth/0.png", "depth_scale": 1000}]}

``image`` and ``depth`` are paths relative to the file, or absolute. ``pose`` (3 x 4 or 4 x 4) is a rigid
transform between the world of the points, in their unit, and the camera, whose axes are x right, y down, z
forward; ``pose_direction`` is required and states the direction. ``depth_scale`` is the number of units of the
depth map per metre, and required with ``depth``. Optional: ``name``; ``distortion``, OpenCV's k1, k2, p1, p2, k3,
or ``{"fisheye": true, "radial": [k1, k2, k3, k4]}``, with the keys of ``dinomed3d.lifting.Lens``;
``pixel_centre``, the centre of the first pixel in K: 0.5 (the default) or 0, as in OpenCV; ``depth_missing``,
values of the depth map that mean unknown, as well as 0. All but ``image``, ``depth``, ``name`` and ``pose`` may be
given once for all views, next to ``views``.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.lifting import Camera, Lens
from dinomed3d.lifting.lens import OPENCV_COUNTS
from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.images.readers.frame import Frame, ImagesError, make_camera
from pointseg.images.readers.image_files import DepthFile, ImageFile

FORMAT = "pointseg-cameras-1"
MOST_BYTES = 2**28
"""Of a description of cameras; larger files are something else."""
SHARED = (
    "pose_direction", "K", "width", "height", "distortion", "pixel_centre", "depth_scale",
    "depth_missing",
)  # fmt: skip
"""Keys that may be given once for all views."""
OWN = ("name", "image", "pose", "depth")
NEEDED = ("image", "pose", "pose_direction", "K", "width", "height")
LENS_KEYS = tuple(field.name for field in fields(Lens))
DIRECTIONS = ("camera_to_world", "world_to_camera")


def read_manifest(path: Path) -> tuple[Frame, ...]:
    """The frames that a manifest describes, in its order; no image is read.

    Raises:
        ImagesError: it is missing or not a manifest, a key is missing or unknown, or a value is wrong; the
            message names file, view and key.
    """
    return frames_of_manifest(path, read_json(path))


def read_json(path: Path) -> Any:
    """The contents of a JSON file that describes cameras.

    Raises:
        ImagesError: it is missing, a folder, too large, or no JSON.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ImagesError(
                f"{path}: has more than {MOST_BYTES >> 20} MiB; is it a description of cameras?"
            )
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise ImagesError(
            f"{path}: is missing; describe the scene's cameras in it ({FORMAT})"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ImagesError(f"{path}: cannot be read as JSON: {error}") from error


def frames_of_manifest(path: Path, found: Any) -> tuple[Frame, ...]:
    """The frames that the contents of a manifest describe; see ``read_manifest``."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        what = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise ImagesError(
            f"{path}: 'format' must be \"{FORMAT}\", got {what!r}; or it must be a transforms.json, with 'frames'"
        )
    _refuse_unknown(str(path), found, ("format", "views", *SHARED))
    views = found.get("views")
    if not isinstance(views, list) or not all(isinstance(view, dict) for view in views):
        raise ImagesError(f"{path}: 'views' must be a list of objects, one for each image")
    shared = {key: found[key] for key in SHARED if key in found}
    return frames_of(path, views, base=path.parent, shared=shared)


def frames_of(
    path: Path, views: Sequence[Mapping[str, Any]], *, base: Path, shared: Mapping[str, Any]
) -> tuple[Frame, ...]:
    """The frames that the entries of ``views`` describe.

    Args:
        path: the file, for messages.
        views: V entries.
        base: folder that their files are relative to.
        shared: the keys for all views.

    Raises:
        ImagesError: see ``read_manifest``.
    """
    frames: dict[str, Frame] = {}
    for number, view in enumerate(views):
        _refuse_unknown(f"{path}: view {number}", view, OWN + SHARED)
        frame = _View(path, number, {**shared, **view}, base).frame()
        if frame.name in frames:
            raise ImagesError(
                f"{path}: two views are called '{frame.name}'; give each its own 'name'"
            )
        frames[frame.name] = frame
    return tuple(frames.values())


def write_manifest(path: Path, frames: Sequence[Frame]) -> None:
    """Write a manifest of frames whose images and depth maps are files, with poses as world to camera.

    Paths below the manifest's folder are relative to it, others are absolute.

    Raises:
        ValueError: the image or the depth map of a frame is not a file.
        WriteError: the system refuses to write.
    """
    views = [_described(path.parent, frame) for frame in frames]
    shared = {
        key: views[0][key]
        for key in SHARED
        if views and key in views[0] and all(view.get(key) == views[0][key] for view in views)
    }
    lines = [
        json.dumps({key: value for key, value in view.items() if key not in shared})
        for view in views
    ]
    head = json.dumps({"format": FORMAT, "pose_direction": DIRECTIONS[1], **shared})[1:-1]
    with new_file(path) as part:
        part.write_text(
            f'{{{head},\n "views": [\n  ' + ",\n  ".join(lines) + "\n]}\n", encoding="utf-8"
        )


def _described(folder: Path, frame: Frame) -> dict[str, Any]:
    if not isinstance(frame.image, ImageFile) or not isinstance(
        frame.depth, (DepthFile, type(None))
    ):
        raise ValueError(
            f"write_manifest: view '{frame.name}': image and depth map must be files, "
            f"got {frame.image} and {frame.depth}"
        )
    camera = frame.camera
    found: dict[str, Any] = {
        "name": frame.name,
        "image": _written(folder, frame.image.path),
        "height": camera.size[0],
        "width": camera.size[1],
        "K": camera.intrinsics.tolist(),
        "pose": camera.world_to_camera.tolist(),
    }
    if camera.distortion is not None:
        found["distortion"] = describe_lens(camera.distortion)
    if frame.depth is not None:
        found["depth"] = _written(folder, frame.depth.path)
        found["depth_scale"] = frame.depth.scale
        if frame.depth.missing:
            found["depth_missing"] = list(frame.depth.missing)
    return found


def describe_lens(lens: Lens) -> list[float] | dict[str, Any]:
    """A lens as manifests have it: OpenCV's five or eight numbers where it is one of these, else by its keys."""
    k1, k2, k3, *more = (*lens.radial, 0.0, 0.0, 0.0)
    if not (lens.fisheye or any(lens.prism) or any(more) or any(lens.divisor[3:])):
        plain = [k1, k2, *lens.tangential, k3]
        return [*plain, *(*lens.divisor, 0.0, 0.0, 0.0)[:3]] if any(lens.divisor) else plain
    return {key: value for key, value in asdict(lens).items() if value and value != (0.0, 0.0)}


def _written(folder: Path, path: Path) -> str:
    base, file = Path(os.path.abspath(folder)), Path(os.path.abspath(path))
    return file.relative_to(base).as_posix() if file.is_relative_to(base) else file.as_posix()


class _View:
    """One entry of ``views`` with the keys for all views."""

    def __init__(self, path: Path, number: int, found: Mapping[str, Any], base: Path) -> None:
        self.base, self.found = base, found
        image = found.get("image")
        shown = found.get("name", image)
        self.who = f"{path}: view {number}" + (f" ({shown})" if isinstance(shown, str) else "")

    def frame(self) -> Frame:
        missing = [key for key in NEEDED if key not in self.found]
        if "pose_direction" in missing:
            raise ImagesError(
                f"{self.who}: lacks 'pose_direction', which must be {' or '.join(DIRECTIONS)}"
            )
        if missing:
            raise ImagesError(f"{self.who}: lacks {', '.join(missing)}")
        image = self.text("image")
        name = self.text("name") if "name" in self.found else Path(image).stem
        return Frame(
            name=name,
            camera=self.camera(),
            image=ImageFile(self.base / image),
            depth=self.depth(),
        )

    def camera(self) -> Camera:
        direction = self.found["pose_direction"]
        if direction not in DIRECTIONS:
            raise self.error("pose_direction", " or ".join(DIRECTIONS))
        centre = self.found.get("pixel_centre", 0.5)
        if isinstance(centre, bool) or centre not in (0, 0.5):
            raise self.error("pixel_centre", "0.5 or 0")
        intrinsics = self.numbers("K", (3, 3))
        intrinsics[:2, 2] += 0.5 - centre
        pose = self.numbers("pose", (4, 4), (3, 4))
        return make_camera(
            self.who,
            intrinsics=intrinsics,
            size=(self.side("height"), self.side("width")),
            distortion=self.lens(),
            camera_to_world=pose if direction == DIRECTIONS[0] else None,
            world_to_camera=pose if direction == DIRECTIONS[1] else None,
        )

    def lens(self) -> Lens | None:
        value = self.found.get("distortion")
        if value is None:
            return None
        try:
            if isinstance(value, dict):
                _refuse_unknown(f"{self.who}: 'distortion'", value, LENS_KEYS)
                if not isinstance(value.get("fisheye", False), bool):
                    raise TypeError("'fisheye' must be true or false")
                return Lens(**value)
            if not isinstance(value, list):
                raise TypeError(f"it is {type(value).__name__}")
            return Lens.opencv(value)
        except (TypeError, ValueError, OverflowError) as error:
            what = f"{' or '.join(map(str, OPENCV_COUNTS))} numbers, or an object of {', '.join(LENS_KEYS)}"
            raise self.error("distortion", f"{what} ({error})") from error

    def depth(self) -> DepthFile | None:
        if self.found.get("depth") is None:
            return None
        if "depth_scale" not in self.found:
            raise ImagesError(
                f"{self.who}: lacks 'depth_scale', the units of its depth map per metre: 1000 for "
                f"millimetres, 1 for metres"
            )
        scale = self.found["depth_scale"]
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 1 <= scale < 1e7:
            raise self.error(
                "depth_scale", "units per metre, at least 1 (1000 for millimetres, not 0.001)"
            )
        missing = self.found.get("depth_missing", [])
        if not isinstance(missing, list) or not all(map(_is_number, missing)):
            raise self.error("depth_missing", "a list of numbers")
        return DepthFile(self.base / self.text("depth"), scale=float(scale), missing=tuple(missing))

    def error(self, key: str, what: str) -> ImagesError:
        return ImagesError(f"{self.who}: '{key}' must be {what}, got {self.found[key]!r:.200}")

    def text(self, key: str) -> str:
        value = self.found[key]
        if not isinstance(value, str) or not value:
            raise self.error(key, "text")
        return value

    def side(self, key: str) -> int:
        value = self.found[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, "a whole number of pixels")
        return value

    def numbers(self, key: str, *shapes: tuple[int, ...]) -> NDArray[np.float64]:
        value = self.found[key]
        wanted = " or ".join(" x ".join(map(str, shape)) for shape in shapes)
        try:
            values = np.array(value, dtype=object).astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.error(key, f"{wanted} numbers") from error
        if values.shape not in shapes:
            raise self.error(key, f"{wanted} numbers")
        return values


def _is_number(value: Any) -> bool:
    """Whether a value is a number, and no whole number that is too large for floating point."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**1000)


def _refuse_unknown(who: str, found: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
            raise ImagesError(f"{who}: unknown key '{key}'{hint}")
