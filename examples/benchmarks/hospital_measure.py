"""The two commands that `hospital.py` compares, and the comparison of their masks."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from command import Measured, measure, program
from hospital_scans import read_image

CELLS = "s|peak GiB|peak RSS GiB"


def cells(measured: Measured) -> list[str]:
    """For a table under CELLS."""
    numbers = (measured.memory_gib, measured.rss_gib)
    return [f"{measured.seconds:.1f}", *(f"{number:.2f}" for number in numbers)]


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Both commands, each with the same number of threads."""

    threads: int
    log: Path
    device: str = "cpu"

    @property
    def env(self) -> dict[str, str]:
        threads = {f"{name}_NUM_THREADS": str(self.threads) for name in ("OMP", "MKL", "OPENBLAS")}
        return os.environ | threads | {"PYTHONWARNINGS": "ignore"}

    def ours(self, source: Path, out: Path, model: Path, *options: str) -> list[str]:
        paths = ["-i", str(source), "-o", str(out), "-m", str(model)]
        command = [sys.executable, "-m", "dinomed3d.cli.main", "predict"]
        return [*command, *paths, "--device", self.device, *options]

    def measure_ours(self, source: Path, out: Path, model: Path, *options: str) -> Measured:
        """Measured in every call."""
        shutil.rmtree(out, ignore_errors=True)
        return measure(self.ours(source, out, model, *options), env=self.env, log=self.log)

    def measure_stock(self, source: Path, out: Path, model: Path, *options: str) -> Measured:
        """nnU-Net's command; measured once, as it does not change while ours does."""
        paths = ["-i", str(source), "-o", str(out), "-m", str(model), "-f", "0"]
        name = program("nnUNetv2_predict_from_modelfolder")
        command = [name, *paths, "-device", self.device, "--disable_progress_bar", *options]
        trained = (model / "fold_0" / "checkpoint_final.pth").stat().st_mtime_ns
        key = json.dumps([command, self.threads, trained, sorted(p.name for p in source.iterdir())])
        note = out.with_name(f"{out.name}.json")
        if note.exists() and json.loads(note.read_text())["key"] == key:
            return Measured(**json.loads(note.read_text())["measured"])
        shutil.rmtree(out, ignore_errors=True)
        measured = measure(command, env=self.env, log=self.log)
        note.write_text(json.dumps({"key": key, "measured": asdict(measured)}))
        return measured


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two folders of masks agree."""

    cases: int
    equal: float
    """Share of all voxels."""
    dice: dict[int, float]
    """By label, over all cases together; labels that neither folder has are left out."""
    worst: float
    """Lowest Dice of one label in one case."""

    @property
    def lowest(self) -> float:
        """Dice of the label that agrees least."""
        return min(self.dice.values(), default=1.0)

    @property
    def agrees(self) -> bool:
        return self.equal >= 0.9999 and self.lowest >= 0.999


def compare(ours: Path, theirs: Path) -> Agreement:
    """Compare all masks of `theirs` with those of the same names; the grids must be equal, too."""
    names = sorted(path.name for path in theirs.glob("*.nii.gz"))
    if not names:
        raise SystemExit(f"hospital: no masks in {theirs}")
    same = voxels = 0
    worst, counts = 1.0, np.zeros((3, 256), np.int64)  # in both, in ours, in theirs
    for name in names:
        (a, spacing), (b, wanted) = read_image(ours / name), read_image(theirs / name)
        if a.shape != b.shape or not np.allclose(spacing, wanted):
            raise SystemExit(f"hospital: {ours / name} is not on the grid of {theirs / name}")
        equal = a == b
        masks = (a[equal], a, b)
        case = np.stack([np.bincount(v.astype(np.int64).ravel(), minlength=256) for v in masks])
        counts += case
        same, voxels = same + int(equal.sum()), voxels + equal.size
        worst = min([worst, *_dice(case).values()])
    return Agreement(cases=len(names), equal=same / voxels, dice=_dice(counts), worst=worst)


def _dice(counts: np.ndarray) -> dict[int, float]:
    both, ours, theirs = counts
    found = [k for k in range(1, len(both)) if ours[k] + theirs[k]]
    return {k: float(2 * both[k] / (ours[k] + theirs[k])) for k in found}
