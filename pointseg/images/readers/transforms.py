"""Reads ``transforms.json`` as nerfstudio, Polycam, instant-ngp and NeRF's Blender scenes have it.

Poses are camera to world with OpenGL's camera axes (x right, y up, z backward); they become world to camera
with x right, y down, z forward. Values may stand at the top, or with each frame.

Source: nerfstudio's documentation of its data conventions; instant-ngp's of its NeRF data.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.lifting import Lens
from pointseg.images.readers.frame import Frame, ImagesError, make_camera, transform_frame
from pointseg.images.readers.image_files import DepthFile, ImageFile, find_image, image_size
from pointseg.images.readers.notes import say_left_out, say_once
from pointseg.images.readers.two_worlds import world_in_view

TRANSFORMS = "transforms.json"
PERSPECTIVE = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")
FISHEYE = ("OPENCV_FISHEYE", "FISHEYE")
LENS = ("k1", "k2", "k3", "k4", "p1", "p2")
"""Coefficients, in the order of ``distortion_params``."""
MILLIMETRES = 1000.0
"""Units per metre of nerfstudio's depth maps, whose files do not say it."""
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def is_transforms(found: Any) -> bool:
    """Whether the contents of a JSON file are of this kind."""
    return isinstance(found, dict) and "format" not in found and "frames" in found


