"""What `hospital.py` measures: time and memory of a command with all its processes, and masks compared."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from hospital_cases import read_image

SAMPLE_S = 0.02
CELLS = "s|peak GiB|peak RSS GiB"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A command from its start to its end."""

    seconds: float
    rss_gib: float
    """Highest sum over its processes; pages they share are counted in each."""
    pss_gib: float | None
    """The same with shared pages counted once; None where the system does not say."""

    @property
    def memory_gib(self) -> float:
        return self.rss_gib if self.pss_gib is None else self.pss_gib

    @property
    def cells(self) -> list[str]:
        """For a table under CELLS."""
        return [f"{self.seconds:.1f}", f"{self.memory_gib:.2f}", f"{self.rss_gib:.2f}"]


@dataclass(frozen=True, kw_only=True)
class Commands:
    """The two commands, with so many threads each."""

    threads: int
    log: Path

    @property
    def env(self) -> dict[str, str]:
        threads = {f"{name}_NUM_THREADS": str(self.threads) for name in ("OMP", "MKL", "OPENBLAS")}
        return os.environ | threads | {"PYTHONWARNINGS": "ignore"}

    def ours(self, source: Path, out: Path, model: Path, *options: str) -> list[str]:
        paths = ["-i", str(source), "-o", str(out), "-m", str(model), "--device", "cpu"]
        return [sys.executable, "-m", "dinomed3d.cli.main", "predict", *paths, *options]

    def measure_ours(self, source: Path, out: Path, model: Path, *options: str) -> Measured:
        """Always anew."""
        shutil.rmtree(out, ignore_errors=True)
        return measure(self.ours(source, out, model, *options), env=self.env, log=self.log)

    def measure_stock(self, source: Path, out: Path, model: Path, *options: str) -> Measured:
        """nnU-Net's command; measured once, as it does not change while ours is worked on."""
        name = "nnUNetv2_predict_from_modelfolder"
        program = shutil.which(name, path=str(Path(sys.executable).parent)) or name
        paths = ["-i", str(source), "-o", str(out), "-m", str(model), "-f", "0"]
        command = [program, *paths, "-device", "cpu", "--disable_progress_bar", *options]
        trained = (model / "fold_0" / "checkpoint_final.pth").stat().st_mtime_ns
        key = json.dumps([command, self.threads, trained, sorted(p.name for p in source.iterdir())])
        note = out.with_name(f"{out.name}.json")
        if note.exists() and json.loads(note.read_text())["key"] == key:
            return Measured(**json.loads(note.read_text())["measured"])
        shutil.rmtree(out, ignore_errors=True)
        measured = measure(command, env=self.env, log=self.log)
        note.write_text(json.dumps({"key": key, "measured": asdict(measured)}))
        return measured


def measure(command: Sequence[str], *, env: dict[str, str], log: Path) -> Measured:
    """Run a command to its end; what it says goes to the end of `log`."""
    print(f"running: {' '.join(command)}", file=sys.stderr, flush=True)
    start = time.perf_counter()
    with open(log, "a") as stream:
        child = psutil.Popen(command, env=env, stdout=stream, stderr=subprocess.STDOUT)
        tree, looked = [child], start
        rss = pss = 0.0
        pss_after = 0.0
        while child.poll() is None:
            now = time.perf_counter()
            if now - looked > 0.25:  # looking through all processes takes milliseconds
                with contextlib.suppress(psutil.Error):
                    tree, looked = [child, *child.children(recursive=True)], now
            total = sum(_rss(process) for process in tree)
            rss = max(rss, total)
            if total > 0.85 * rss and now > pss_after:
                pss = max(pss, sum(_pss(process) for process in tree))
                # the kernel walks all pages for it: at most a twentieth of the time
                pss_after = now + 20 * (time.perf_counter() - now)
            time.sleep(SAMPLE_S)
    if child.returncode:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise SystemExit(f"hospital: {' '.join(command)} ended with {child.returncode}\n{tail}")
    seconds = time.perf_counter() - start
    return Measured(seconds=seconds, rss_gib=rss / 2**30, pss_gib=pss / 2**30 if pss else None)


def _rss(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss)
    except psutil.Error:
        return 0.0


def _pss(process: psutil.Process) -> float:
    try:
        return float(getattr(process.memory_full_info(), "pss", 0.0))
    except (psutil.Error, OSError):
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two folders of masks."""

    cases: int
    equal: float
    """Share of all voxels."""
    dice: dict[int, float]
    """Label -> over all cases together; labels that neither has are left out."""
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
    """Compare all masks of `theirs` with those of the same names; grids must be equal, too."""
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
        one = np.stack([np.bincount(v.astype(np.int64).ravel(), minlength=256) for v in (a[equal], a, b)])  # fmt: skip
        counts += one
        same, voxels = same + int(equal.sum()), voxels + equal.size
        worst = min([worst, *_dice(one).values()])
    return Agreement(cases=len(names), equal=same / voxels, dice=_dice(counts), worst=worst)


def _dice(counts: np.ndarray) -> dict[int, float]:
    both, ours, theirs = counts
    found = [k for k in range(1, len(both)) if ours[k] + theirs[k]]
    return {k: float(2 * both[k] / (ours[k] + theirs[k])) for k in found}


def surroundings(threads: int) -> dict[str, object]:
    """Where this was measured."""
    from importlib.metadata import version

    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith("model name")).split(": ")[1]
    packages = ("dinomed3d", "nnunetv2", "torch", "numpy", "SimpleITK", "psutil")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "threads": threads,
        **{name: version(name) for name in packages},
    }
