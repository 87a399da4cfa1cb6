"""Every command: --help at once, and the names that its options accept."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pointseg import cli
from pointseg.cli.train import main as train
from pointseg.config.presets import RECIPES, SIZES
from pointseg.conventions import BACKBONES, DATASETS, NORMAL_ORIENTATIONS, THINNINGS, TTA_NAMES
from pointseg.prediction.inputs.prepare_cloud import ORIENTATIONS
from pointseg.transforms import TTA_SETS
from pointseg.viewing.thinning import THINNING

COMMANDS = (
    "cache_features",
    "check_cameras",
    "distill",
    "eval",
    "package",
    "lift",
    "predict",
    "prepare",
    "test",
    "train",
    "view",
)


@pytest.mark.parametrize("module", COMMANDS)
def test_help_is_instant(module: str) -> None:
    code = (
        f"import sys\nfrom pointseg.cli.{module} import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'pandas', 'PIL', 'tqdm', 'yaml'} & {*sys.modules}\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: pointseg-{module.replace('_', '-')}")


def test_names_that_were_probably_meant(capsys):
    with pytest.raises(SystemExit) as ended:
        train(["--dataset", "scannnet"])
    assert ended.value.code == 2 and "did you mean scannet?" in capsys.readouterr().err


def test_every_choice_has_its_value() -> None:
    assert set(BACKBONES) == set(SIZES)
    assert set(DATASETS) == set(RECIPES)
    assert set(TTA_NAMES) == set(TTA_SETS)
    assert set(NORMAL_ORIENTATIONS) == set(ORIENTATIONS)
    assert set(THINNINGS) == set(THINNING)


def test_no_command_imports_another() -> None:
    for file in Path(cli.__file__).parent.glob("*.py"):
        modules = {
            node.module or ""
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
        }
        assert not modules & {f"pointseg.cli.{command}" for command in COMMANDS}, file
