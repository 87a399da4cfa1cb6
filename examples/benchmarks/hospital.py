"""`dinomed3d predict` beside `nnUNetv2_predict`: same checkpoints, same scans, on a CPU.

Parts (--parts, all by default):

- `ct`: a CT-like volume with 15 labels, planned at 1.5 mm: time, memory of all processes, agreement;
- `many-labels`: the same volume with 117 labels under 6 GiB;
- `agreement`: isotropic, anisotropic and 2d plans, labels and regions, with mirroring and without;
- `hippocampus`: cases per minute of 200 small scans, start-up included;
- `kills`: killed at random moments and called again, against a run that nobody disturbed.

Scans are synthetic and seeded; with --shared (a folder that holds `medical/Dataset004_Hippocampus`,
nnU-Net's raw form) the hippocampus scans are real. The networks are small and trained here for a
minute or two, so that everything around them is measured. Models, scans and the measurements of
nnU-Net's command are kept in --work; ours is measured anew by each call.

    python examples/benchmarks/hospital.py --work WORK_FOLDER --shared DATA_FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hospital_cases import copies, read_image
from hospital_inputs import SEED, TINY, Bench, Size
from hospital_kills import Killing
from hospital_measure import CELLS, Commands, compare, surroundings
from hospital_models import with_many_labels

ONE_PROCESS = ("-npp", "1", "-nps", "1")


def ct(bench: Bench) -> dict[str, Any]:
    """One large volume through both commands."""
    model, scans, out = bench.ct_model(), bench.ct_scan(), bench.folder("ct")
    run = bench.commands
    stock = run.measure_stock(scans, out / "stock", model, "--disable_tta", *ONE_PROCESS)
    rows = [["nnUNetv2_predict", *stock.cells, "", "", "", "", ""]]
    results: dict[str, Any] = {"nnUNetv2_predict": asdict(stock)}
    for precision in ("float32", "bfloat16"):
        options = ["--no-mirroring", "--precision", precision]
        ours = run.measure_ours(scans, out / precision, model, *options)
        found = compare(out / precision, out / "stock")
        shares = ours.seconds / stock.seconds, ours.memory_gib / stock.memory_gib
        mean = sum(found.dice.values()) / max(1, len(found.dice))
        numbers = [*(f"{share:.3f}" for share in shares), f"{found.equal:.5%}"]
        numbers += [f"{found.lowest:.5f}", f"{mean:.5f}"]
        rows.append([f"dinomed3d predict, {precision}", *ours.cells, *numbers])
        results[precision] = asdict(ours) | {
            "agreement": asdict(found),
            "of_stock": {"time": shares[0], "memory": shares[1]},
            "passed": found.agrees and shares[0] <= 0.5 and shares[1] <= 0.4,
        }
    header = f"command|{CELLS}|time of stock|memory of stock|equal voxels|Dice min|Dice mean"
    show(f"ct: {bench.size.ct_shape}, 15 labels", header, rows)
    return results


def many_labels(bench: Bench) -> dict[str, Any]:
    """The large volume with a label for everything, in little memory."""
    limit_gib, scans, out = 6.0, bench.ct_scan(), bench.folder("many-labels")
    count, run = bench.size.many, bench.commands
    model = with_many_labels(bench.ct_model(), bench.ct_spec(), count, bench.work / "models")
    options = ["--no-mirroring", "--precision", "float32", "--memory-limit", f"{limit_gib:g}"]
    ours = run.measure_ours(scans, out / "ours", model, *options)
    values = len(np.unique(read_image(out / "ours" / "ct.nii.gz")[0]))
    rows = [["dinomed3d predict", *ours.cells, values, ""]]
    results = asdict(ours) | {"values": values, "passed": ours.rss_gib <= limit_gib}
    if bench.stock_many:
        stock = run.measure_stock(scans, out / "stock", model, "--disable_tta", *ONE_PROCESS)
        found = compare(out / "ours", out / "stock")
        rows.append(["nnUNetv2_predict", *stock.cells, "", f"{found.equal:.5%}"])
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
    """Many small scans with the defaults of both commands."""
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
        rows.append([name, *measured.cells, f"{rate:.1f}"])
        results[name] = asdict(measured) | {"per_minute": rate}
    kind = "synthetic" if bench.shared is None else "real"
    title = f"hippocampus: {count} {kind} cases, {found.equal:.5%} of the voxels equal"
    show(title, f"command|{CELLS}|cases a minute", rows)
    return results


def kills(bench: Bench) -> dict[str, Any]:
    """Killed and called again, against an undisturbed run."""
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
    """Print a table as Markdown; `header` names the columns, with | between."""
    columns = header.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    print(f"\n{title}\n\n{text}", flush=True)


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "ct": ct,
    "many-labels": many_labels,
    "agreement": agreement,
    "hippocampus": hippocampus,
    "kills": kills,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for everything written (default: none)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, with commas between")
    parser.add_argument("--shared", type=Path, help="folder of medical/Dataset004_Hippocampus")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each command")
    parser.add_argument("--tiny", action="store_true", help="all of it in seconds, of no meaning")
    parser.add_argument("--stock-many", action="store_true", help="nnU-Net with many labels, too")
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
        run(bench, names, surroundings(args.threads) | {"seed": SEED, "tiny": args.tiny})


def run(bench: Bench, names: Sequence[str], where: dict[str, Any]) -> None:
    """The parts, one after the other; results.json keeps those of earlier calls."""
    print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)
    file = bench.work / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in names:
        results[name] = {"where": where, **PARTS[name](bench)}
        file.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
