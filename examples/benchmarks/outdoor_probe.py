"""What lifted image features add to geometry outdoors: linear probes on single frames of KITTI, nuScenes, RELLIS-3D.

    python examples/benchmarks/outdoor_probe.py --data FOLDER --weights FILE --work WORK

FOLDER has `kitti_object`, `nuscenes_sample` and `rellis3d`. The features of DINOv2-S come from `pointseg-lift`'s own
run on each scan with a manifest of its cameras. A multinomial logistic regression is trained on the points to the
left of the front camera's axis and tested on those to its right, and the other way round; all points that an image
shows and that have a class count, and the confusion of both ways is added up. Compared are geometry (height,
distance, intensity, shape of the neighbourhood), the same with all products of two, the pixels' colours, image
features, and image features concatenated with geometry. The penalty is fixed: half the squared weights, the loss summed
over the points, all inputs standardised, nothing tuned. WORK gets pictures and results.json.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from markdown import table
from numpy.typing import NDArray
from outdoor_scenes import Outdoor, kitti, nuscenes, rellis
from PIL import Image
from scipy.spatial import cKDTree

from pointseg.images.features.encoder import open_encoder
from pointseg.images.preprocess import load_images
from pointseg.images.readers.manifest import write_manifest
from pointseg.images.visibility import VisibilityConfig
from pointseg.lifting.encoding import PixelViews
from pointseg.lifting.kept_arrays import KeptArrays
from pointseg.lifting.lift_cloud import lift_cloud
from pointseg.lifting.source import cameras_of
from pointseg.lifting.spec import LiftSpec
from pointseg.lifting.views import Views, find_views, lift_rows
from pointseg.metrics import Confusion
from pointseg.pictures.overlay import paint_over
from pointseg.pictures.sheets import class_colors, sheet
from pointseg.scene import Scene

SEEN = VisibilityConfig(occlusion="none")
"""As DITR has it for scans: the scanner stands next to the cameras, and little hides from one what the other sees."""
ENCODER = "vit_small_patch14_dinov2"
NEIGHBOURS = 20
"""Points from whose covariance the shape of a neighbourhood is taken."""
LEAST = 20
"""Points that a class must have in both halves; others do not count."""
STEPS = 200
"""Rounds of L-BFGS, at most."""
PALETTE = np.array(
    [
        (150, 150, 150), (230, 80, 60), (70, 130, 220), (250, 180, 40), (120, 70, 180), (60, 180, 120),
        (240, 120, 190), (130, 90, 50), (30, 60, 110), (200, 220, 60), (90, 200, 220),
    ],
    np.uint8,
)  # fmt: skip


def geometry(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 9) height, logarithm of the distance, intensity, and the shape of each point's neighbourhood.

    The last six: linearity, planarity, scattering, verticality of the normal, spread of heights, logarithm of the
    neighbourhood's radius (Weinmann 2015, doi:10.1016/j.isprsjprs.2015.01.016).
    """
    coord = points[:, :3].astype(np.float64)
    away, index = cKDTree(coord).query(coord, NEIGHBOURS)
    near = coord[index] - coord[index].mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(near.transpose(0, 2, 1) @ near / NEIGHBOURS)
    low, middle, high = np.sqrt(np.maximum(values, 1e-12)).T
    return np.stack(
        [
            coord[:, 2],
            np.log(np.linalg.norm(coord[:, :2], axis=1) + 1e-3),
            points[:, 3],
            (high - middle) / high,
            (middle - low) / high,
            low / high,
            np.abs(vectors[:, 2, 0]),
            near[:, :, 2].std(1),
            np.log(away[:, -1] + 1e-3),
        ],
        axis=1,
    ).astype(np.float32)


