"""What the summary of a run says of it."""

import json
import shutil
from pathlib import Path

from dinomed3d.inference.models.package import package_model
from tests.dinomed3d.inference.cohort.runs import run


def test_reports_name_a_model_of_the_hub_and_not_where_its_cache_is(spec, tmp_path):
    commit = "0123456789" * 4
    folder = tmp_path / "hub" / "models--us--tiny" / "snapshots" / commit
    folder.mkdir(parents=True)
    file = shutil.copy(package_model(Path(spec.model), tmp_path / "m.zip"), folder / "model.zip")
    run(spec, model=str(file))
    text = (Path(spec.out) / "run.json").read_text(encoding="utf-8")
    content, name = json.loads(text), f"hf:us/tiny@{commit}"
    assert content["model"]["source"] == content["spec"]["model"] == name
    assert "snapshots" not in text
