"""Where no temporary folder can be written, one among the results takes its place, for children too."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files import temporary_folder
from dinomed3d.runtime.files.temporary_folder import ensure_temporary_folder


@pytest.fixture
def locked(monkeypatch):
    """A system without a writable temporary folder; what is registered to be removed."""

    def none():
        raise FileNotFoundError("No usable temporary directory found")

    removed: list[Path] = []
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    monkeypatch.setattr(
        temporary_folder.atexit, "register", lambda _, folder, **__: removed.append(folder)
    )
    return removed


@pytest.mark.parametrize(("results", "place"), [("out", "out"), ("new/a.ply", "new")])
def test_the_folder_lies_among_the_results(tmp_path, locked, results, place):
    ensure_temporary_folder(tmp_path / results)
    (folder,) = locked
    assert folder.parent == tmp_path / place and folder.name.startswith(".")
    with tempfile.TemporaryDirectory() as made:
        assert Path(made).parent == folder
    assert os.environ["TMPDIR"] == os.environ["TEMP"] == str(folder)


def test_nothing_can_be_written(tmp_path, locked):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="set TMPDIR"):
        ensure_temporary_folder(tmp_path / "file" / "out")


def test_the_system_s_own_folder_is_used_where_there_is_one(tmp_path):
    ensure_temporary_folder(tmp_path / "out")
    assert not (tmp_path / "out").exists()
