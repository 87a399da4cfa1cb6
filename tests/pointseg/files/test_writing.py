"""New files appear whole or not at all."""

from __future__ import annotations

import pytest

from pointseg.files import CloudFileError
from pointseg.files.writing import new_file


def test_the_name_appears_at_the_end(tmp_path):
    path = tmp_path / "deep" / "a.ply"
    with new_file(path) as part:
        part.write_text("new")
        assert not path.exists() and part.parent == path.parent and part.suffix == ".ply"
    assert path.read_text() == "new" and [p.name for p in path.parent.iterdir()] == ["a.ply"]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "a.ply"
    path.write_text("old")
    with pytest.raises(RuntimeError), new_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_the_reason_of_the_system_is_told(tmp_path):
    with pytest.raises(CloudFileError, match=r"a\.ply: could not be written: No space left"), \
            new_file(tmp_path / "a.ply"):  # fmt: skip
        raise OSError(28, "No space left on device")
