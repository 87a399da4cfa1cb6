"""Airborne laser scans: small networks trained on tiles and tested on another, classes back as ASPRS codes.

    python examples/benchmarks/airborne.py --data TILES --work WORK

TILES has LAS or LAZ tiles with ASPRS codes in `classification` (2 ground, 3 to 5 low, medium and high vegetation, 6
building; others are ignored). Each tile of `--test` (all by default) is left out of training once, and is
looked at when training has ended, so no choice is made on it. Everything goes through the commands a user has:
`pointseg-train`, `pointseg-test` and `pointseg-predict`, whose result is then opened in laspy, and compared with the
tile in every dimension and header field. WORK/results.json gets all numbers; the same command again continues.
`--tiny` makes up two tiles.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import yaml
from markdown import table
from real_clouds import run

from pointseg.files import read_cloud
from pointseg.pictures import comparison

CODES = {
    "ground": 2,
    "low vegetation": 3,
    "medium vegetation": 4,
    "high vegetation": 5,
    "building": 6,
}
COLORS = np.array(
    [[190, 160, 120], [200, 220, 110], [120, 190, 80], [30, 110, 50], [200, 70, 60]], np.uint8
)
FEATURES = ("strength", "returns", "height_above_ground")
RECIPE = (
    "evaluations=1",
    "batch_size=1",
    "max_points=8000",
    "augmentation.elastic_probability=0",
)
"""One validation, of the last model, so that nothing is chosen by the tile that is left out."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training."""

    backbone: str
    features: tuple[str, ...]
    test: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and its row."""
        return f"{self.backbone}-{'+'.join(self.features)}-{self.test}-{self.seed}"


def describe(tiles: Sequence[Path], test: str, voxel_m: float, path: Path) -> None:
    """Write the dataset.yaml of one split; the tiles stay where they are."""
    split = {
        "train": [t.name for t in tiles if t.stem != test],
        "val": [t.name for t in tiles if t.stem == test],
    }
    found = {
        "name": "airborne",
        "classes": list(CODES),
        "colors": dict(zip(CODES, COLORS.tolist(), strict=True)),
        "features": ["strength", "returns", "height_above_ground"],
        "voxel_m": voxel_m,
        "intensity_max": 4095,
        "label": "classification",
        "labels": {
            "map": {code: name for name, code in CODES.items()},
            "ignore": [0, 1, *range(7, 32)],
        },
        "splits": {**split, "test": split["val"]},
    }
    path.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")


def train_and_test(arm: Arm, data: Path, config: Path, work: Path, epochs: int) -> dict[str, Any]:
    """Scores of one training, over all points of the tile that was left out."""
    out = work / arm.name
    dataset = ("--dataset", "folder", "--root", str(data), "--config", str(config))
    changes = (*RECIPE, f"epochs={epochs}", f"features={json.dumps(arm.features)}")
    began = time.monotonic()
    run(
        "train", *dataset, "--backbone", arm.backbone, "--model-size", "small",
        *(word for change in changes for word in ("--override", change)),
        "--seed", str(arm.seed), "--workers", "0", "--device", "cpu", "--out", str(out),
        *(["--resume"] if (out / "last.pt").exists() else []),
    )  # fmt: skip
    minutes = (time.monotonic() - began) / 60
    run(
        "test", *dataset, "-m", str(out / "best.pt"), "--device", "cpu", "--single-pass",
        "--pictures", "0", "-o", str(out / "test"),
    )  # fmt: skip
    metrics = json.loads((out / "test" / "metrics.json").read_text(encoding="utf-8"))
    return {
        "miou": metrics["test_point_miou"],
        "iou": metrics["test_point_iou"],
        "minutes": minutes,
    }


def write_back(tile: Path, model: Path, work: Path) -> dict[str, Any]:
    """Predict a tile, open the result in laspy, and compare everything with the tile; draws a picture.

    Raises:
        SystemExit: a dimension or a header field was lost, or there are other codes than the model's.
    """
    out = work / "predicted"
    run(
        "predict", str(tile), "-m", str(model), "-o", str(out), "--device", "cpu",
        "--no-pictures", "--overwrite",
    )  # fmt: skip
    before, after = laspy.read(tile), laspy.read(out / tile.name)
    lost = [
        name
        for name in before.point_format.dimension_names
        if name != "classification" and not np.array_equal(before[name], after[name])
    ]
    lost += [
        name
        for name in ("scales", "offsets", "version")
        if not np.all(getattr(before.header, name) == getattr(after.header, name))
    ]
    lost += [  # bounds in the header are those of the points, which some writers round otherwise
        name
        for name in ("mins", "maxs")
        if (
            abs(getattr(before.header, name) - getattr(after.header, name)) > after.header.scales
        ).any()
    ]
    records = [
        [v.record_data_bytes() for v in las.header.vlrs.get_by_id("LASF_Projection")]
        for las in (before, after)
    ]
    truth, found = np.array(before.classification), np.array(after.classification)
    strange = set(found.tolist()) - set(CODES.values())
    if lost or strange or records[0] != records[1]:
        raise SystemExit(f"{out / tile.name}: lost {lost}, strange codes {strange}")
    counted = np.isin(truth, list(CODES.values()))
    rows = {code: row for row, code in enumerate(CODES.values())}
    labels = [np.array([rows.get(code, -1) for code in values]) for values in (truth, found)]
    coord = read_cloud(tile).coord
    picture = comparison(coord, *labels, tuple(CODES), COLORS, cut_ceiling=False)
    picture.save(work / "tile.png")
    return {
        "points": len(found),
        "codes": {int(code): int((found == code).sum()) for code in np.unique(found)},
        "agreement": float((truth == found)[counted].mean()),
        "former_classification_kept": bool(np.array_equal(after.input_classification, truth)),
    }


def made_up_tiles(folder: Path) -> None:
    """Two small tiles in national coordinates: ground, bushes, trees, a house."""
    folder.mkdir()
    for seed in range(2):
        rng = np.random.default_rng(seed)
        header = laspy.LasHeader(point_format=3, version="1.2")
        header.scales, header.offsets = [0.01] * 3, [770_000, 6_277_000, 0]
        las = laspy.LasData(header, laspy.ScaleAwarePointRecord.zeros(3000, header=header))
        codes = rng.choice([1, 2, 3, 4, 5, 6], 3000)
        height = np.array([0, 0, 0.3, 1, 6, 4])[codes - 1] + rng.normal(0, 0.05, 3000)
        las.x, las.y = (rng.uniform(0, 20, 3000) + o for o in (770_500, 6_277_500))
        las.z, las.classification = 20 + height, codes
        las.intensity = rng.integers(0, 1500, 3000)
        las.number_of_returns = np.where(codes == 5, 2, 1)
        las.return_number = np.ones(3000, int)
        las.write(folder / f"tile{seed}.laz")


def show(results: dict[str, Any], arms: Sequence[Arm]) -> str:
    """Mean and standard deviation over seeds and tiles of each backbone and set of features."""
    rows = []
    for key in dict.fromkeys((arm.backbone, arm.features) for arm in arms):
        own = [
            results[arm.name]
            for arm in arms
            if (arm.backbone, arm.features) == key and arm.name in results
        ]
        if own:
            miou = [100 * each["miou"] for each in own]
            spread = f" ± {np.std(miou, ddof=1):.1f}" if len(own) > 1 else ""
            iou = [100 * np.mean([each["iou"][name] for each in own]) for name in CODES]
            minutes = np.mean([each["minutes"] for each in own])
            rows.append([key[0], ", ".join(key[1]), len(own), f"{np.mean(miou):.1f}{spread}",
                         *(f"{each:.1f}" for each in iou), f"{minutes:.1f}"])  # fmt: skip
    return table("|".join(["backbone", "features", "runs", "mIoU", *CODES, "minutes"]), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of LAS or LAZ tiles")
    parser.add_argument(
        "--work", type=Path, help="folder for all output (default: a temporary one)"
    )
    parser.add_argument("--test", nargs="+", metavar="NAME", help="tiles left out, one at a time")
    parser.add_argument("--backbones", nargs="+", default=["minkunet", "pointnext", "ptv3"])
    parser.add_argument(
        "--features", action="append", metavar="A,B", help=f"default: {','.join(FEATURES)}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--voxel", type=float, default=0.5, metavar="M")
    parser.add_argument("--tiny", action="store_true", help="made-up tiles: a test of this script")
    args = parser.parse_args()
    if (args.data is None) != args.tiny:
        parser.error("give --data FOLDER, or --tiny")
    if args.tiny:
        args.backbones, args.seeds, args.epochs = ["minkunet"], [0], 1
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        data = args.data
        if args.tiny:
            data = Path(temporary) / "tiles"
            made_up_tiles(data)
        benchmark(args, data.resolve(), work)


def benchmark(args: argparse.Namespace, data: Path, work: Path) -> None:
    tiles = sorted(path for path in data.iterdir() if path.suffix.lower() in (".las", ".laz"))
    tests = args.test or [tile.stem for tile in tiles][: 1 if args.tiny else None]
    if unknown := set(tests) - {tile.stem for tile in tiles}:
        raise SystemExit(
            f"--test {', '.join(unknown)}: {data} has {', '.join(t.stem for t in tiles)}"
        )
    features = [tuple(text.split(",")) for text in args.features or [",".join(FEATURES)]]
    arms = [
        Arm(backbone=backbone, features=chosen, test=test, seed=seed)
        for seed in args.seeds
        for test in tests
        for chosen in features
        for backbone in args.backbones
    ]
    file = work / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for arm in arms:
        config = work / f"{arm.test}.yaml"
        describe(tiles, arm.test, args.voxel, config)
        if arm.name not in results:
            results[arm.name] = train_and_test(arm, data, config, work, args.epochs)
            file.write_text(json.dumps(results, indent=1), encoding="utf-8")
            print(f"{arm.name}: mIoU {100 * results[arm.name]['miou']:.1f}", flush=True)
    first = arms[0]
    (tile,) = (tile for tile in tiles if tile.stem == first.test)
    written = write_back(tile, work / first.name / "best.pt", work)
    file.write_text(json.dumps({**results, "written": written}, indent=1), encoding="utf-8")
    print(f"\n{show(results, arms)}\n\nwritten by {first.name}: {json.dumps(written)}")


if __name__ == "__main__":
    main()
