"""Artefacts of scanners on test images: how much do trained models lose, side by side?

Every test image gets the artefacts of `dinomed3d.evaluation.artifacts` at three strengths, the same copies for all
models; each model (ours or any other of nnU-Net) predicts them by the library call of `dinomed3d predict`, and
`dinomed3d.evaluation` scores them against the masks of the untouched images. Copies, masks and scores that exist
are kept: the same command continues a stopped run, and adds models and artefacts. In WORK: results.json, results.md
(one table), results.png (Dice against strength).

    python examples/benchmarks/artifacts.py IMAGES LABELS --work WORK --models ours=MODEL_FOLDER stock=MODEL_FOLDER

IMAGES has nnU-Net's names (CASE_0000.nii.gz, ...), LABELS one mask per case. Artefacts of MR make no sense for CT:
there add `--artifacts noise anisotropy blur`. Mirroring is left on as in nnU-Net; `--no-mirroring` saves most of the
time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from artifacts_report import draw, markdown

from dinomed3d.cli.progress.prediction import Progress
from dinomed3d.evaluation.artifacts import ARTIFACTS, STRENGTHS, degrade_file
from dinomed3d.evaluation.folders import evaluate, read_labels
from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.models.model import Model, open_model
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import atomic_write


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all combinations of a run share."""

    images: Path
    labels: Path
    work: Path
    models: Mapping[str, Path]
    artifacts: Sequence[str] = tuple(ARTIFACTS)
    seed: int = 0
    cases: int | None = None
    """The first so many; None: all."""
    tolerance_mm: float = 1.0
    folds: tuple[str, ...] | None = None
    checkpoint: str = "checkpoint_final.pth"
    device: str = "auto"
    step_size: float = 0.5
    mirroring: bool = True

    def combinations(self) -> list[tuple[str, int]]:
        """Artefact and strength; the untouched images first."""
        strengths = range(1, len(STRENGTHS) + 1)
        return [("clean", 0), *((name, s) for name in self.artifacts for s in strengths)]


def run(setup: Setup) -> list[dict[str, Any]]:
    """Degrade, predict and evaluate what is missing; the rows of all combinations.

    Raises:
        UserError: an earlier run in the folder used other images or patterns, a case has no mask or could not
            be predicted or evaluated.
    """
    setup.work.mkdir(parents=True, exist_ok=True)
    check_folder(setup)
    opened = {
        name: open_model(path, folds=setup.folds, checkpoint=setup.checkpoint)
        for name, path in setup.models.items()
    }
    cases = find_images(setup, next(iter(opened.values())))
    masks = find_masks(setup, list(cases))
    rows: list[dict[str, Any]] = []
    for artifact, strength in setup.combinations():
        copies = setup.work / "images" / f"{artifact}-{strength}"
        write_copies(cases, copies, artifact, strength, setup.seed)
        for name, model in opened.items():
            rows.append(one_combination(setup, name, model, copies, masks, artifact, strength))
        write_results(setup, rows)
    return rows


def check_folder(setup: Setup) -> None:
    """Copies of other images, seeds or strengths must not be mixed with those of this run."""
    now = {
        "images": str(setup.images.resolve()),
        "seed": setup.seed,
        "values": {name: list(one.values) for name, one in ARTIFACTS.items()},
    }
    file = setup.work / "copies.json"
    if file.exists() and (earlier := json.loads(file.read_text())) != now:
        other = ", ".join(key for key in now if earlier.get(key) != now[key])
        raise UserError(f"--work {setup.work}: has copies with other {other}; name another folder")
    atomic_write(file, json.dumps(now, indent=1).encode())


def find_images(setup: Setup, model: Model) -> dict[str, list[Path]]:
    """The files of each case, in the order of the model's channels."""
    found = find_cases(setup.images, channels=model.channels, skip=[setup.work])
    for rejected in found.rejected:
        raise UserError(f"IMAGES {setup.images}: {rejected.id}: {rejected.reason}")
    cases = {case.id: [Path(scan.files[0]) for scan in case.scans] for case in found.cases}
    if not cases or any("/" in case for case in cases):
        raise UserError(f"IMAGES {setup.images}: must hold the images itself, not in sub-folders")
    return dict(list(cases.items())[: setup.cases])


def find_masks(setup: Setup, cases: Sequence[str]) -> dict[str, Path]:
    """The reference mask of each case."""
    masks = {}
    for case in cases:
        found = [p for p in setup.labels.glob(f"{case}.*") if p.name.startswith(f"{case}.")]
        if len(found) != 1:
            raise UserError(
                f"LABELS {setup.labels}: must have one mask of {case}, has {len(found)}"
            )
        masks[case] = found[0]
    return masks


def write_copies(
    cases: Mapping[str, Sequence[Path]], folder: Path, artifact: str, strength: int, seed: int
) -> None:
    """The images of all cases with an artefact; channels are separate acquisitions."""
    for case, files in cases.items():
        for channel, source in enumerate(files):
            if not (folder / source.name).exists():
                degrade_file(
                    source,
                    folder / source.name,
                    artifact="noise" if artifact == "clean" else artifact,
                    strength=strength,
                    seed=seed,
                    case=f"{case}/{channel}",
                )


