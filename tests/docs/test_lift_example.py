"""The Python example of docs/point_clouds.md runs as it stands."""

from __future__ import annotations

from tests.docs.pages import block


def test_the_ten_lines_run(monkeypatch, capsys, tiny_encoder):
    code = block("docs/point_clouds.md", "pointseg.lift_features")
    assert len([line for line in code.splitlines() if line]) <= 10
    opened = []

    def open_tiny(name, weights):
        opened.append((name, weights))
        return tiny_encoder

    monkeypatch.setattr("pointseg.lifting.lift_features.open_encoder", open_tiny)
    exec(code, {})
    assert opened == [("vit_small_patch14_dinov2", "dinov2_vits14.pth")]
    assert capsys.readouterr().out == "(3, 24) [ True  True False]\n"