def with_products(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, C) standardised columns, and the products of any two of them."""
    unit = (values - values.mean(0)) / (values.std(0) + 1e-6)
    left, right = np.triu_indices(unit.shape[1])
    return np.concatenate([unit, unit[:, left] * unit[:, right]], axis=1)


def predict(
    train: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32], classes: int
) -> NDArray[np.int64]:
    """Classes of ``test`` by logistic regression on ``train``, standardised, with a fixed penalty."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    seen, unseen = (torch.from_numpy((values - mean) / std) for values in (train, test))
    target = torch.from_numpy(labels)
    weight = torch.zeros(seen.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        wrong = torch.nn.functional.cross_entropy(seen @ weight + bias, target, reduction="sum")
        total = (wrong + weight.square().sum() / 2) / len(target)
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        return (unseen @ weight + bias).argmax(1).numpy()


def probe(
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    left: NDArray[np.bool_],
    classes: int,
) -> NDArray[np.int64]:
    """(N,) classes of all points: each half predicted from the other."""
    found = np.empty(len(labels), np.int64)
    for train in (left, ~left):
        found[~train] = predict(values[train], labels[train], values[~train], classes)
    return found


def lifted(scene: Outdoor, weights: Path, work: Path) -> tuple[NDArray, NDArray[np.bool_]]:
    """(N, C) features and (N,) seen, by a run of ``pointseg-lift``; its picture lies in ``work``."""
    name = scene.name.replace(" ", "-")
    manifest, out = work / f"{name}.cameras.json", work / f"{name}.npz"
    if out.exists():  # of an earlier call
        with np.load(out) as found:
            return found["feat"], found["seen"]
    write_manifest(manifest, scene.frames)
    result = lift_cloud(
        LiftSpec(
            cloud=scene.file,
            out=out,
            cameras=cameras_of(scene.file, str(manifest), None),
            encoder=ENCODER,
            open_encoder=lambda: open_encoder(ENCODER, weights),
            visibility=SEEN,
        )
    )
    print(f"{scene.name}: {result}", flush=True)
    with np.load(out) as found:
        return found["feat"], found["seen"]


def views_of(scene: Outdoor, kept: KeptArrays) -> Views:
    """What the images of a scan show, at full size."""
    cloud = Scene(coord=np.ascontiguousarray(scene.points[:, :3]), name=scene.name)
    return find_views(cloud, scene.frames, SEEN, lambda size: size, kept)


def colours(views: Views) -> NDArray[np.float32]:
    """(N, 3) mean colours of the pixels that show each point, 0 where none does."""
    rows = np.arange(len(views.counts))
    return lift_rows(views, PixelViews(views), rows, fuse="mean", sample="bilinear").numpy()


def draw(path: Path, scene: Outdoor, views: Views, panels: dict[str, NDArray[np.int64]]) -> None:
    """An image and the classes of its points over it, for the image that shows the most boxes or points."""
    truth = panels["truth"]
    marked = [(truth[views.shown(v).rows] > 0).sum() for v in range(len(views))]
    view = int(np.argmax(marked))
    shown, (photo,) = views.shown(view), load_images([views.frames[view]], views.sizes[view])[0]
    pixels = photo.transpose(1, 2, 0)
    used = sorted({int(k) for values in panels.values() for k in np.unique(values) if k >= 0})
    pictures = [(f"{scene.name}: {views.frames[view].name}", Image.fromarray(pixels))]
    for title, values in panels.items():
        kept = values[shown.rows] >= 0
        rows = shown.rows[kept]
        over = paint_over(
            pixels, shown.uv[kept], shown.distance[kept], class_colors(values[rows], PALETTE)
        )
        pictures.append((title, over.resize(pixels.shape[1::-1])))
    small = [(title, picture.resize((720, 720 * picture.height // picture.width)))
             for title, picture in pictures]  # fmt: skip
    legend = [(scene.classes[k], PALETTE[k].tolist()) for k in used]
    sheet(small, columns=2, legend=legend).save(path)


def measure(name: str, scenes: list[Outdoor], weights: Path, work: Path) -> list[dict]:
    """Scores of all inputs on one data set; writes pictures."""
    with ExitStack() as stack:
        views = [views_of(s, stack.enter_context(KeptArrays(1 << 30))) for s in scenes]
        features, seen = map(
            np.concatenate, zip(*(lifted(s, weights, work) for s in scenes), strict=True)
        )
        shapes = np.concatenate([geometry(scene.points) for scene in scenes])
        inputs = {
            "geometry": shapes,
            "geometry and its products": with_products(shapes),
            "colours of the pixels": np.concatenate([colours(v) for v in views]),
            "image features": features,
            "image features and geometry": np.concatenate([features, shapes], axis=1),
        }
        segment = np.concatenate([scene.segment for scene in scenes])
        left = np.concatenate([scene.is_left for scene in scenes])
        halves = [np.bincount(segment[seen & (segment >= 0) & half], minlength=len(PALETTE))
                  for half in (left, ~left)]  # fmt: skip
        classes = np.flatnonzero(np.minimum(*halves) >= LEAST)
        used = seen & np.isin(segment, classes)
        labels = np.searchsorted(classes, segment[used])
        rows, drawn = [], {"truth": np.where(used, segment, -1)}
        for title, values in inputs.items():
            found = probe(values[used], labels, left[used], len(classes))
            confusion = Confusion(len(classes))
            confusion.add(torch.from_numpy(found), torch.from_numpy(labels))
            recall = confusion.matrix.diagonal() / confusion.matrix.sum(1)
            each = dict(
                zip([scenes[0].classes[k] for k in classes], confusion.iou().tolist(), strict=True)
            )
            rows.append({"data": name, "points": int(used.sum()), "inputs": title,
                         "miou": confusion.miou(), "balanced_accuracy": float(recall.mean()),
                         "iou": each})  # fmt: skip
            drawn[title] = np.full(len(used), -1)
            drawn[title][used] = classes[found]
        start = 0
        for scene, view in zip(scenes, views, strict=True):
            part = slice(start, start := start + len(scene.points))
            panels = {k: drawn[k][part] for k in ("truth", "geometry", "image features")}
            draw(work / f"{scene.name.replace(' ', '-')}-probe.png", scene, view, panels)
    return rows


def show(results: list[dict]) -> str:
    """The scores as a table in Markdown."""
    rows = [
        [r["data"], f"{r['points']:,}", r["inputs"], f"{100 * r['miou']:.1f}",
         f"{100 * r['balanced_accuracy']:.1f}",
         ", ".join(f"{name} {100 * value:.0f}" for name, value in r["iou"].items())]
        for r in results
    ]  # fmt: skip
    return table("data|points|inputs|mIoU|balanced accuracy|IoU by class", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the three data sets")
    parser.add_argument("--weights", type=Path, required=True, help=f"weights of {ENCODER}")
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures and results")
    args = parser.parse_args()
    torch.manual_seed(0)
    args.work.mkdir(parents=True, exist_ok=True)
    results = []
    for name, scenes in (("KITTI", kitti), ("nuScenes", nuscenes), ("RELLIS-3D", rellis)):
        results += measure(name, scenes(args.data), args.weights, args.work)
    (args.work / "results.json").write_text(json.dumps(results, indent=1))
    print(f"\n{show(results)}")


if __name__ == "__main__":
    main()
