"""Descriptions of cameras and of folders of clouds: read without their images."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.folder.description import read_description
from pointseg.images.readers.camera_files import read_cameras
from tests.fuzz.damage import Damaged, fields_damaged, json_damaged, text_damaged
from tests.fuzz.kind import Finding, Kind, Refused, Result
from tests.pointseg.images.readers import test_colmap as colmap
from tests.pointseg.images.readers.test_manifest import VIEW

DESCRIPTION = """classes: [floor, wall, thing]
colors: {floor: [1, 2, 3], wall: [4, 5, 6], thing: [7, 8, 9]}
voxel_m: 0.05
features: [color]
splits: {train: [train], val: ["val/*.ply"]}
labels:
  map: {0: floor, "1-3": wall, 7: thing}
  ignore: [255]
up: z
unit: metre
"""


def _frames(read: Callable[[Path], Sequence[Any]], folder: Path, whole: bool) -> Result:
    try:
        frames = read(folder)
    except UserError as error:
        raise Refused(str(error)) from error
    result = {}
    for frame in frames:
        camera = frame.camera
        result[f"{frame.name} pose"] = np.asarray(camera.world_to_camera)
        result[f"{frame.name} K"] = np.asarray(camera.intrinsics)
        if camera.distortion is not None:
            result[f"{frame.name} lens"] = np.array(str(camera.distortion))
    for name, values in result.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all() or "nan" in str(values):
            raise Finding(f"{name} is not finite")
    return result


def _described(folder: Path, whole: bool) -> Result:
    try:
        found = read_description(folder / "dataset.yaml", default_name="folder", labelled=True)
    except UserError as error:
        raise Refused(str(error)) from error
    return {"all": np.array(repr(found))}


def _write_manifest(folder: Path) -> None:
    views = [VIEW, {**VIEW, "name": "b", "depth": "d.png", "depth_scale": 1000}]
    content = {"format": "pointseg-cameras-1", "views": views, "distortion": [0.1, 0, 0, 0]}
    (folder / "cameras.json").write_text(json.dumps(content), encoding="utf-8")


def _write_transforms(folder: Path) -> None:
    pose = [[1, 0, 0, 2], [0, 0, -1, 3], [0, 1, 0, 4], [0, 0, 0, 1]]
    lens = {
        "camera_model": "OPENCV",
        "fl_x": 30,
        "fl_y": 31,
        "cx": 30,
        "cy": 20,
        "w": 60,
        "h": 40,
        "k1": 0.1,
    }
    for i in range(2):  # read where the size is missing
        (folder / "images").mkdir(exist_ok=True)
        Image.new("RGB", (60, 40)).save(folder / f"images/{i}.jpg")
    frames = [{"file_path": f"images/{i}.jpg", "transform_matrix": pose} for i in range(2)]
    (folder / "transforms.json").write_text(
        json.dumps({**lens, "frames": frames}), encoding="utf-8"
    )


def _write_colmap(folder: Path) -> None:
    colmap.write(folder)


def _write_binary(folder: Path) -> None:
    cameras = struct.pack("<QiiQQ", 1, 1, 1, 60, 40) + struct.pack("<4d", 30, 31, 30, 20)
    images = struct.pack("<Q", 2)
    for number in (1, 2):
        images += struct.pack("<i7di", number, 1, 0, 0, 0, 1, 2, 3, 1)
        images += f"{number}.jpg".encode() + b"\0" + struct.pack("<Q2dq", 1, 3, 4, -1)
    (folder / "cameras.bin").write_bytes(cameras)
    (folder / "images.bin").write_bytes(images)


def binary_lie(rng: Random, content: bytes) -> Damaged:
    """Any aligned number is another one."""
    fields = [
        (at, code)
        for code, n in (("<i", 4), ("<Q", 8), ("<d", 8))
        for at in range(0, len(content) - n, 4)
    ]
    return fields_damaged(rng, content, fields)


def _text(rng: Random, content: bytes) -> Damaged:
    return text_damaged(rng, content)


def kinds(folder: Path) -> list[Kind]:
    """A manifest, a COLMAP model in text and in binary, and the description of a dataset."""
    model = partial(_frames, lambda folder: read_cameras(folder, folder))

    def kind(file: str, write: Any, read: Any, lie: Any, **more: Any) -> Kind:
        return Kind(name=file, file=file, write=write, read=read, lie=lie, **more)

    return [
        kind(
            "cameras.json",
            _write_manifest,
            partial(_frames, lambda folder: read_cameras(folder / "cameras.json")),
            json_damaged,
        ),
        kind("transforms.json", _write_transforms, partial(_frames, read_cameras), json_damaged),
        kind("cameras.txt", _write_colmap, model, _text, counted=False),
        kind("images.txt", _write_colmap, model, _text, counted=False),
        kind("cameras.bin", _write_binary, model, binary_lie),
        kind("images.bin", _write_binary, model, binary_lie),
        kind(
            "dataset.yaml",
            lambda folder: (
                (folder / "dataset.yaml").write_text(DESCRIPTION, encoding="utf-8") and None
            ),
            _described,
            _text,
            counted=False,
        ),
    ]
