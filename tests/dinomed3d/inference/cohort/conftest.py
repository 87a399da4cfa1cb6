"""A small model, and a run of it over three scans."""

from __future__ import annotations

import pytest

from dinomed3d.inference.cohort.spec import PredictSpec
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.models.write_model import write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def spec(tmp_path, model):
    for number in range(3):
        write_scan(tmp_path / "in" / f"scan{number}.nii.gz", number)
    return PredictSpec(
        source=str(tmp_path / "in"),
        out=str(tmp_path / "out"),
        model=str(model),
        engine="threads",
        device="cpu",
    )
