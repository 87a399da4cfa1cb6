"""Predicted labels on disk, with a record that says how they were made, so that a test can be resumed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.loading.scene_images import ImageSet
from pointseg.models.trained_model import TrainedSpec
from pointseg.scene import Scene

Labels = NDArray[np.integer[Any]]


def labels_file(out: Path, split: str, scene: str) -> Path:
    """The file of the predicted classes of a scene."""
    return out / "labels" / split / f"{scene}.npy"


def input_digest(scene: Scene, trained: TrainedSpec, images: ImageSet | None) -> str:
    """SHA-256 of everything that a prediction is made from, apart from the model."""
    digest = hashlib.sha256(np.ascontiguousarray(scene.coord).tobytes())
    for name in (*trained.needs, "image_coord", "image_mask", "image_view"):
        if name in scene:
            digest.update(np.ascontiguousarray(scene[name]).tobytes())
    if images is not None:
        values = images.images if images.maps is None else images.maps.contiguous().numpy()
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def save_labels(path: Path, labels: Labels, how: dict[str, Any]) -> None:
    """Write labels, then the record that makes them valid.

    Args:
        path: as ``labels_file`` names it.
        labels: (N,) classes.
        how: everything that decides the labels.
    """
    with new_file(path) as part:
        np.save(part, labels)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json(_record(path), {**how, "points": len(labels), "labels_sha256": digest})


def read_valid_labels(path: Path, how: dict[str, Any], points: int) -> Labels | None:
    """Labels that are complete and were made in the same way; else None."""
    try:
        record = json.loads(_record(path).read_text(encoding="utf-8"))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if record != {**how, "points": points, "labels_sha256": digest}:
            return None
        labels: Labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return labels if labels.shape == (points,) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically; the folder is created if necessary."""
    with new_file(path) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
