"""pointseg-lift as a command: one line at the end, and refusals that say what to do."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.cli.lift import main
from tests.pointseg.lifting.floor import SEEN, written


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_features_in_a_file_and_one_line(tmp_path, capsys, monkeypatch, tiny_encoder):
    monkeypatch.setattr(
        "pointseg.images.features.encoder.open_encoder", lambda *_, **__: tiny_encoder
    )
    cloud, out = written(tmp_path), tmp_path / "out.npz"
    given = (cloud, "-o", out, "--weights", "none", "--cameras", "cameras.json", "--no-picture")
    assert run(*given, "--device", "cpu") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(
        f"{out}: 57.1% of 7 points are visible in 1 of 1 images, in 1.0 each"
    )
    assert printed.out.count("\n") == 1
    assert "random weights" in printed.err and "2 of 7 points are left out" in printed.err
    found = np.load(out)
    assert found["feat"].shape == (7, 24) and found["seen"].tolist() == SEEN.tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.png", "cameras.json", "floor.ply", "out.npz", "out.npz.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "--cameras"),
        (["--cameras", "cameras.json"], "--weights: give weights"),
        (["--cameras", "absent.json"], "absent.json"),
        (["--cameras", "cameras.json", "--weights", "absent.pth"], "absent.pth"),
        (["--cameras", "cameras.json", "--encoder", "vit", "--weights", "none"], "--encoder vit"),
        (["--cameras", "cameras.json", "--near", "3", "--far", "2"], "--near, --far"),
        (["--images", "images"], "--images"),
    ],
)
def test_refusals_name_the_option(tmp_path, capsys, given, named):
    cloud = written(tmp_path)
    assert run(cloud, "-o", tmp_path / "out.npz", "--device", "cpu", *given) == 2
    printed = capsys.readouterr().err
    assert named in printed and "Traceback" not in printed
    assert not (tmp_path / "out.npz").exists()
