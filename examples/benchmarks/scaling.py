"""Time and memory of predictions over three sizes of clouds and of volumes, as tables and one picture.

Clouds are made-up airborne scans, written piece by piece; `pointseg-predict --stream` predicts them with a tiny
MinkUNet of random weights, so that mostly the rest of the way is measured, and without `--stream` as long as they
are small. Volumes are made-up CTs under a small network, through `dinomed3d predict`. All results stay in --work:
what was measured is not measured again, and a prediction that was stopped goes on.

    python examples/benchmarks/scaling.py --work WORK_FOLDER
    python examples/benchmarks/scaling.py --work WORK_FOLDER --points 200e6   # takes hours and 20 GB of disk
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import laspy
import numpy as np
from command import Measured, machine, measure, program
from markdown import table

PIECE = 1_000_000
DENSITY = 8.0
"""Points of a square metre, as national scans have."""
SIZES = (200_000, 2_000_000, 20_000_000)
SHAPES = ((64, 192, 192), (96, 320, 320), (200, 512, 512))
LIMIT_GIB = 6.0
"""What no process may take of memory, in streams."""
CLASSES = ("ground", "plants", "building", "water")


def made_piece(rng: np.random.Generator, side_m: float, low: float, high: float, count: int) -> Any:
    """Points of a strip of land in the order of flight: hills, houses in a grid, trees."""
    x = np.sort(rng.uniform(low, high, count))
    y = rng.uniform(0, side_m, count)
    ground = 20 * np.sin(x / 300) * np.cos(y / 400) + 0.05 * rng.standard_normal(count)
    house = (x % 40 < 14) & (y % 30 < 10) & ((x // 40 + y // 30) % 3 < 1.5)
    tree = ~house & (np.sin(x / 17) * np.sin(y / 13) > 0.6)
    above = np.where(house, 6.0, np.where(tree, rng.uniform(0, 9, count), 0.0))
    return x, y, ground + above, house, tree


def make_cloud(path: Path, points: int, seed: int = 0) -> None:
    """A LAZ file of an airborne scan, written piece by piece."""
    if path.exists():
        return
    rng, side_m = np.random.default_rng(seed), (points / DENSITY) ** 0.5
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.offsets, header.scales = [431_000, 5_301_000, 0], [0.001] * 3
    part = path.with_name(f"part-{path.name}")
    with laspy.open(part, mode="w", header=header) as writer:
        for start in range(0, points, PIECE):
            count = min(PIECE, points - start)
            low, high = (side_m * at / points for at in (start, start + count))
            x, y, z, house, tree = made_piece(rng, side_m, low, high, count)
            record = laspy.ScaleAwarePointRecord.zeros(count, header=header)
            record.x, record.y, record.z = x + 431_250, y + 5_301_250, z
            grey = np.where(house, 900, np.where(tree, 300, 600)) + rng.integers(0, 200, count)
            record.intensity = grey.astype(np.uint16)
            record.number_of_returns = np.where(tree, rng.integers(1, 4, count), 1)
            record.return_number = np.minimum(rng.integers(1, 4, count), record.number_of_returns)
            record.gps_time = start + np.arange(count)
            writer.write_points(record)
    part.rename(path)


def make_model(path: Path) -> None:
    """A tiny MinkUNet with random weights."""
    import torch

    from pointseg.config.presets import RECIPES
    from pointseg.datasets.classes import ClassList
    from pointseg.models.checkpoint import save_checkpoint
    from pointseg.models.network import build_segmenter

    if path.exists():
        return
    recipe = replace(
        RECIPES["folder"],
        backbone="minkunet",
        backbone_config={"base_channels": 4, "channels": [4] * 8, "layers": [1] * 8},
        features=("strength", "returns"),
        scene_type="outdoor",
        voxel_m=1.0,
        max_points=None,
    )
    colors = np.array([[150, 120, 90], [60, 160, 60], [200, 60, 60], [60, 90, 200]], np.uint8)
    torch.manual_seed(0)
    model = build_segmenter(recipe, len(CLASSES))
    classes = ClassList(names=CLASSES, colors=colors)
    save_checkpoint(path, model.state_dict(), recipe=recipe, classes=classes)


def environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore", **os.environ}


def kept(path: Path) -> dict[str, Any]:
    """What was measured before."""
    return json.loads(path.read_text()) if path.exists() else {}


def processor_seconds() -> float:
    """Of all processes that were measured so far; they do not depend on what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(work: Path, key: str, command: Sequence[str], count: int) -> dict[str, Any]:
    """Measure a command once; of one that was stopped, the time of the rest counts."""
    path = work / "scaling.json"
    if key not in kept(path):
        began = processor_seconds()
        found: Measured = measure(command, env=environment(), log=work / f"{key}.log")
        cpu_s = processor_seconds() - began
        figures = {"count": count, "cpu_s": cpu_s, **asdict(found)}
        path.write_text(json.dumps({**kept(path), key: figures}, indent=1))
    return kept(path)[key]


