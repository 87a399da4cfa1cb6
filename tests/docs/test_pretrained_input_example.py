"""The Python example of pretrained 3D encoders in docs/point_clouds.md runs as it stands."""

from __future__ import annotations

from tests.docs.pages import block


def test_it_prints_what_it_says(capsys):
    code = block("docs/point_clouds.md", "pretrained_input")
    exec(code, {})
    assert capsys.readouterr().out == code.splitlines()[-1].split("# ")[1] + "\n"
