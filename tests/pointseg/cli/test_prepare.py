"""pointseg-prepare: what it prints, how it ends."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from pointseg.cli.prepare import image_size, main
from pointseg.datasets import open_dataset
from tests.pointseg.datasets.official import (
    object_rows,
    write_kitti,
    write_nuscenes,
    write_room,
    write_scan,
    write_scannet,
    write_sens,
)
from tests.pointseg.datasets.official_images import add_cameras, write_picture
from tests.pointseg.datasets.s3dis.test_images import write_image
from tests.pointseg.datasets.structured3d import box_room
from tests.pointseg.datasets.waymo import drive


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_scannet_twice_and_again_with_what_was_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_scannet(raw)
    scan = write_scan(raw, "scene0001_00", groups=None)
    command = ("--dataset", "scannet", "--source", raw, "--out", out, "--workers", 1)
    assert run(*command) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == ["train    1 ready", "val      1 ready"]
    assert "pointseg-prepare: 1 failed" in printed.err
    assert "  train/scene0001_00: " in printed.err and "has no labels" in printed.err

    write_scan(raw, scan.name)
    assert run(*command) == 0
    printed = capsys.readouterr()
    assert "3 were ready before" in printed.err and "failed" not in printed.err
    assert f"prepared {out}" in printed.out
    # One preparation serves both class lists, under either name.
    assert run(*("scannet200" if a == "scannet" else a for a in command)) == 0
    assert open_dataset("scannet200", out).scenes("train") == ("scene0000_00", "scene0001_00")


def test_the_other_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_room(tmp_path / "s3dis", "Area_1", "office_1", {"floor_1": object_rows(30)})
    write_kitti(tmp_path / "semantickitti")
    write_nuscenes(tmp_path / "nuscenes")
    for name, options in (
        ("s3dis", ("--normals", "none")),
        ("semantickitti", ()),
        ("nuscenes", ("--version", "v1.0-mini")),
    ):
        out = tmp_path / "out" / name
        assert run("--dataset", name, "--source", tmp_path / name, "--out", out, *options) == 0
        dataset = open_dataset(name, out)
        split = dataset.splits()[0]
        assert "segment" in dataset.load(split, dataset.scenes(split)[0])
    assert "Area_2: is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--source", "nowhere"), "--source nowhere: "),
        (("--source", "{raw}", "--align"), "--align: is only for --dataset s3dis"),
        (("--source", "{raw}", "--frames", "list"), "--frames: is only for --dataset waymo"),
        (("--source", "{raw}", "--normals", "none"), "--normals: is only for --dataset s3dis"),
        (("--source", "{raw}", "--version", "x"), "--version: is only for --dataset nuscenes"),
        (
            ("--source", "{raw}", "--image-size", "9x9"),
            "--image-size: is only for --dataset scannet",
        ),
        (("--source", "{raw}", "--images", "nowhere"), "--images nowhere: "),
        (
            ("--source", "{raw}", "--images", "--dataset", "s3dis"),
            "--images: ",
        ),
        (("--source", "{raw}", "--out", "{file}"), "--out "),
        (("--source", "{raw}"), "must be the folder of ScanNet's download"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "file").touch()
    places = {"raw": tmp_path / "raw", "file": tmp_path / "file"}
    given = [argument.format(**places) for argument in arguments]
    code = run("--dataset", "scannet", "--out", tmp_path / "out", *given)
    printed = capsys.readouterr().err
    assert code == 2 and printed.startswith("pointseg-prepare: ") and message in printed
    assert printed.count("\n") == 1


def test_images_are_prepared_where_they_are_asked_for(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_scannet(raw / "scannet")
    pixels, depth = np.zeros((9, 12, 3), np.uint8), np.full((9, 12), 1000, np.uint16)
    intrinsics = np.array([[9.0, 0, 6], [0, 9, 4.5], [0, 0, 1]])
    write_sens(
        raw / "scannet/scans/scene0000_00/scene0000_00.sens",
        [(np.eye(4), pixels, depth)],
        intrinsics=(intrinsics, intrinsics),
    )
    write_kitti(raw / "semantickitti")
    write_picture(tmp_path / "color" / "sequences" / "00" / "image_2" / "000000.png", 360, 1200)
    write_nuscenes(raw / "nuscenes")
    add_cameras(raw / "nuscenes", "v1.0-mini", lidar=(np.eye(4), np.eye(4)), cameras={})
    write_room(raw / "s3dis", "Area_1", "office_1", {"floor_1": object_rows(30)})
    write_image(tmp_path / "2d3ds", "area_1", "office_1")
    box_room.write_room(raw / "structured3d")
    drive.write_drive(raw / "waymo")
    for name, options, scene, views in (
        (
            "scannet",
            ("--images", "--image-size", "native", "--workers", 1),
            ("train", "scene0000_00"),
            1,
        ),
        ("semantickitti", ("--images", tmp_path / "color"), ("train", "00/000000"), 1),
        ("nuscenes", ("--images",), ("train", "lidar0scene-0061"), 0),
        (
            "s3dis",
            ("--normals", "none", "--images", tmp_path / "2d3ds", "--workers", 1),
            ("Area_1", "office_1"),
            0,
        ),
        (
            "structured3d",
            ("--images", "--workers", 1),
            ("train", "scene_00000_room_485142"),
            3,
        ),
        ("waymo", ("--images", "--workers", 1), ("train", f"{drive.SEGMENT}/{drive.TIMES[0]}"), 5),
    ):
        out = tmp_path / "out" / name
        assert run("--dataset", name, "--source", raw / name, "--out", out, *options) == 0
        frames = open_dataset(name, out).frames(*scene)  # type: ignore[attr-defined]
        assert len(frames) == views, name
        if name == "scannet":
            assert frames[0].camera.size == (9, 12)


def test_sizes_of_images() -> None:
    assert image_size("480x640") == (480, 640) and image_size("native") == "native"
    for wrong in ("480", "0x5", "x", "4x-5"):
        with pytest.raises(argparse.ArgumentTypeError, match="height x width"):
            image_size(wrong)


def test_a_place_that_cannot_be_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scannet(tmp_path / "raw")
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert run("--dataset", "scannet", "--source", tmp_path / "raw", "--out", out) == 2
    printed = capsys.readouterr().err
    assert "file" in printed and printed.count("\n") == 1
