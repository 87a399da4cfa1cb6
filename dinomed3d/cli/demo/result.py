"""What the demo made: scores that its commands wrote, and where its files are."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dinomed3d.cli.demo.phantom import LABELS


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo made."""

    dice: Mapping[str, float]
    """Mean over the test cases, by label name."""
    masks: tuple[Path, ...]
    overlay: Path
    room_miou: float
    """Mean IoU of rooms that were not trained on, one point per voxel."""
    room: Path
    """Picture of one of them: truth, prediction, errors."""
    report_page: Path
    """What `dinomed3d predict` reports of the test cases."""
    seconds: float

    def report(self) -> str:
        """Return a small table of Dice, and the paths."""
        width = max(len(name) for name in (*self.dice, "label"))
        mean = sum(self.dice.values()) / len(self.dice)
        rows = [(name, f"{value:.3f}") for name, value in (*self.dice.items(), ("mean", mean))]
        table = [f"{name:<{width}}  {value:>5}" for name, value in (("label", "Dice"), *rows)]
        return "\n".join(
            [
                f"{len(self.masks)} unseen test cases, {self.seconds:.0f} s",
                "",
                *table,
                "",
                "masks:",
                *(f"  {path}" for path in self.masks),
                f"overlay: {self.overlay}",
                "",
                f"point clouds of rooms: val_voxel_miou {self.room_miou:.3f}",
                f"room: {self.room}",
                "",
                f"report of the prediction, for a browser: {self.report_page}",
            ]
        )


def read_dice(summary: Path) -> dict[str, float]:
    """Read the mean Dice of each foreground label from nnU-Net's ``summary.json``."""
    mean = json.loads(summary.read_text())["mean"]
    return {name: float(mean[str(v)]["Dice"]) for name, v in LABELS.items() if v != 0}


def read_miou(metrics: Path) -> float:
    """Read the last validation from ``metrics.csv`` of ``pointseg-train``."""
    with metrics.open(newline="") as file:
        found = [row["val_voxel_miou"] for row in csv.DictReader(file) if row["val_voxel_miou"]]
    return float(found[-1])
