"""Prepares ScanNet's images: every tenth frame of a ``.sens`` stream as files, or frames extracted before.

Poses of the stream are those of the depth camera, camera to world of the mesh; where the scan's ``.txt`` file says
how the colour camera sits next to it (``color_camera.py``), images have the pose of the colour camera. Frames whose
tracking was lost are left out. Depth maps are brought into the view of the colour camera.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.prepared import CAMERAS
from pointseg.datasets.scannet.color_camera import move_depth, read_color_to_depth
from pointseg.datasets.scannet.dataset import IMAGE_SIZE
from pointseg.datasets.scannet.sens import SensFile, SensFrame, SensHeader
from pointseg.images.readers.frame import Frame, make_camera
from pointseg.images.readers.image_files import DepthFile, ImageFile, image_size
from pointseg.images.readers.manifest import write_manifest

EVERY = 10
"""Every tenth frame is exported."""
QUALITY = 95
"""JPEG quality of resized images."""
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class ImageTask:
    """The images of one scan."""

    source: Path
    """A ``.sens`` stream, or a folder with ``color``, ``pose``, ``intrinsic`` and perhaps ``depth``."""
    size: tuple[int, int] | None = IMAGE_SIZE
    """Height and width to which images of a stream are resized; None: as they are."""
    about: Path | None = None
    """The ``.txt`` file of the scan, which may say how the colour camera sits next to the depth camera."""


def find_images(scan: Path, elsewhere: Path | None) -> Path | None:
    """Find the stream or the extracted frames of a scan; None if it has neither.

    Args:
        scan: folder of the scan in the official download.
        elsewhere: another folder, with one per scan, perhaps in ``scans`` or ``scans_test``.
    """
    name = scan.name
    folders = [scan]
    if elsewhere is not None:
        below = (elsewhere / name, elsewhere / "scans" / name, elsewhere / "scans_test" / name)
        folders = [*below, scan]
    for folder in folders:
        if (folder / "color").is_dir() and (folder / "pose").is_dir():
            return folder
        if (folder / f"{name}.sens").is_file():
            return folder / f"{name}.sens"
    return None


def prepare_images(task: ImageTask, target: Path) -> list[str]:
    """Write ``cameras.json`` into the folder of a scene, and for a stream its images; returns notes.

    Raises:
        UserError: a file is missing or damaged, a pose is not rigid, images are not of the size of K.
    """
    shift = None if task.about is None else read_color_to_depth(task.about)
    notes: list[str] = []
    if task.source.is_dir():
        frames, lost = extracted_frames(task.source, shift)
        if shift is not None:
            frames, notes = moved_depths(task.source, target, frames, shift)
    else:
        frames, lost = export(task.source, target, size=task.size, color_to_depth=shift)
    write_manifest(target / CAMERAS, frames)
    total = len(frames) + lost
    if task.about is not None and not task.about.is_file():
        notes.append(
            f"{task.about.name} is missing: the colour camera is taken to be where the depth camera is"
        )
    if not frames:
        notes.append(f"{task.source.name}: none of its {total} images has a pose")
    elif lost > total / 4:
        notes.append(f"{task.source.name}: {lost} of {total} images have no pose")
    return notes


def export(
    path: Path,
    target: Path,
    *,
    size: tuple[int, int] | None = IMAGE_SIZE,
    every: int = EVERY,
    color_to_depth: NDArray[np.float64] | None = None,
) -> tuple[list[Frame], int]:
    """Write frames of a stream as ``color/000000.jpg`` and ``depth/000000.png`` (millimetres).

    Args:
        path: the ``.sens`` stream.
        target: folder of the scene; an earlier export is replaced.
        size: height and width of the images; None: as they are, and JPEGs are copied.
        every: step between exported frames.
        color_to_depth: (4, 4) transform from the colour to the depth camera; None: they are at one place.

    Returns:
        The frames, and the number of frames whose tracking was lost.

    Raises:
        UserError: the stream is damaged or cut off, a pose is not rigid.
    """
    for folder in ("color", "depth"):
        shutil.rmtree(target / folder, ignore_errors=True)
        (target / folder).mkdir(parents=True)
    frames: list[Frame] = []
    lost = 0
    with SensFile(path) as stream:
        header = stream.header
        native = (header.color_size[1], header.color_size[0])
        to_color_view = _depth_aligner(header, color_to_depth)
        for found in stream.frames(every):
            if not found.is_tracked:
                lost += 1
                continue
            name = f"{found.number:06d}"
            camera = make_camera(
                f"{path}: frame {found.number}",
                intrinsics=header.intrinsic_color,
                size=native,
                camera_to_world=_color_pose(found.camera_to_world, color_to_depth),
            )
            image, depth = target / "color" / f"{name}.jpg", target / "depth" / f"{name}.png"
            image.write_bytes(_jpeg(found, size))
            _write_millimetres(depth, to_color_view(found.depth_m()))
            frames.append(
                Frame(
                    name=name,
                    camera=camera if size is None else camera.resized(*size),
                    image=ImageFile(image),
                    depth=DepthFile(depth, scale=1000.0),
                )
            )
    return frames, lost


def _color_pose(
    depth_pose: NDArray[np.floating], color_to_depth: NDArray[np.float64] | None
) -> NDArray[np.floating]:
    """Pose of the colour camera, camera to world."""
    return depth_pose if color_to_depth is None else depth_pose @ color_to_depth


def _depth_aligner(
    header: SensHeader, color_to_depth: NDArray[np.float64] | None
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What brings the depth maps of a stream into the view of its colour camera, at their own size."""
    if color_to_depth is None:
        rows, columns = depth_pixels(header)
        return lambda depth: np.pad(depth, ((0, 1), (0, 1)))[rows, columns]  # 0 beyond its edge
    shift = color_to_depth
    matrix = _resized(header.intrinsic_color, header.color_size, header.depth_size)
    return lambda depth: move_depth(depth, header.intrinsic_depth, matrix, shift)


