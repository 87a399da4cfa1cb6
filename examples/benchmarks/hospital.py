"""`dinomed3d predict` compared with `nnUNetv2_predict`: same checkpoints, same scans, on a CPU.

Parts (--parts, all by default):

- `ct`: a CT-like volume with 15 labels, planned at 1.5 mm: time, memory of all processes, agreement;
- `many-labels`: the same volume with 117 labels in at most 6 GiB;
- `agreement`: isotropic, anisotropic and 2d plans, labels and regions, with and without mirroring;
- `hippocampus`: cases per minute for 200 small scans, start-up included;
- `kills`: killed at random moments and called again, compared with an undisturbed run.

Scans are synthetic and seeded; with --shared (a folder that holds `medical/Dataset004_Hippocampus`,
nnU-Net's raw format) the hippocampus scans are real. The networks are small and trained here for a
minute or two, so that mostly the rest of the pipeline is measured. Models, scans and the measurements of
nnU-Net's command are kept in --work; ours is measured in every call.

    python examples/benchmarks/hospital.py --work WORK_FOLDER --shared DATA_FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import machine
from hospital_kills import Killing
from hospital_measure import CELLS, Commands, cells, compare
from hospital_models import ModelSpec, Pair, train_model, with_many_labels
from hospital_scans import Organ, atlas, copies, read_image, scan, write_image
from markdown import table

PACKAGES = ("dinomed3d", "nnunetv2", "torch", "numpy", "SimpleITK", "psutil")
ONE_PROCESS = ("-npp", "1", "-nps", "1")
SEED = 0
# Kind of plan, with regions, with mirroring.
AGREEMENT = tuple(
    (name, regions, mirrored)
    for name in ("isotropic", "anisotropic", "2d", "hippocampus")
    for regions in (False, True)[: 1 if name == "hippocampus" else 2]
    for mirrored in (True, False)
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of all parts."""

    ct_shape: tuple[int, int, int] = (200, 512, 512)
    ct_spacing_mm: tuple[float, float, float] = (1.5, 0.8, 0.8)
    ct_planned_mm: float = 1.5
    ct_patch: int = 96
    ct_training_patch: int = 48
    ct_steps: int = 1200
    many: int = 117
    small_steps: int = 250
    cases: int = 4
    agreement: tuple[tuple[str, bool, bool], ...] = AGREEMENT
    copies: int = 200
    kill_cases: int = 30
    kills: tuple[int, int, int] = (20, 5, 5)
    """Kills of all processes, of the command alone, of the worker alone."""