def frames_of_transforms(
    path: Path, found: Mapping[str, Any], *, images: Path | None = None, cloud: Path | None = None
) -> tuple[Frame, ...]:
    """The frames that a ``transforms.json`` describes, in its order; no image is read, sizes may be.

    Where it has an ``applied_transform``, its poses are in the world after that, as its own ``ply_file_path`` is;
    the cloud of a scanner or of COLMAP is in the world before it. See ``world_in_view`` for other clouds.

    Args:
        path: the file.
        found: its contents.
        images: folder that image paths are relative to. None: that of the file.
        cloud: file of the points.

    Raises:
        ImagesError: a value is missing or wrong; the message names file, frame and key.
    """
    entries = found["frames"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImagesError(f"{path}: 'frames' must be a list of objects, one for each image")
    base = path.parent if images is None else images
    frames: dict[str, Frame] = {}
    left_out: list[str] = []
    for number, entry in enumerate(entries):
        one = _Entry(path, number, found, entry, base)
        if why := one.unsupported():
            left_out.append(why)
            continue
        frame = one.frame()
        if frame.name in frames:
            raise ImagesError(f"{path}: two frames have the 'file_path' '{frame.name}'; remove one")
        frames[frame.name] = frame
    say_left_out(left_out, len(entries))
    if any("mask_path" in entry for entry in entries):
        say_once(
            f"{path}: its masks (mask_path) are not used; points under them take features of the images"
        )
    return _in_world_of_cloud(path, found, tuple(frames.values()), cloud)


def _in_world_of_cloud(
    path: Path, found: Mapping[str, Any], frames: tuple[Frame, ...], cloud: Path | None
) -> tuple[Frame, ...]:
    """The frames in the world that the cloud is in."""
    stated, scale = found.get("applied_transform"), found.get("applied_scale", 1.0)
    applied = np.eye(4) if stated is None else _matrix(str(path), "applied_transform", stated)
    if not _is_number(scale) or not 1e-6 < scale < 1e6:
        raise ImagesError(f"{path}: 'applied_scale' must be a number above 0, got {scale!r}")
    turn = applied[:3, :3]
    error = np.abs(turn @ turn.T - np.eye(3)).max()
    if error > 1e-3 or np.linalg.det(turn) < 0:
        raise ImagesError(
            f"{path}: 'applied_transform' must be a rotation and a shift (off by {error:.2g}); its scale is "
            "'applied_scale'"
        )
    if np.allclose(applied, np.eye(4)) and scale == 1:
        return frames
    own = found.get("ply_file_path")
    if cloud is not None and isinstance(own, str) and _is_same(cloud, path.parent / own):
        return frames
    back = turn.T
    before = tuple(
        transform_frame(frame, back, -back @ applied[:3, 3], scale=1 / scale) for frame in frames
    )
    return world_in_view(path, cloud, frames, before)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # a name that no file can have
        return False


class _Entry:
    """One entry of ``frames`` with the values for all of them."""

    def __init__(
        self, path: Path, number: int, top: Mapping[str, Any], own: Mapping[str, Any], base: Path
    ) -> None:
        self.base, self.top, self.own, self.folder = base, top, own, path.parent
        name = own.get("file_path")
        self.who = f"{path}: frame {number}" + (f" ({name:.200})" if isinstance(name, str) else "")

    def unsupported(self) -> str:
        """Why its camera cannot be projected with; "" if it can."""
        model = self.value("camera_model")
        if model is None or model in PERSPECTIVE or model in FISHEYE:
            return ""
        known = ", ".join((*PERSPECTIVE, *FISHEYE))
        return (
            f"{self.who}: its 'camera_model' {model!r} is none of {known}; undistort these images"
        )

    def frame(self) -> Frame:
        text = self.own.get("file_path")
        if not isinstance(text, str) or not text:
            raise ImagesError(f"{self.who}: 'file_path' must be text, got {text!r}")
        file = find_image(self.base, text, self.who)
        size = self.size(file)
        return Frame(
            name=str(PurePosixPath(text.replace("\\", "/"))),
            camera=make_camera(
                self.who,
                intrinsics=self.intrinsics(size),
                size=size,
                camera_to_world=self.pose(),
                distortion=self.lens(),
            ),
            image=ImageFile(file),
            depth=self.depth(),
        )

    def value(self, key: str) -> Any:
        """A value of the frame or of the top; programs differ in which counts, so both must agree."""
        top, own = self.top.get(key), self.own.get(key)
        if top is not None and own is not None and top != own:
            raise ImagesError(
                f"{self.who}: '{key}' is {own!r} here and {top!r} at the top, and programs differ in which of them "
                "they take; remove one"
            )
        return top if own is None else own

    def number(self, key: str) -> float | None:
        value = self.value(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e9:
            raise ImagesError(f"{self.who}: '{key}' must be a number, got {value!r}")
        return float(value)

    def size(self, file: Path) -> tuple[int, int]:
        """Height and width, of the image itself where the file does not say them."""
        sides = [self.number(key) for key in ("h", "w")]
        if None in sides:
            return image_size(file)
        for key, side in zip("hw", sides, strict=True):
            if side is None or side < 1 or side != int(side):
                raise ImagesError(
                    f"{self.who}: '{key}' must be a whole number of pixels, got {side!r}"
                )
        height, width = (int(side or 0) for side in sides)
        return height, width

    def intrinsics(self, size: tuple[int, int]) -> NDArray[np.float64]:
        height, width = size
        fx, fy = self.focal("x", width), self.focal("y", height)
        if fx is None:
            raise ImagesError(
                f"{self.who}: lacks its focal length: 'fl_x' in pixels, or 'camera_angle_x' in radians"
            )
        cx, cy = self.number("cx"), self.number("cy")
        return np.array(
            [
                [fx, 0, width / 2 if cx is None else cx],
                [0, fx if fy is None else fy, height / 2 if cy is None else cy],
                [0, 0, 1],
            ]
        )

    def focal(self, axis: str, side: int) -> float | None:
        """Pixels; angles are of the whole image."""
        stated = self.number(f"fl_{axis}")
        degrees, angle = self.number(f"{axis}_fov"), self.number(f"camera_angle_{axis}")
        if degrees is not None:
            angle = math.radians(degrees)
        elif stated is not None:
            angle = None
        if angle is None:
            if stated is not None and not stated > 0:
                raise ImagesError(f"{self.who}: 'fl_{axis}' must be above 0, got {stated:g}")
            return stated
        if not 0 < angle < math.pi:
            key = f"camera_angle_{axis}" if degrees is None else f"{axis}_fov"
            raise ImagesError(f"{self.who}: '{key}' must be an angle between 0 and 180 degrees")
        found = 0.5 * side / math.tan(angle / 2)
        if stated is not None and not math.isclose(found, stated, rel_tol=0.01):
            raise ImagesError(
                f"{self.who}: '{axis}_fov' is of a focal length of {found:.5g} pixels, but 'fl_{axis}' is "
                f"{stated:.5g}; remove the wrong one"
            )
        return found

    def lens(self) -> Lens | None:
        listed = self.value("distortion_params")
        values = {key: self.number(key) or 0.0 for key in LENS}
        if listed is not None:
            if any(values.values()):
                raise ImagesError(
                    f"{self.who}: has 'distortion_params' and k1 to p2; remove one of them"
                )
            if (
                not isinstance(listed, list)
                or len(listed) != len(LENS)
                or not all(map(_is_number, listed))
            ):
                raise ImagesError(
                    f"{self.who}: 'distortion_params' must be six numbers {', '.join(LENS)}, got {listed!r:.80}"
                )
            values = dict(zip(LENS, listed, strict=True))
        flag = self.value("is_fisheye")
        model = self.value("camera_model")
        if flag not in (None, True, False) or (model in FISHEYE and flag is False):
            raise ImagesError(f"{self.who}: 'is_fisheye' is {flag!r} but 'camera_model' {model!r}")
        try:
            lens = Lens(
                fisheye=model in FISHEYE or bool(flag),
                radial=tuple(values[key] for key in LENS[:4]),
                tangential=(values["p1"], values["p2"]),
            )
        except ValueError as error:
            raise ImagesError(f"{self.who}: {error}") from error
        return lens if lens.bends else None

    def pose(self) -> NDArray[np.float64]:
        """(4, 4) camera to world, x right, y down, z forward."""
        return np.asarray(
            _matrix(self.who, "transform_matrix", self.own.get("transform_matrix")) @ _FLIP
        )

    def depth(self) -> DepthFile | None:
        named = {
            key: self.own[key] for key in ("depth_file_path", "depth_path") if self.own.get(key)
        }
        if not named:
            return None
        key, text = next(iter(named.items()))
        if not isinstance(text, str):
            raise ImagesError(f"{self.who}: '{key}' must be text, got {text!r}")
        metres = self.number("integer_depth_scale")
        if metres is not None and not 1e-7 < metres <= 1:
            raise ImagesError(
                f"{self.who}: 'integer_depth_scale' must be metres per unit, got {metres:g}"
            )
        scale = MILLIMETRES if metres is None else 1 / metres
        return DepthFile(self.folder / text.replace("\\", "/"), scale=scale)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _matrix(who: str, key: str, value: Any) -> NDArray[np.float64]:
    """(4, 4) of 3 x 4 or 4 x 4 numbers.

    Raises:
        ImagesError: it has another form.
    """
    rows = value if isinstance(value, list) else []
    whole = len(rows) in (3, 4) and all(isinstance(row, list) and len(row) == 4 for row in rows)
    if not whole or not all(_is_number(each) for row in rows for each in row):
        raise ImagesError(
            f"{who}: '{key}' must be 3 x 4 or 4 x 4 finite numbers, got {value!r:.80}"
        )
    last: Sequence[float] = (0, 0, 0, 1)
    return np.array(rows if len(rows) == 4 else [*rows, last], np.float64)
