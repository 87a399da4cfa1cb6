"""Reads the cameras that Agisoft Metashape exports as XML.

A camera's transform is camera to chunk, with x right, y down, z forward; the transform of its component or of
the chunk (rotation R, translation t, scale s) takes chunk to world: X = s R x + t.

Source: Agisoft Metashape's manual, camera models; its principal point is measured from the image's middle, and
its p1 and p2 are the p2 and p1 of OpenCV.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from dinomed3d.lifting import Lens
from pointseg.images.readers.frame import Frame, ImagesError, make_camera, transform_frame
from pointseg.images.readers.image_files import ImageFile, find_image
from pointseg.images.readers.notes import say_once
from pointseg.images.readers.plain_xml import read_xml

KEPT = frozenset(
    "document chunk sensors sensor resolution calibration f cx cy b1 b2 k1 k2 k3 k4 p1 p2 p3 p4 components component "
    "transform rotation translation scale cameras group camera reference".split()
)
"""The elements that are read; all others and what is in them are passed over."""
TYPES = {"frame": False, "fisheye": True}
"""Types of sensors that can be projected with, and whether each is a fisheye."""


class _Sensor(NamedTuple):
    """A calibrated sensor."""

    size: tuple[int, int]
    intrinsics: NDArray[np.float64]
    lens: Lens | None


class _Similarity(NamedTuple):
    """From chunk to world."""

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    scale: float


def read_metashape(path: Path, images: Path | None = None) -> tuple[Frame, ...]:
    """The aligned cameras of a chunk, in the order of the file; no image is read.

    Cameras that are disabled, not aligned, or of a sensor that cannot be projected with are left out, which a
    warning says with their numbers.

    Args:
        path: the XML file.
        images: folder in which images are found by the cameras' labels. None: that of the file.

    Raises:
        ImagesError: it is missing, damaged, of more than one chunk, or has no camera that can be used.
    """
    chunk = _chunk(path)
    sensors = {each.get("id"): each for each in chunk.iterfind("sensors/sensor")}
    worlds = _Worlds(path, chunk)
    found: dict[str, Frame] = {}
    left_out: Counter[str] = Counter()
    read: dict[str | None, _Sensor | str] = {}
    for camera in _cameras(chunk):
        label = camera.get("label") or f"camera {camera.get('id')}"
        who = f"{path}: camera '{label}'"
        sensor_id = camera.get("sensor_id")
        if sensor_id not in read:
            read[sensor_id] = _sensor(path, sensors.get(sensor_id), sensor_id)
        sensor = read[sensor_id]
        why = _unusable(camera) or (sensor if isinstance(sensor, str) else "")
        if why or isinstance(sensor, str):
            left_out[why] += 1
            continue
        if label in found:
            raise ImagesError(f"{who}: two cameras have this label; rename one of the images")
        pose = _numbers(camera.findtext("transform"), 16, f"{who}: 'transform'").reshape(4, 4)
        own = make_camera(
            who,
            intrinsics=sensor.intrinsics,
            size=sensor.size,
            camera_to_world=pose,
            distortion=sensor.lens,
        )
        image = find_image(path.parent if images is None else images, label, who, deep=True)
        frame = Frame(name=label, camera=own, image=ImageFile(image))
        found[label] = worlds.in_world(frame, camera.get("component_id"))
    _say_left_out(path, left_out, len(found))
    return tuple(found.values())


def _chunk(path: Path) -> Element:
    root = read_xml(path, KEPT)
    chunks = [each for each in root.iter("chunk") if next(_cameras(each), None) is not None]
    if root.tag != "document" or len(chunks) != 1:
        raise ImagesError(
            f"{path}: must be the cameras of one chunk as Metashape exports them (File, Export, Export Cameras, "
            f"Agisoft XML), has {len(chunks)} chunks with cameras"
        )
    return chunks[0]


def _cameras(chunk: Element) -> Iterator[Element]:
    """The cameras of a chunk, in groups or not."""
    for cameras in chunk.iterfind("cameras"):
        yield from cameras.iter("camera")


def _unusable(camera: Element) -> str:
    """Why a camera cannot be used whatever its sensor; "" if it can."""
    if (camera.get("enabled") or "true").lower() in ("false", "0"):
        return "disabled"
    if camera.get("master_id") is not None and camera.find("transform") is None:
        return "part of a rig, whose offsets are not read"
    return "" if camera.find("transform") is not None else "not aligned"


def _sensor(path: Path, sensor: Element | None, number: str | None) -> _Sensor | str:
    """A sensor, or why its cameras are left out."""
    if sensor is None:
        return f"of sensor {number}, which is not in the file"
    kind = sensor.get("type") or "frame"
    if kind not in TYPES:
        return f"of a sensor of the type '{kind}' (read are {' and '.join(TYPES)})"
    of_class = {each.get("class"): each for each in sensor.iterfind("calibration")}
    calibration = of_class.get("adjusted", of_class.get("initial", of_class.get(None)))
    if calibration is None or calibration.find("f") is None:
        return f"of sensor {number}, which has no calibration with a focal length f"
    who = f"{path}: sensor {number}"
    values = {
        key: 0.0
        if (text := calibration.findtext(key)) is None
        else _numbers(text, 1, f"{who}: '{key}'")[0]
        for key in ("f", "cx", "cy", "b1", "b2", "k1", "k2", "k3", "k4", "p1", "p2", "p3", "p4")
    }
    if values["p3"] or values["p4"]:
        return f"of sensor {number}, whose p3 and p4 are not 0"
    size = _size(who, calibration.find("resolution"), sensor.find("resolution"))
    lens = Lens(
        fisheye=TYPES[kind],
        radial=tuple(values[key] for key in ("k1", "k2", "k3", "k4")),
        tangential=(values["p2"], values["p1"]),
    )
    f, (height, width) = values["f"], size
    matrix = np.array(
        [
            [f + values["b1"], values["b2"], width / 2 + values["cx"]],
            [0, f, height / 2 + values["cy"]],
            [0, 0, 1],
        ]
    )
    return _Sensor(size, matrix, lens if lens.bends else None)


def _size(who: str, *resolutions: Element | None) -> tuple[int, int]:
    """Height and width of the first resolution that is there."""
    found = next((each for each in resolutions if each is not None), None)
    sides = ["" if found is None else found.get(key) or "" for key in ("height", "width")]
    if not all(side.isascii() and side.isdigit() and len(side) < 8 for side in sides):
        raise ImagesError(f"{who}: lacks its resolution (width and height in pixels)")
    return int(sides[0]), int(sides[1])


class _Worlds:
    """From the coordinates of the chunk and its components to those of the world."""

    def __init__(self, path: Path, chunk: Element) -> None:
        self.chunk = _similarity(f"{path}: transform of the chunk", chunk.find("transform"))
        self.components = {
            each.get("id"): _similarity(
                f"{path}: transform of component {each.get('id')}", each.find("transform")
            )
            for each in chunk.iterfind("components/component")
        }
        system = " ".join((chunk.findtext("reference") or "").split())
        if not self.chunk and not any(self.components.values()):
            say_once(
                f"{path}: the chunk has no transform, so that poses are in its own coordinates and unit; the cloud "
                "must be in these, too"
            )
        elif system and not system.upper().startswith(("LOCAL_CS", "GEOCCS")):
            say_once(
                f"{path}: the chunk's coordinate system is {system.partition(',')[0]}..., for which Metashape keeps "
                "poses in geocentric coordinates: a cloud in projected ones does not fit them. Export the cameras as "
                "a COLMAP model with the cloud's coordinate system (Metashape 2.2 on), or set local coordinates and "
                "export both again"
            )

    def in_world(self, frame: Frame, component: str | None) -> Frame:
        """A frame in chunk coordinates, in the world."""
        found = self.components.get(component) or self.chunk
        if found is None:
            return frame
        return transform_frame(frame, found.rotation, found.translation, scale=found.scale)


def _similarity(who: str, found: Element | None) -> _Similarity | None:
    if found is None or found.find("rotation") is None:
        return None
    rotation = _numbers(found.findtext("rotation"), 9, f"{who}: 'rotation'").reshape(3, 3)
    shift = found.findtext("translation")
    translation = np.zeros(3) if shift is None else _numbers(shift, 3, f"{who}: 'translation'")
    text = found.findtext("scale")
    scale = 1.0 if text is None else float(_numbers(text, 1, f"{who}: 'scale'")[0])
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if error > 1e-3 or np.linalg.det(rotation) < 0 or not 1e-9 < scale < 1e9:
        raise ImagesError(
            f"{who}: must be a rotation (off by {error:.2g}) with a scale above 0, got {scale:g}"
        )
    return _Similarity(rotation, translation, scale)


def _numbers(text: str | None, count: int, who: str) -> NDArray[np.float64]:
    """So many finite numbers of a text."""
    words = (text or "").split()
    try:
        values = [float(word) for word in words] if len(words) == count else []
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise ImagesError(
            f"{who} must be {count} finite numbers, got {(text or '').strip()[:60]!r}"
        )
    return np.array(values)


def _say_left_out(path: Path, left_out: Counter[str], kept: int) -> None:
    if not left_out and kept:
        return
    why = "; ".join(
        f"{count} {'is' if count == 1 else 'are'} {what}" for what, count in left_out.items()
    )
    said = f"{path}: {left_out.total()} of {left_out.total() + kept} cameras are left out: {why}"
    if not kept:
        raise ImagesError(said)
    say_once(said)
