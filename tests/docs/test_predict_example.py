"""The lines of the guide that predict from Python run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import ROOT
from tests.dinomed3d.inference.cohort.test_run import write_scan
from tests.dinomed3d.inference.models.write_model import write_model


def test_the_lines_of_the_guide_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "volumes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (code,) = [block for block in blocks if "load_model" in block]
    monkeypatch.chdir(tmp_path)
    write_scan(Path("scan.nii.gz"), shape=(24, 20, 18))
    write_model(tmp_path).rename("model.zip")  # what it is shows in the content, not in the name
    exec(code, {})
    assert capsys.readouterr().out == "{'a': [1], 'b': [2]} ('MRI',) (24, 20, 18)\n"