def clouds(work: Path, sizes: Sequence[int], whole_upto: int) -> list[dict[str, Any]]:
    """Predictions of clouds: streamed, and in memory up to a size."""
    make_model(work / "model.pt")
    rows = []
    for points in sizes:
        source = work / f"cloud-{points}.laz"
        make_cloud(source, points)
        for way in ("stream", "memory"):
            if way == "memory" and points > whole_upto:
                continue
            out = work / f"{way}-{points}" / source.name
            command = [program("pointseg-predict"), str(source), "-o", str(out), "-m", str(work / "model.pt"),
                       "--skip-scale-check", "--no-pictures", "--device", "cpu", "--max-points", "200000"]  # fmt: skip
            command += ["--stream"] * (way == "stream")
            rows.append({"way": way, **measured(work, f"{way}-{points}", command, points)})
        check_equal(work, points)
    return rows


def check_equal(work: Path, points: int) -> None:
    """Both ways must have written the same file, byte by byte."""
    names = [work / f"{way}-{points}" / f"cloud-{points}.laz" for way in ("stream", "memory")]
    if all(name.exists() for name in names):
        same = names[0].read_bytes() == names[1].read_bytes()
        print(f"{points:,} points: results of both ways are {'equal' if same else 'DIFFERENT'}")
        if not same:
            raise SystemExit(1)


def volumes(work: Path, shapes: Sequence[tuple[int, int, int]], steps: int) -> list[dict[str, Any]]:
    """Predictions of CTs of several sizes by one model."""
    from hospital_models import ModelSpec, train_model
    from hospital_scans import atlas, scan, write_image

    rows, mm, organs = [], (1.5, 0.8, 0.8), atlas(4, pieces=2, seed=0)
    spec = ModelSpec(
        name="scaling", labels=4, patch=(64,) * 3, training_patch=(32,) * 3, steps=steps
    )
    pairs = [(*scan((64, 96, 96), (1.5,) * 3, organs, seed=9), (1.5,) * 3)]
    model = train_model(spec, pairs, work / "models")
    for shape in shapes:
        name = "x".join(map(str, shape))
        folder, key = work / "volumes" / name, f"volume-{name}"
        if not folder.exists():
            write_image(folder / "ct_0000.nii.gz", scan(shape, mm, organs, seed=1)[0], mm)
        command = [program("dinomed3d"), "predict", "-i", str(folder), "-o", str(work / key), "-m", str(model),
                   "--device", "cpu"]  # fmt: skip
        rows.append({"way": "volume", **measured(work, key, command, int(np.prod(shape)))})
    return rows


def picture(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Processor seconds and memory against points and voxels, both axes in powers of ten."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9.6, 7.2), constrained_layout=True)
    titles = {"stream": "streamed through the disk", "memory": "in memory", "volume": "volumes"}
    for column, ways in enumerate((("stream", "memory"), ("volume",))):
        for row, (key, label) in enumerate(
            (("cpu_s", "processor seconds"), ("rss_gib", "memory, GiB"))
        ):
            plot = axes[row, column]
            for way in ways:
                found = sorted((r["count"], r[key]) for r in rows if r["way"] == way)
                if found:
                    counts, values = np.array(found).T
                    plot.plot(counts, values, "o-", label=titles[way])
            plot.set(xscale="log", yscale="log", ylabel=label, xlabel=("points", "voxels")[column])
            for axis in (plot.xaxis, plot.yaxis):
                axis.set_major_formatter(lambda value, _: f"{value:,.3g}")
                axis.set_minor_formatter(lambda value, _: "")
            plot.grid(True, which="both", alpha=0.3)
            if key == "rss_gib" and column == 0:
                plot.axhline(LIMIT_GIB, color="grey", linestyle="--", label=f"{LIMIT_GIB:g} GiB")
            if plot.lines:
                plot.legend()
    axes[0, 0].set_title("pointseg-predict, clouds")
    axes[0, 1].set_title("dinomed3d predict, CTs")
    figure.savefig(path, dpi=100)


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The table of all measurements."""
    names = "way|points or voxels|seconds|processor seconds|us each|memory, GiB|bytes each"
    cells = [
        [
            row["way"],
            f"{row['count']:,}",
            f"{row['seconds']:.1f}",
            f"{row['cpu_s']:.1f}",
            f"{1e6 * row['cpu_s'] / row['count']:.2f}",
            f"{row['rss_gib']:.2f}",
            f"{row['rss_gib'] * 2**30 / row['count']:.0f}",
        ]
        for row in rows
    ]
    return table(names, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for data and results")
    parser.add_argument(
        "--points", type=float, nargs="*", default=list(SIZES), help="sizes of clouds"
    )
    parser.add_argument(
        "--whole-upto", type=float, default=SIZES[-1], help="largest cloud in memory"
    )
    parser.add_argument("--no-volumes", action="store_true", help="clouds alone")
    parser.add_argument("--tiny", action="store_true", help="a run of seconds, for tests")
    arguments = parser.parse_args()
    work, sizes, shapes = arguments.work, [int(n) for n in arguments.points], SHAPES
    if arguments.tiny:
        sizes, shapes = [2000, 4000], ((16, 32, 32), (16, 48, 48))
    work.mkdir(parents=True, exist_ok=True)
    rows = clouds(work, sizes, int(arguments.whole_upto))
    if not arguments.no_volumes:
        rows += volumes(work, shapes, 2 if arguments.tiny else 100)
    for row in rows:
        if row["way"] == "stream" and row["rss_gib"] > LIMIT_GIB:
            print(f"{row['count']:,} points took {row['rss_gib']:.2f} GiB, more than {LIMIT_GIB:g}")
    picture(rows, work / "scaling.png")
    print(json.dumps(machine("torch", "numpy", "laspy")))
    print(report(rows))


if __name__ == "__main__":
    main()
