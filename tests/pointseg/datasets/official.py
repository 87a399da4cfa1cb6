"""Writes tiny datasets in the official formats, for the readers to read."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LABELS_TSV = """id\traw_category\tcategory\tcount\tnyu40id\teigen13id\tnyuClass
1\twall\twall\t7274\t1\t12\twall
5\tdoor\tdoor\t2181\t8\t12\tdoor
10\toffice chair\toffice chair\t595\t5\t4\tchair
1163\tobject\tobject\t100\t40\t7\totherprop
22\tbook\tbook\t318\t23\t2\tbooks
191\tpillar\tpillar\t30\t38\t7\totherstructure
1000\tdoodle\tdoodle\t1\t0\t0\tvoid
"""

# A roof of two triangles over a square: four vertices, then one without a face.
ROOF_XYZ = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [5, 5, 5]], np.float32)
ROOF_FACES = np.array([[0, 1, 2], [0, 2, 3]])


def write_mesh(path: Path, xyz: NDArray[Any] = ROOF_XYZ, faces: NDArray[Any] = ROOF_FACES) -> None:
    """``_vh_clean_2.ply``: little-endian, colour with alpha, faces as lists of uchar and int."""
    path.parent.mkdir(parents=True, exist_ok=True)
    vertex = np.dtype([("xyz", "<f4", 3), ("rgba", "u1", 4)])
    face = np.dtype([("n", "u1"), ("v", "<i4", 3)])
    vertices, triangles = np.zeros(len(xyz), vertex), np.zeros(len(faces), face)
    vertices["xyz"] = xyz
    vertices["rgba"] = np.arange(4 * len(xyz)).reshape(-1, 4) % 256
    triangles["n"], triangles["v"] = 3, faces
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment MLIB generated\n"
        f"element vertex {len(xyz)}\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar alpha\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    path.write_bytes(header.encode() + vertices.tobytes() + triangles.tobytes())


def write_scan(
    root: Path,
    name: str,
    *,
    folder: str = "scans",
    groups: Sequence[tuple[int, str, Sequence[int]]] | None = (
        (0, "wall", (7,)),
        (1, "office chair", (3, 9)),
    ),
    segments: Sequence[int] = (7, 7, 3, 9, 4),
) -> Path:
    """A scan of the roof; ``groups`` are (id, label, segments), None: a scan without labels."""
    stem = root / folder / name / name
    write_mesh(Path(f"{stem}_vh_clean_2.ply"))
    if groups is not None:
        Path(f"{stem}_vh_clean_2.0.010000.segs.json").write_text(
            json.dumps(
                {"params": {"kThresh": "0.01"}, "sceneId": name, "segIndices": list(segments)}
            )
        )
        found = [
            {"id": number, "objectId": number, "segments": list(members), "label": label}
            for number, label, members in groups
        ]
        Path(f"{stem}.aggregation.json").write_text(
            json.dumps({"sceneId": f"scannet.{name}", "segGroups": found})
        )
    return stem.parent


def write_scannet(root: Path, names: Sequence[str] = ("scene0000_00", "scene0011_01")) -> None:
    """Labelled scans, one test scan, and the label table."""
    for name in names:
        write_scan(root, name)
    write_scan(root, "scene0707_00", folder="scans_test", groups=None)
    (root / "scannetv2-labels.combined.tsv").write_text(LABELS_TSV)


def write_sens(
    path: Path,
    frames: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    *,
    color_codec: str = "jpeg",
    depth_codec: str = "zlib",
    depth_per_m: float = 1000.0,
    version: int = 4,
    intrinsics: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> None:
    """A ``.sens`` stream of (camera to world, (H, W, 3) colour, (h, w) uint16 depth).

    ``intrinsics`` are (3, 3) of the colour and of the depth camera.
    """
    color, depth = frames[0][1], frames[0][2]
    color_k = np.diag([500.0, 510.0, 1, 1]).astype("<f4")
    depth_k = color_k / 2
    if intrinsics is not None:
        color_k, depth_k = (np.eye(4, dtype="<f4") for _ in range(2))
        color_k[:3, :3], depth_k[:3, :3] = intrinsics
    name = b"StructureSensor"
    data = [struct.pack("<IQ", version, len(name)), name]
    data += [color_k.tobytes(), np.eye(4, dtype="<f4").tobytes()]
    data += [depth_k.tobytes(), np.eye(4, dtype="<f4").tobytes()]
    codecs = (
        {"raw": 0, "png": 1, "jpeg": 2}[color_codec],
        {"raw": 0, "zlib": 1, "occi": 2}[depth_codec],
    )
    sizes = (color.shape[1], color.shape[0], depth.shape[1], depth.shape[0])
    data.append(struct.pack("<iiIIIIfQ", *codecs, *sizes, depth_per_m, len(frames)))
    for number, (pose, color, depth) in enumerate(frames):
        color_bytes, depth_bytes = color.tobytes(), depth.astype("<u2").tobytes()
        if color_codec != "raw":
            stream = io.BytesIO()
            Image.fromarray(color).save(stream, color_codec.upper(), quality=95)
            color_bytes = stream.getvalue()
        if depth_codec == "zlib":
            depth_bytes = zlib.compress(depth_bytes)
        data.append(np.asarray(pose, "<f4").tobytes())
        data.append(
            struct.pack("<QQQQ", 10 * number, 11 * number, len(color_bytes), len(depth_bytes))
        )
        data += [color_bytes, depth_bytes]
    data.append(struct.pack("<Q", 0))  # the motion sensor's frames, which follow in newer streams
    path.write_bytes(b"".join(data))


def object_rows(count: int, seed: int = 0) -> str:
    """Lines of an S3DIS annotation."""
    rng = np.random.default_rng(seed)
    xyz, rgb = rng.uniform(-2, 7, (count, 3)), rng.integers(0, 256, (count, 3))
    return "".join(
        f"{x:.3f} {y:.3f} {z:.3f} {r} {g} {b}\n"
        for (x, y, z), (r, g, b) in zip(xyz, rgb, strict=True)
    )


def write_room(root: Path, area: str, room: str, objects: Mapping[str, str | bytes]) -> Path:
    """A room of S3DIS; ``objects``: name of each file, such as chair_1, and its text."""
    folder = root / area / room / "Annotations"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in objects.items():
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def write_angles(root: Path, area: str, angles: Mapping[str, int]) -> None:
    """``Area_k_alignmentAngle.txt`` with its comment lines."""
    (root / area).mkdir(parents=True, exist_ok=True)
    lines = [f"## Global alignment angle per disjoint space in {area} ##", "## Name Angle ##"]
    lines += [f"{room} {angle}" for room, angle in angles.items()]
    (root / area / f"{area}_alignmentAngle.txt").write_text("\n".join(lines) + "\n")


def write_kitti_scan(
    sequences: Path, sequence: str, number: str, labels: Sequence[int] | None, points: int = 4
) -> None:
    """A SemanticKITTI scan; ``labels`` are the raw 32 bits."""
    folder = sequences / sequence
    (folder / "velodyne").mkdir(parents=True, exist_ok=True)
    rows = np.arange(4 * points, dtype="<f4").reshape(points, 4)
    rows[:, 3] = np.linspace(0, 1, points)
    rows.tofile(folder / "velodyne" / f"{number}.bin")
    if labels is not None:
        (folder / "labels").mkdir(exist_ok=True)
        np.array(labels, "<u4").tofile(folder / "labels" / f"{number}.label")


def write_kitti(root: Path) -> Path:
    """A training, a validation and a test scan with calibration and poses; returns ``sequences``."""
    sequences = root / "dataset" / "sequences"
    write_kitti_scan(sequences, "00", "000000", [40, 10 | 3 << 16, 0, 252 | 70_00 << 16])
    write_kitti_scan(sequences, "00", "000001", [81, 80, 72, 71])
    write_kitti_scan(sequences, "08", "000000", [11, 15, 18, 20])
    write_kitti_scan(sequences, "11", "000000", None)
    camera2 = "700 0 600 44.85 0 700 180 0.2163 0 0 1 0.0027"
    lines = [f"P{k}: 700 0 600 0 0 700 180 0 0 0 1 0" for k in (0, 1)]
    lines += [f"P2: {camera2}", "P3: 700 0 600 -339 0 700 180 2 0 0 1 0"]
    lines += ["Tr: 0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27"]
    (sequences / "00" / "calib.txt").write_text("\n".join(lines) + "\n")
    (sequences / "00" / "poses.txt").write_text(
        "1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0.5 0 1 0 0 0 0 1 2\n"
    )
    return sequences


def write_nuscenes(
    root: Path,
    *,
    version: str = "v1.0-mini",
    scenes: Sequence[str] = ("scene-0061", "scene-0103"),
    points: int = 3,
    lidarseg: bool = True,
) -> dict[str, str]:
    """Scenes of two keyframes and a sweep between them; returns the keyframes' tokens by scene and number."""
    folder = root / version
    folder.mkdir(parents=True)
    (root / "samples" / "LIDAR_TOP").mkdir(parents=True, exist_ok=True)
    (root / "lidarseg" / version).mkdir(parents=True, exist_ok=True)
    tables: dict[str, list[dict[str, Any]]] = {
        "scene": [{"token": f"scene {name}", "name": name} for name in scenes],
        "sensor": [
            {"token": "lidar", "channel": "LIDAR_TOP", "modality": "lidar"},
            {"token": "front", "channel": "CAM_FRONT", "modality": "camera"},
        ],
        "calibrated_sensor": [
            {
                "token": f"mounted {name}",
                "sensor_token": name,
                "translation": [0.9, 0.0, 1.8],
                "rotation": [1.0, 0.0, 0.0, 0.0],
                "camera_intrinsic": [],
            }
            for name in ("lidar", "front")
        ],
        "sample": [],
        "sample_data": [],
        "lidarseg": [],
        "category": [
            {"token": "c0", "name": "noise", "description": "", "index": 0},
            {"token": "c17", "name": "vehicle.car", "description": "", "index": 17},
        ],
    }
    tokens = {}
    for scene in scenes:
        for number in (1, 0):  # not in order of time
            sample = f"sample {scene} {number}"
            tables["sample"].append({"token": sample, "scene_token": f"scene {scene}"})
            for sensor in ("lidar", "front", "sweep"):
                token = f"{sensor}{number}{scene}"
                is_camera = sensor == "front"
                name = (
                    f"samples/LIDAR_TOP/{token}.pcd.bin"
                    if not is_camera
                    else f"samples/{token}.jpg"
                )
                tables["sample_data"].append(
                    {
                        "token": token,
                        "sample_token": sample,
                        "ego_pose_token": token,
                        "calibrated_sensor_token": f"mounted {'front' if is_camera else 'lidar'}",
                        "timestamp": 1000 + number,
                        "is_key_frame": sensor != "sweep",
                        "filename": name,
                    }
                )
            token = f"lidar{number}{scene}"
            tokens[f"{scene} {number}"] = token
            rows = np.arange(5 * points, dtype="<f4").reshape(points, 5)
            rows[:, 3] = np.linspace(0, 255, points)
            rows.tofile(root / "samples" / "LIDAR_TOP" / f"{token}.pcd.bin")
            if lidarseg:
                labels = f"lidarseg/{version}/{token}_lidarseg.bin"
                np.array([0, 17, 30] + [24] * (points - 3), np.uint8).tofile(root / labels)
                tables["lidarseg"].append(
                    {"token": token, "sample_data_token": token, "filename": labels}
                )
    if not lidarseg:
        del tables["lidarseg"]
    for name, rows_of in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows_of, indent=0))
    return tokens