def one_combination(
    setup: Setup, name: str, model: Model, copies: Path, masks: Mapping[str, Path], artifact: str, strength: int
) -> dict[str, Any]:  # fmt: skip
    """The scores of a model on one set of copies, from an earlier run if they are those of the same settings."""
    settings = {
        "model": model.hash,
        "cases": sorted(masks),
        "tolerance_mm": setup.tolerance_mm,
        "step_size": setup.step_size,
        "mirroring": setup.mirroring,
    }
    file = setup.work / "scores" / name / f"{copies.name}.json"
    if file.exists():
        row: dict[str, Any] = json.loads(file.read_text())
        if row["settings"] == settings:
            return row
    out = setup.work / "predictions" / name / copies.name
    print(f"{time.strftime('%H:%M:%S')} {name}: {copies.name}", file=sys.stderr, flush=True)
    spec = PredictSpec(
        source=str(copies),
        out=str(out),
        model=str(setup.models[name]),
        folds=setup.folds,
        checkpoint=setup.checkpoint,
        device=setup.device,
        step_size=setup.step_size,
        mirroring=setup.mirroring,
        engine="threads",
    )
    outcome = predict(spec, Progress())
    for case, reason in outcome.failed.items():
        raise UserError(f"{name}, {copies.name}: {case}: {reason}")
    row = {
        "model": name,
        "artifact": artifact,
        "strength": strength,
        "value": ARTIFACTS[artifact].values[strength - 1] if strength else None,
        "settings": settings,
        "scores": scores(setup, model, masks, out),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, json.dumps(row, indent=1).encode())
    return row


def scores(
    setup: Setup, model: Model, masks: Mapping[str, Path], out: Path
) -> list[dict[str, Any]]:
    """Case, label, Dice, HD95 and surface Dice; HD95 is None where one of the masks is empty."""
    labels = read_labels(model.source / "dataset.json")
    found: list[dict[str, Any]] = []
    for case, mask in masks.items():
        result = evaluate(mask, out / mask.name, labels=labels, tolerance_mm=setup.tolerance_mm)
        for _, reason in result.problems.items():
            raise UserError(f"{out}: {case}: {reason}")
        for row in result.rows:
            kept = {key: row[key] for key in ("dice", "hd95_mm", "surface_dice")}
            numbers = {key: value if value == value else None for key, value in kept.items()}
            found.append({"case": case, "label": row["label"], **numbers})
    return found


def write_results(setup: Setup, rows: list[dict[str, Any]]) -> None:
    """The JSON of all rows, the table and the picture."""
    used = {name: asdict(one) for name, one in ARTIFACTS.items() if name in setup.artifacts}
    content = {
        "artifacts": {n: {k: v for k, v in a.items() if k != "transform"} for n, a in used.items()},
        "seed": setup.seed,
        "rows": rows,
    }
    atomic_write(setup.work / "results.json", json.dumps(content, indent=1).encode())
    atomic_write(setup.work / "results.md", f"{markdown(rows)}\n".encode())
    draw(rows, setup.work / "results.png")


def parse(argv: Sequence[str] | None = None) -> Setup:
    """The setup of a command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, metavar="IMAGES")
    parser.add_argument("labels", type=Path, metavar="LABELS")
    parser.add_argument("--work", type=Path, required=True, help="folder for all output")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument(
        "--artifacts", nargs="+", default=list(ARTIFACTS), choices=list(ARTIFACTS), metavar="NAME"
    )
    parser.add_argument("--cases", type=int, help="only the first so many (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the random patterns")
    parser.add_argument("--tolerance", type=float, default=1.0, help="of surface Dice, mm")
    parser.add_argument("-f", dest="folds", nargs="+", help="folds to average (default: all)")
    parser.add_argument("--checkpoint", default="checkpoint_final.pth")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--step-size", type=float, default=0.5)
    parser.add_argument("--no-mirroring", dest="mirroring", action="store_false")
    given = vars(parser.parse_args(argv))
    pairs = [text.partition("=") for text in given.pop("models")]
    models = {name: Path(folder) for name, _, folder in pairs}
    if len(models) < len(pairs) or not all(n and "/" not in n and f for n, _, f in pairs):
        parser.error("--models: must be NAME=FOLDER with different names")
    given["tolerance_mm"] = given.pop("tolerance")
    given["folds"] = None if given["folds"] is None else tuple(given["folds"])
    return Setup(models=models, **given)


def main() -> None:
    setup = parse()
    try:
        rows = run(setup)
    except UserError as error:
        raise SystemExit(f"artifacts: {error}") from error
    print(markdown(rows))
    print(f"\n{setup.work / 'results.json'}\n{setup.work / 'results.png'}")


if __name__ == "__main__":
    main()