TINY = Size(
    ct_shape=(40, 64, 64),
    ct_spacing_mm=(7.5, 6.4, 6.4),
    ct_planned_mm=7.5,
    ct_patch=32,
    ct_training_patch=24,
    ct_steps=2,
    many=20,
    small_steps=2,
    cases=1,
    agreement=(("isotropic", True, True),),
    copies=2,
    kill_cases=2,
    kills=(1, 0, 1),
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Folders, sizes and commands of one benchmark."""

    work: Path
    size: Size
    commands: Commands
    shared: Path | None
    stock_many: bool

    def folder(self, name: str) -> Path:
        """The output folder of one part."""
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        return folder

    def ct_scan(self) -> Path:
        """Folder of the large scan."""
        folder, size = self.work / "scans" / "ct", self.size
        if not folder.exists():
            image, _ = scan(
                size.ct_shape, size.ct_spacing_mm, atlas(15, pieces=4, seed=SEED), seed=1
            )
            write_image(folder / "ct_0000.nii.gz", image, size.ct_spacing_mm)
        return folder

    def ct_spec(self) -> ModelSpec:
        size = self.size
        return ModelSpec(
            name="ct",
            labels=15,
            spacing_mm=(size.ct_planned_mm,) * 3,
            patch=(size.ct_patch,) * 3,
            training_patch=(size.ct_training_patch,) * 3,
            steps=size.ct_steps,
            seed=SEED,
        )

    def ct_model(self, device: torch.device | str = "cpu") -> Path:
        """Model trained on other patients at the planned spacing, on a device."""
        size, mm = self.size, self.size.ct_planned_mm
        extents = zip(size.ct_shape, size.ct_spacing_mm, strict=True)
        shape = tuple(round(n * s / mm) for n, s in extents)
        organs = atlas(15, pieces=4, seed=SEED)
        pairs = [(*scan(shape, (mm,) * 3, organs, seed=100 + i), (mm,) * 3) for i in range(2)]
        return train_model(self.ct_spec(), pairs, self.work / "models", device)

    def small(self, name: str, *, regions: bool = False) -> tuple[Path, Path]:
        """Model and folder of scans of one kind of plan."""
        spec, spacing_mm = KINDS[name]
        spec = replace(spec, steps=self.size.small_steps, seed=SEED, regions=regions)
        spec = replace(spec, name=f"{name}-regions" if regions else name)
        scans = self.work / "scans" / name
        if name == "hippocampus" and self.shared is not None:
            return self._real(spec, self.shared / "medical" / "Dataset004_Hippocampus")
        extent_mm = (36, 50, 36) if name == "hippocampus" else (128, 112, 112)
        organs = atlas(spec.labels, pieces=1 if name == "hippocampus" else 3, seed=SEED)
        pairs = [_scan_of(extent_mm, spacing_mm, organs, seed=100 + i) for i in range(3)]
        for i in [] if scans.exists() else range(self.size.cases):
            # the first at the planned spacing, the others finer along some axes and coarser along others
            factors = [1 + 0.35 * ((i * (axis + 1)) % 4 - 1) * (i > 0) for axis in range(3)]
            spacing = [mm * factor for mm, factor in zip(spacing_mm, factors, strict=True)]
            image, _, _ = _scan_of(extent_mm, spacing, organs, seed=10 + i)
            write_image(scans / f"{name}{i}_0000.nii.gz", image, spacing)
        return train_model(spec, pairs, self.work / "models"), scans

    def _real(self, spec: ModelSpec, dataset: Path) -> tuple[Path, Path]:
        """Model trained on real cases, and scans of other cases."""
        pairs: list[Pair] = []
        for path in sorted((dataset / "labelsTr").glob("*.nii.gz"))[:60]:
            image = dataset / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz")
            voxels, spacing = read_image(image)
            pairs.append((voxels, read_image(path)[0].round(), spacing))
        scans = self.work / "scans" / "hippocampus-real"
        found = sorted((dataset / "imagesTs").glob("*.nii.gz"))
        copies(found, scans, min(len(found), 10 * self.size.cases))
        return train_model(spec, pairs, self.work / "models"), scans


def _scan_of(
    extent_mm: Sequence[float], spacing: Sequence[float], organs: Sequence[Organ], *, seed: int
) -> Pair:
    shape = tuple(max(8, round(e / s)) for e, s in zip(extent_mm, spacing, strict=True))
    return (*scan(shape, spacing, organs, seed=seed), spacing)


# Plan, and the spacing of its scans (z, y, x). The anisotropic scans have their thick slices along the
# last axis; the plan transposes it to the front, as nnU-Net's planner does.
KINDS: dict[str, tuple[ModelSpec, tuple[float, float, float]]] = {
    "isotropic": (
        ModelSpec(name="isotropic", labels=5, patch=(48, 48, 48), features=(8, 16, 32)),
        (1.5, 1.5, 1.5),
    ),
    "anisotropic": (
        ModelSpec(
            name="anisotropic",
            labels=5,
            patch=(12, 64, 64),
            spacing_mm=(5.0, 1.2, 1.2),
            transpose=(2, 0, 1),
            thick_stages=1,
            features=(8, 16, 32),
        ),
        (1.2, 1.2, 5.0),
    ),
    "2d": (
        ModelSpec(name="2d", labels=5, patch=(64, 64), spacing_mm=(1.2, 1.2), features=(8, 16, 32)),
        (5.0, 1.2, 1.2),
    ),
    "hippocampus": (
        ModelSpec(
            name="hippocampus",
            labels=2,
            patch=(40, 56, 40),
            spacing_mm=(1.0, 1.0, 1.0),
            normalization="ZScoreNormalization",
            features=(16, 32, 64),
        ),
        (1.0, 1.0, 1.0),
    ),
}


def ct(bench: Bench) -> dict[str, Any]:
    """One large volume through both commands."""
    model, scans, out = bench.ct_model(), bench.ct_scan(), bench.folder("ct")
    run = bench.commands
    stock = run.measure_stock(scans, out / "stock", model, "--disable_tta", *ONE_PROCESS)
    rows = [["nnUNetv2_predict", *cells(stock), "", "", "", "", ""]]
    results: dict[str, Any] = {"nnUNetv2_predict": asdict(stock)}
    for precision in ("float32", "bfloat16"):
        options = ["--no-mirroring", "--precision", precision]
        ours = run.measure_ours(scans, out / precision, model, *options)
        found = compare(out / precision, out / "stock")
        shares = ours.seconds / stock.seconds, ours.memory_gib / stock.memory_gib
        mean = sum(found.dice.values()) / max(1, len(found.dice))
        numbers = [*(f"{share:.3f}" for share in shares), f"{found.equal:.5%}"]
        numbers += [f"{found.lowest:.5f}", f"{mean:.5f}"]
        rows.append([f"dinomed3d predict, {precision}", *cells(ours), *numbers])
        results[precision] = asdict(ours) | {
            "agreement": asdict(found),
            "of_stock": {"time": shares[0], "memory": shares[1]},
            "passed": found.agrees and shares[0] <= 0.5 and shares[1] <= 0.4,
        }
    header = f"command|{CELLS}|time of stock|memory of stock|equal voxels|Dice min|Dice mean"
    show(f"ct: {bench.size.ct_shape}, 15 labels", header, rows)
    return results


def many_labels(bench: Bench) -> dict[str, Any]:
    """The large volume with many labels, in little memory."""
    limit_gib, scans, out = 6.0, bench.ct_scan(), bench.folder("many-labels")
    count, run = bench.size.many, bench.commands
    model = with_many_labels(bench.ct_model(), bench.ct_spec(), count, bench.work / "models")
    options = ["--no-mirroring", "--precision", "float32", "--memory-limit", f"{limit_gib:g}"]
    ours = run.measure_ours(scans, out / "ours", model, *options)
    values = len(np.unique(read_image(out / "ours" / "ct.nii.gz")[0]))
    rows = [["dinomed3d predict", *cells(ours), values, ""]]
    results = asdict(ours) | {"values": values, "passed": ours.rss_gib <= limit_gib}
    if bench.stock_many:
        stock = run.measure_stock(scans, out / "stock", model, "--disable_tta", *ONE_PROCESS)
        found = compare(out / "ours", out / "stock")
        rows.append(["nnUNetv2_predict", *cells(stock), "", f"{found.equal:.5%}"])
        results |= {"nnUNetv2_predict": asdict(stock), "agreement": asdict(found)}
    header = f"command|{CELLS}|values in the mask|equal voxels"
    show(f"many-labels: {count} labels, limit {limit_gib:g} GiB", header, rows)
    return results


def agreement(bench: Bench) -> dict[str, Any]:
    """Masks of both commands for all kinds of plans."""
    rows, results = [], {}
    for name, regions, mirrored in bench.size.agreement:
        model, scans = bench.small(name, regions=regions)
        title = f"{name}{', regions' * regions}{', mirrored' * mirrored}"
        out = bench.folder("agreement") / title.replace(", ", "-")
        out.mkdir(exist_ok=True)
        stock, ours = ([], []) if mirrored else (["--disable_tta"], ["--no-mirroring"])
        bench.commands.measure_stock(scans, out / "stock", model, *stock)
        bench.commands.measure_ours(scans, out / "ours", model, "--precision", "float32", *ours)
        found = compare(out / "ours", out / "stock")
        numbers = [f"{found.equal:.5%}", f"{found.lowest:.5f}", f"{found.worst:.5f}"]
        passed = "yes" if found.agrees else "NO"
        rows.append([title, found.cases, len(found.dice), *numbers, passed])
        results[title] = {**asdict(found), "passed": found.agrees}
    header = "plan|cases|labels|equal voxels|Dice min|in the worst case|passed"
    show("agreement: at least 99.99 % of the voxels, Dice 0.999 per label", header, rows)
    return results


def hippocampus(bench: Bench) -> dict[str, Any]:
    """Many small scans, both commands with their defaults."""
    model, sources = bench.small("hippocampus")
    scans, out = bench.work / "scans" / "hippocampus-many", bench.folder("hippocampus")
    count = bench.size.copies
    copies(sorted(sources.glob("*.nii.gz")), scans, count)
    stock = bench.commands.measure_stock(scans, out / "stock", model, "-npp", "3", "-nps", "3")
    ours = bench.commands.measure_ours(scans, out / "ours", model)
    found = compare(out / "ours", out / "stock")
    rows, results = [], {"agreement": asdict(found)}
    for name, measured in {"nnUNetv2_predict": stock, "dinomed3d predict": ours}.items():
        rate = 60 * count / measured.seconds
        rows.append([name, *cells(measured), f"{rate:.1f}"])
        results[name] = asdict(measured) | {"per_minute": rate}
    kind = "synthetic" if bench.shared is None else "real"
    title = f"hippocampus: {count} {kind} cases, {found.equal:.5%} of the voxels equal"
    show(title, f"command|{CELLS}|cases a minute", rows)
    return results


def kills(bench: Bench) -> dict[str, Any]:
    """Killed and called again, compared with an undisturbed run."""
    model, sources = bench.small("hippocampus")
    scans, out = bench.work / "scans" / "kills", bench.folder("kills")
    copies(sorted(sources.glob("*.nii.gz")), scans, bench.size.kill_cases)
    whole = bench.commands.measure_ours(scans, out / "whole", model)
    killing = Killing(
        commands=bench.commands,
        source=scans,
        model=model,
        out=out / "killed",
        whole=out / "whole",
        length_s=whole.seconds,
        seed=SEED,
    )
    results = killing.run(*bench.size.kills)
    header = "kills of all processes|of the command|of the worker|outputs compared|problems"
    rows = [[*bench.size.kills, killing.outputs, len(killing.problems)]]
    title = f"kills: {bench.size.kill_cases} cases, undisturbed {whole.seconds:.1f} s"
    show("\n".join([title, *killing.problems]), header, rows)
    return results | {"undisturbed": asdict(whole), "passed": not killing.problems}


def show(title: str, header: str, rows: Sequence[Sequence[object]]) -> None:
    """Print a table under its title."""
    print(f"\n{title}\n\n{table(header, rows)}", flush=True)


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "ct": ct,
    "many-labels": many_labels,
    "agreement": agreement,
    "hippocampus": hippocampus,
    "kills": kills,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, help="folder for all output (default: a temporary one)"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--shared", type=Path, help="folder of medical/Dataset004_Hippocampus")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of each command"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="everything tiny: a test of this script"
    )
    parser.add_argument(
        "--stock-many", action="store_true", help="measure nnU-Net with many labels, too"
    )
    args = parser.parse_args()
    names = args.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--parts: {', '.join(unknown)} is none of {', '.join(PARTS)}")
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary) if args.work is None else args.work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        commands = Commands(threads=args.threads, log=work / "log.txt")
        bench = Bench(
            work=work,
            size=TINY if args.tiny else Size(),
            commands=commands,
            shared=args.shared,
            stock_many=args.stock_many,
        )
        run(
            bench,
            names,
            machine(*PACKAGES) | {"threads": args.threads, "seed": SEED, "tiny": args.tiny},
        )


def run(bench: Bench, names: Sequence[str], where: dict[str, Any]) -> None:
    """Run the parts; results.json keeps those of earlier calls."""
    print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)
    file = bench.work / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in names:
        results[name] = {"where": where, **PARTS[name](bench)}
        file.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
