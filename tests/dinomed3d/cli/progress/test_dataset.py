"""What `doctor -d` shows while it reads a dataset."""

import pytest

from dinomed3d.cli.progress import dataset


@pytest.mark.parametrize(
    ("live", "shown"),
    [
        (False, ["voxels: 2 of 10, about 2 min left", "voxels: 10 of 10"]),
        (True, ["voxels: 1 of 10, about 3 min left", "voxels: 2 of 10, about 2 min left"]),
    ],
    ids=["log", "terminal"],
)
def test_lines(live, shown, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(dataset.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(dataset.sys.stderr, "isatty", lambda: live, raising=False)
    progress = dataset.DatasetProgress()
    for at, done in ((0, 0), (20, 1), (31, 2), (31.1, 3), (155, 10)):
        now[0] = at
        progress("voxels", done, 10)
    written = capsys.readouterr().err.replace("\r", "").split("\x1b[K" if live else "\n")
    assert [line for line in written if line] == shown
