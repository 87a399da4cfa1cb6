"""Small networks on real clouds through pointseg's own commands: train, then test every point.

Parts (--parts, both by default):

- `tabletop`: 16 RGB-D scenes to train on, 8 to test; classes table, box, cylinder;
- `lidar`: one labelled LiDAR scan in SemanticKITTI's format; the half to the left of the car is for training,
  the half to its right for testing. It shows that the pipeline works, not how good a network is.

    python examples/benchmarks/real_clouds.py --data FOLDER --work WORK

FOLDER has `tabletop_rgbd` (`train/*.pcd`, `test/*.pcd`) and `semantickitti_scan` (`000000.bin` and
`.label`). `--tiny` makes up both instead.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import numpy as np
from markdown import table

from pointseg.files import write_cloud
from pointseg.scene import Scene

BACKBONES = ("ptv3", "minkunet", "pointnext")
TABLETOP = Path(__file__).parents[1] / "tabletop.yaml"
EPOCHS = {"tabletop": 30, "lidar": 60}
RECIPE = {
    "tabletop": (
        "max_points=20000",
        "batch_size=2",
        "mix3d=0",
        "augmentation.elastic_probability=0",
    ),
    "lidar": ("batch_size=1", "mix3d=0", "voxel_m=0.1", "max_points=40000"),
}


def run(command: str, *words: str) -> None:
    """Run one of pointseg's commands, in this process; its progress goes to stderr."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        code = import_module(f"pointseg.cli.{command}").main(words)
    if code:
        raise SystemExit(f"failed: pointseg-{command} {' '.join(words)}")


def made_up_scenes(folder: Path) -> None:
    """Write organised clouds in the format of the real ones, two to train on and two to test."""
    rng = np.random.default_rng(0)
    height, width, focal = 48, 64, 52.5
    v, u = np.mgrid[:height, :width].astype(np.float64)
    for name in ("train/learn0", "train/learn33", "test/test0", "test/test31"):
        depth = rng.uniform(0.8, 0.9, (height, width))
        sides = (u - width / 2 + 0.5, v - height / 2 + 0.5)
        coord = np.stack([side * depth / focal for side in sides] + [depth], -1).reshape(-1, 3)
        labels = np.where(u.ravel() < 40, 1, 20).astype(np.int32)
        color = rng.uniform(0, 255, (height * width, 3)).astype(np.float32)
        path = folder / f"{name}.pcd"
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = {"color": color, "label": labels}
        scene = Scene(coord=coord.astype(np.float32), fields=fields, name=path.stem)
        write_cloud(path, scene)
        head, data = path.read_bytes().split(b"DATA ", 1)
        head = head.replace(b"WIDTH %d" % (height * width), b"WIDTH %d" % width)
        path.write_bytes(head.replace(b"HEIGHT 1", b"HEIGHT %d" % height) + b"DATA " + data)


def made_up_scan(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    points = rng.uniform(-10, 10, (4000, 4)).astype("<f4")
    points[:, 2:] = rng.uniform(0, 1, (4000, 2))
    points.tofile(folder / "000000.bin")
    np.where(points[:, 2] > 0.5, 70, 40).astype("<u4").tofile(folder / "000000.label")


def split_scan(scan: Path, out: Path) -> None:
    """Write the left half as sequence 00 (training) and the right half as 08 (validation)."""
    points = np.fromfile(scan / "000000.bin", "<f4").reshape(-1, 4)
    labels = np.fromfile(scan / "000000.label", "<u4")
    left = points[:, 1] > 0  # azimuths of 0 to 180 degrees
    for sequence, half in (("00", left), ("08", ~left)):
        folder = out / "sequences" / sequence
        (folder / "velodyne").mkdir(parents=True, exist_ok=True)
        (folder / "labels").mkdir(exist_ok=True)
        points[half].tofile(folder / "velodyne" / "000000.bin")
        labels[half].tofile(folder / "labels" / "000000.label")


def measure(part: str, backbone: str, data: Sequence[str], out: Path, epochs: int) -> list[str]:
    """Train and test once; a row of the table."""
    changes = [f"epochs={epochs}", "evaluations=3", *RECIPE[part]]
    words = [word for change in changes for word in ("--override", change)]
    small = ("--backbone", backbone, "--model-size", "small", "--device", "cpu", "--workers", "1")
    began = time.monotonic()
    run("train", *data, *small, "--out", str(out), "--overwrite", *words)
    minutes = (time.monotonic() - began) / 60
    began = time.monotonic()
    run("test", "-m", str(out / "best.pt"), *data, "--device", "cpu", "--overwrite")
    seconds = time.monotonic() - began
    found = json.loads((out / "test" / "metrics.json").read_text())
    with (out / "metrics.csv").open(newline="") as file:
        voxel = [row["val_voxel_miou"] for row in csv.DictReader(file) if row["val_voxel_miou"]]
    each = ", ".join(f"{n} {v:.3f}" for n, v in found["test_point_iou"].items() if v is not None)
    numbers = (found["test_point_miou"], found["test_point_miou_present"], float(voxel[-1]))
    return [backbone, f"{minutes:.1f}", f"{seconds:.0f}", *(f"{n:.3f}" for n in numbers), each]


def tabletop(data: Path, work: Path, backbones: Sequence[str], epochs: int) -> None:
    words = (
        "--dataset",
        "folder",
        "--root",
        str(data / "tabletop_rgbd"),
        "--config",
        str(TABLETOP),
    )
    rows = [
        measure("tabletop", name, words, work / f"tabletop-{name}", epochs) for name in backbones
    ]
    show("tabletop: 8 test scenes", rows)


def lidar(data: Path, work: Path, backbones: Sequence[str], epochs: int) -> None:
    halves, prepared = work / "halves", work / "prepared"
    split_scan(data / "semantickitti_scan", halves)
    names = ("--dataset", "semantickitti")
    run("prepare", *names, "--source", str(halves), "--out", str(prepared))
    words = (*names, "--root", str(prepared))
    rows = [measure("lidar", name, words, work / f"lidar-{name}", epochs) for name in backbones]
    show("lidar: the right half of one scan", rows)


def show(title: str, rows: Sequence[Sequence[str]]) -> None:
    header = "backbone|training, min|test, s|test_point_miou|of present classes|val_voxel_miou|IoU by class"
    print(f"\n{title}\n\n{table(header, rows)}", flush=True)


PARTS = {"tabletop": tabletop, "lidar": lidar}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of tabletop_rgbd and semantickitti_scan")
    parser.add_argument(
        "--work", type=Path, help="folder for all output (default: a temporary one)"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--backbones", default=",".join(BACKBONES), help="comma-separated")
    parser.add_argument("--epochs", type=int, help="passes over the training scenes")
    parser.add_argument(
        "--tiny", action="store_true", help="made-up clouds, one epoch: a test of this script"
    )
    args = parser.parse_args()
    if (args.data is None) != args.tiny:
        parser.error("give --data FOLDER, or --tiny")
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        data = args.data
        if args.tiny:
            data = Path(temporary) / "made-up"
            made_up_scenes(data / "tabletop_rgbd")
            made_up_scan(data / "semantickitti_scan")
        for name in args.parts.split(","):
            epochs = args.epochs or (1 if args.tiny else EPOCHS[name])
            PARTS[name](data.resolve(), work, args.backbones.split(","), epochs)


if __name__ == "__main__":
    main()
