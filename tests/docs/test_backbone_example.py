"""The training loop of docs/point_clouds.md runs as it stands, with a small network."""

from __future__ import annotations

import pointseg
from tests.docs.pages import block
from tests.pointseg.backbones.ptv3.test_point_transformer_v3 import TINY


def test_the_loop_learns(monkeypatch, capsys):
    build = pointseg.build_backbone
    monkeypatch.setattr(
        pointseg, "build_backbone", lambda name, **given: build(name, **TINY | given)
    )
    exec(block("docs/point_clouds.md", "pointseg.build_backbone"), {})
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert losses[1] < losses[0]