def _resized(
    intrinsics: NDArray[np.floating], size: tuple[int, int], wanted: tuple[int, int]
) -> NDArray[np.float64]:
    """(3, 3) intrinsics for images of another width and height."""
    factors = np.array([[wanted[0] / size[0]], [wanted[1] / size[1]], [1.0]])
    return np.asarray(intrinsics[:3, :3] * factors, np.float64)


def _write_millimetres(path: Path, depth_m: NDArray[np.float32]) -> None:
    units = np.rint(depth_m * 1000).clip(0, 0xFFFF).astype(np.uint16)
    Image.fromarray(units).save(path, compress_level=3)


def depth_pixels(header: SensHeader) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of a depth image that correspond to the field of view of the colour camera.

    Returns:
        (h, 1) rows and (1, w) columns of the depth image for each pixel of a map of the same size with the field
        of view of the colour image; h and w where the depth camera does not see it.

    Raises:
        DatasetError: intrinsics without focal lengths.
    """
    places: list[NDArray[np.int64]] = []
    for axis, (color, depth) in enumerate(zip(header.color_size, header.depth_size, strict=True)):
        of_color, of_depth = header.intrinsic_color, header.intrinsic_depth
        if not (of_color[axis, axis] > 0 and of_depth[axis, axis] > 0):
            raise DatasetError(
                f"sensor {header.sensor}: its header must have focal lengths above 0"
            )
        pixel = (np.arange(depth) + 0.5) * (color / depth)
        tangent = (pixel - of_color[axis, 2]) / of_color[axis, axis]
        place = np.floor(tangent * of_depth[axis, axis] + of_depth[axis, 2])
        seen = (place >= 0) & (place < depth)
        places.append(np.where(seen, place, depth).astype(np.int64))
    return places[1][:, None], places[0][None]


def _jpeg(frame: SensFrame, size: tuple[int, int] | None) -> bytes:
    native = frame.header.color_size
    wanted = native if size is None else (size[1], size[0])
    pixels = frame.color()
    if wanted == native and frame.header.color_codec == "jpeg":
        return frame.color_bytes
    image = Image.fromarray(pixels)
    if wanted != native:
        image = image.resize(wanted, Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def extracted_frames(
    folder: Path, color_to_depth: NDArray[np.float64] | None = None
) -> tuple[list[Frame], int]:
    """Frames that were extracted with the dataset's own tools; nothing is copied.

    Args:
        folder: with ``color/N.jpg``, ``pose/N.txt`` (camera to world), ``intrinsic/intrinsic_color.txt`` and
            perhaps ``depth/N.png`` (millimetres).
        color_to_depth: as for ``export``.

    Returns:
        The frames in order of their numbers, and the number of frames whose tracking was lost.

    Raises:
        UserError: a file is missing or malformed, a pose is not rigid, images are not of the size of K.
    """
    images = {p.stem: p for p in (folder / "color").iterdir() if p.suffix.lower() in SUFFIXES}
    calibration = folder / "intrinsic" / "intrinsic_color.txt"
    intrinsics = _matrix(calibration)
    frames: list[Frame] = []
    lost, size = 0, (0, 0)
    for name in sorted(images, key=lambda stem: (len(stem), stem)):
        if not frames:
            size = image_size(images[name])
            _check_centre(calibration, intrinsics, size, images[name].name)
        pose = _matrix(folder / "pose" / f"{name}.txt")
        if not np.isfinite(pose).all():
            lost += 1
            continue
        depth = folder / "depth" / f"{name}.png"
        frames.append(
            Frame(
                name=name,
                camera=make_camera(
                    str(folder / "pose" / f"{name}.txt"),
                    intrinsics=intrinsics,
                    size=size,
                    camera_to_world=_color_pose(pose, color_to_depth),
                ),
                image=ImageFile(images[name]),
                depth=DepthFile(depth, scale=1000.0) if depth.is_file() else None,
            )
        )
    return frames, lost


def moved_depths(
    folder: Path, target: Path, frames: Sequence[Frame], color_to_depth: NDArray[np.float64]
) -> tuple[list[Frame], list[str]]:
    """Extracted frames with depth maps in the view of the colour camera, which are written; and notes.

    Args:
        folder: with ``intrinsic/intrinsic_depth.txt``; without it depth maps stay as they are.
        target: folder of the scene, for ``depth/N.png``.
        frames: of ``extracted_frames``.
        color_to_depth: as for ``export``.

    Raises:
        UserError: a depth map or the intrinsics are damaged.
    """
    path = folder / "intrinsic" / "intrinsic_depth.txt"
    with_depth = [frame for frame in frames if frame.depth is not None]
    if not with_depth:
        return list(frames), []
    if not path.is_file():
        return list(frames), [
            f"{path} is missing: depth maps stay in the view of the depth camera, a few centimetres away from that "
            "of the images"
        ]
    intrinsics = _matrix(path)
    (target / "depth").mkdir(parents=True, exist_ok=True)
    moved: dict[str, DepthFile] = {}
    for frame in with_depth:
        depth = frame.read_depth()
        assert depth is not None
        size, wanted = frame.camera.size, (depth.shape[1], depth.shape[0])
        _check_centre(path, intrinsics, depth.shape, str(frame.depth))
        matrix = _resized(frame.camera.intrinsics.numpy(), (size[1], size[0]), wanted)
        out = target / "depth" / f"{frame.name}.png"
        _write_millimetres(out, move_depth(depth, intrinsics, matrix, color_to_depth))
        moved[frame.name] = DepthFile(out, scale=1000.0)
    return [replace(frame, depth=moved.get(frame.name)) for frame in frames], []


def _check_centre(
    path: Path, intrinsics: NDArray[np.float64], size: tuple[int, int], image: str
) -> None:
    """Refuse intrinsics of another size: ScanNet's principal points are near the middle of the image."""
    share = intrinsics[0, 2] / size[1], intrinsics[1, 2] / size[0]
    if not all(0.4 < each < 0.6 for each in share):
        raise DatasetError(
            f"{path}: has its principal point at "
            f"{intrinsics[0, 2]:.0f}, {intrinsics[1, 2]:.0f}, but {image} is {size[1]} x {size[0]} pixels "
            f"(width x height): scale the intrinsics with the images"
        )


def _matrix(path: Path) -> NDArray[np.float64]:
    """(4, 4) matrix in a text file."""
    try:
        words: list[Any] = path.read_text(encoding="ascii").split()
        values = np.array([float(word) for word in words])
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing; extract the frames of this scan again") from error
    except ValueError as error:
        raise DatasetError(f"{path}: must hold 16 numbers: {error}") from error
    if values.size != 16:
        raise DatasetError(f"{path}: must hold 16 numbers, a 4 x 4 matrix, holds {values.size}")
    return values.reshape(4, 4)
