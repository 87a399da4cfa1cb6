"""Predict files of points: each file comes out with a class for every point; a bad file does not stop the others."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from dinomed3d.hub.local_model import name_or_path
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import remove_leftovers
from pointseg.evaluation.image_options import OPTION_OF, refuse_image_options
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.saved_labels import write_json
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.models.trained_model import TrainedSpec, load_model
from pointseg.prediction.inputs.input_files import find_sources
from pointseg.prediction.predict_file import FilePredictor
from pointseg.prediction.results.prediction import Prediction
from pointseg.prediction.spec import PredictSpec


def predict(spec: PredictSpec) -> list[Prediction]:
    """Predict all files; writes a record (``.json``) and pictures next to each result, and ``summary.json``.

    Existing results are kept if they are complete and were made from the same file by the same model in the
    same way. What killed runs have left half-written is removed.

    Raises:
        UserError: no model, no files, several results with one name, or options that do not fit the model.
    """
    sources = find_sources(spec.inputs, spec.out)
    targets = [source.target for source in sources]
    remove_leftovers({*targets, *(target.parent for target in targets)})  # clouds may be folders
    model, trained = load_model(
        spec.model, spec.device, encoder=spec.encoder, backbone=spec.backbone
    )
    for note in trained.notes:
        spec.log(f"model {spec.model}: {note}")
    _check_image_options(spec, trained)
    config = replace(trained.recipe.test, **spec.test_changes)
    predictor = ScenePredictor(
        model,
        trained.recipe,
        len(trained.classes),
        InferenceProtocol(config=config, single_pass=not spec.tta),
        device=spec.device,
        precision=spec.precision,
        log=spec.log,
    )
    job = FilePredictor(spec, trained, predictor)
    results = []
    for number, source in enumerate(sources):
        spec.progress(number, len(sources), source.path.name)

        def report(share: float, name: str = "", number: int = number) -> None:
            spec.progress(number + share, len(sources), name)

        results.append(job.predict(source, report))
    spec.progress(len(sources), len(sources), "")
    if not (len(sources) == 1 and sources[0].target == spec.out):
        files = [asdict(result) for result in results]
        summary = {"model": name_or_path(spec.model), **job.how, "files": files}
        write_json(spec.out / "summary.json", summary)
    return results


def _check_image_options(spec: PredictSpec, trained: TrainedSpec) -> None:
    """Refuse image options for a model that reads no images, and a lack of them for one that does."""
    images = spec.images(trained.recipe)
    if images is None:
        changes: dict[str, Any] = {
            OPTION_OF[key]: value for key, value in spec.image_changes.items()
        }
        given = {"--weights": spec.encoder, "--cameras": spec.cameras, **changes}
        refuse_image_options(spec.model, given)
        return
    if spec.encoder is None:
        raise UserError(
            f"model {spec.model}: reads features of {images.encoder}; give the weights it was trained with "
            "(--weights FILE)"
        )
    if spec.cameras is None and not images.allow_missing_images:
        raise UserError(
            f"model {spec.model}: reads images; say where those of a cloud are with --cameras ('organised' for RGB-D "
            "clouds, a manifest such as '{scene}.cameras.json', or the folder of a COLMAP text model), or predict "
            "without (--allow-missing-images)"
        )
