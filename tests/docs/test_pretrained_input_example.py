"""The Python example of pretrained 3D encoders in docs/point_clouds.md runs as it stands."""

from __future__ import annotations

import re

from tests import ROOT


def test_it_prints_what_it_says(capsys):
    page = (ROOT / "docs/point_clouds.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (code,) = [block for block in blocks if "pretrained_input" in block]
    exec(code, {})
    assert capsys.readouterr().out == code.splitlines()[-1].split("# ")[1] + "\n"
