"""Everything that decides the result of a file."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.geometry.ground import ground_settings
from pointseg.models.trained_model import TrainedSpec
from pointseg.prediction.spec import PredictSpec

VERSION = 2
"""Of the prediction of files; results of other versions are made again."""
WRITTEN_ONLY = (
    "colors", "class_codes", "confidence", "reject", "write_classification", "keep_former", "height"
)  # fmt: skip
"""Of what decides a result, what does not decide the classes."""


def how_predicted(
    spec: PredictSpec,
    trained: TrainedSpec,
    protocol: InferenceProtocol,
    codes: tuple[int, ...] | None,
) -> dict[str, Any]:
    """Everything that decides the result of a file, apart from the file."""
    images = spec.images(trained.recipe)
    asked = {
        "confidence": spec.confidence or None,
        "reject": spec.reject,
        "write_classification": spec.write_classification or None,
        "keep_former": None if spec.keep_former else False,
        "height": ground_settings() if spec.height else None,
    }
    return {
        "version": VERSION,
        "checkpoint_sha256": trained.sha256,
        "class_names": list(trained.classes.names),
        "voxel_m": trained.recipe.voxel_m,
        **protocol.as_dict(),
        "precision": spec.precision,
        "images": None if images is None else asdict(images),
        "cameras": None if spec.cameras is None else asdict(spec.cameras),
        "cloud_format": asdict(spec.cloud_format(trained.recipe)),
        "orient_normals": spec.orient_normals,
        "colors": spec.colors,
        "class_codes": None if codes is None else list(codes),
        **{name: value for name, value in asked.items() if value is not None},
    }
