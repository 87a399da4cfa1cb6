"""What the demo prints in the end, and where its scores come from."""

from __future__ import annotations

import json
from pathlib import Path

from dinomed3d.cli.demo.result import DemoResult, read_dice, read_miou


def test_report_lists_dice_and_paths(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    dice = {"1": {"Dice": 0.9}, "2": {"Dice": 0.8}, "3": {"Dice": 0.7}}
    summary.write_text(json.dumps({"mean": dice}))
    assert read_dice(summary) == {"organ": 0.9, "vessel": 0.8, "wall": 0.7}
    result = DemoResult(
        dice=read_dice(summary),
        masks=(tmp_path / "a.nii.gz",),
        overlay=tmp_path / "overlay.png",
        room_miou=0.25,
        room=tmp_path / "room.png",
        report_page=tmp_path / "report.html",
        seconds=61.4,
    )
    assert result.report().splitlines() == [
        "1 unseen test cases, 61 s",
        "",
        "label    Dice",
        "organ   0.900",
        "vessel  0.800",
        "wall    0.700",
        "mean    0.800",
        "",
        "masks:",
        f"  {tmp_path / 'a.nii.gz'}",
        f"overlay: {tmp_path / 'overlay.png'}",
        "",
        "point clouds of rooms: val_voxel_miou 0.250",
        f"room: {tmp_path / 'room.png'}",
        "",
        f"report of the prediction, for a browser: {tmp_path / 'report.html'}",
    ]


def test_miou_is_the_last_one(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,loss,val_voxel_miou\n5,1.0,0.1\n10,0.9,0.2\n11,0.9,\n")
    assert read_miou(metrics) == 0.2
