"""The demo's folder: what it replaces and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dinomed3d.cli.demo.folder import prepare_folder
from dinomed3d.runtime.errors import UserError


def test_folder_is_made_and_marked(tmp_path: Path) -> None:
    out = prepare_folder(tmp_path / "new" / "demo", overwrite=False)
    assert out.is_absolute()
    assert {"nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"} <= {
        p.name for p in out.iterdir()
    }


def test_earlier_demo_is_replaced_only_when_asked_and_nothing_else_is_touched(
    tmp_path: Path,
) -> None:
    out = prepare_folder(tmp_path, overwrite=False)
    (out / "nnUNet_results" / "old.pth").write_text("old")
    (out / "notes.txt").write_text("the user's")
    with pytest.raises(UserError, match="--overwrite"):
        prepare_folder(tmp_path, overwrite=False)
    prepare_folder(tmp_path, overwrite=True)
    assert not (out / "nnUNet_results" / "old.pth").exists()
    assert (out / "notes.txt").read_text() == "the user's"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_a_demo_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "nnUNet_results").mkdir()
    with pytest.raises(UserError, match="holds no earlier demo"):
        prepare_folder(tmp_path, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["nnUNet_results"]
