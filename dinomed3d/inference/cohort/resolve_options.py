"""What options ask for is checked and filled in before hours of prediction."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.models.model_files import digest_of
from dinomed3d.inference.models.postprocessing import file_steps, model_steps
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.extras import how_to_install


def resolve(spec: PredictSpec) -> PredictSpec:
    """The options, with the steps of the postprocessing and the checksum of the localizer that they name.

    Raises:
        UserError: there is no such file or model, or the postprocessing is not one of nnU-Net's.
    """
    if spec.localizer is not None:
        spec = replace(spec, localizer_digest=digest_of(Path(spec.localizer)))
    if spec.postprocessing is None:
        return spec
    if spec.postprocessing:
        steps = file_steps(Path(spec.postprocessing))
    else:
        steps = model_steps(Path(spec.model), spec.folds)
    return replace(spec, postprocessing_steps=steps)


def check_with_model(spec: PredictSpec, model: Model) -> None:
    """Check that what is asked for can be written for this model at all.

    Raises:
        UserError: highdicom is not installed, DICOM cannot store the name of a label, or masks would replace scans.
    """
    if spec.dicom_seg and any(find_spec(name) is None for name in ("highdicom", "pydicom")):
        raise UserError(
            f"--dicom-seg needs highdicom, which is not installed; {how_to_install('dicom')}"
        )
    if spec.dicom_seg or spec.dicom_rtstruct:
        from dinomed3d.inference.dicom.segments import foreground_labels

        foreground_labels(model.labels)
    if Path(spec.out).resolve() == Path(spec.source).resolve():
        raise UserError(
            f"-o {Path(spec.out)}: must be another folder than -i, whose scans masks would replace"
        )


def hint_of_postprocessing(spec: PredictSpec, model: Model) -> str | None:
    """A hint where the model has a postprocessing that is not asked for."""
    if model.postprocessing is None or spec.postprocessing is not None:
        return None
    return (
        f"the model has nnU-Net's postprocessing ({model.postprocessing}), which is not applied, as nnUNetv2_predict "
        "does not; --postprocessing applies it"
    )
