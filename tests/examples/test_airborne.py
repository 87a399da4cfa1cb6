"""examples/benchmarks/airborne.py on made-up tiles, its commands in this process."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from tests import ROOT

sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))
import airborne


def test_tiles_come_back_with_asprs_codes(tmp_path, monkeypatch, capsys):
    def run(command, *words):
        assert importlib.import_module(f"pointseg.cli.{command}").main(words) == 0

    monkeypatch.setattr(airborne, "run", run)
    monkeypatch.setattr(sys, "argv", ["airborne.py", "--tiny", "--work", str(tmp_path)])
    airborne.main()
    found = json.loads((tmp_path / "results.json").read_text())
    written = found.pop("written")
    (scores,) = found.values()
    assert set(scores["iou"]) == set(airborne.CODES) and 0 <= scores["miou"] <= 1
    assert sum(written["codes"].values()) == written["points"] == 3000
    assert written["former_classification_kept"] and (tmp_path / "tile.png").exists()
    capsys.readouterr()
    # the result is compared in every dimension: what is lost is an error
    monkeypatch.setattr(airborne, "CODES", {"ground": 99})
    (folder,) = tmp_path.glob("minkunet-*")
    with pytest.raises(SystemExit, match="strange codes"):
        airborne.write_back(made_up(tmp_path), folder / "best.pt", tmp_path / "again")


def made_up(folder):
    """A tile like those that the model was trained on."""
    airborne.made_up_tiles(folder / "tiles")
    return folder / "tiles" / "tile0.laz"
