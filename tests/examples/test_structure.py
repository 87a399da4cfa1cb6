"""The script that counts this repository, on a tree small enough to count by hand."""

from __future__ import annotations

import sys

from examples import structure
from examples.structure import measure, read_checkout

TREE = {
    "pointseg/__init__.py": '"""A package."""\n',
    "pointseg/one.py": "from pointseg import two\n",
    "pointseg/two.py": "def later():\n    from .sub.three import x\n    return x\n",
    "pointseg/sub/three.py": "from .. import one\nfrom pointseg.cli.run import main\nx = one, main\n",
    "pointseg/cli/run.py": "import pointseg.two\n\n\ndef main():\n" + "    pass\n" * 60,
    "tests/test_one.py": "import pointseg.cli.run\n",
}


def test_counts_of_a_small_tree():
    found = measure(TREE)
    assert found.lines["pointseg"] == 1 + 1 + 3 + 3 + 64
    assert found.lines["tests"] == 1
    assert (found.files["pointseg"], found.files["pointseg/sub"]) == (3, 1)
    assert found.long_functions == [(61, "pointseg/cli/run.py:main")]
    (circle,) = found.circles
    assert circle == [
        "pointseg/cli/run.py", "pointseg/one.py", "pointseg/sub/three.py", "pointseg/two.py",
    ]  # fmt: skip
    assert found.cli_imports == ["pointseg/sub/three.py -> pointseg/cli/run.py"]


def test_it_prints_the_table_and_on_demand_the_lists(monkeypatch, capsys):
    monkeypatch.setattr(structure, "read_checkout", lambda: TREE)
    monkeypatch.setattr(sys, "argv", ["structure.py", "--list"])
    structure.main()
    printed = capsys.readouterr().out
    assert "1, 64\n" in printed  # files and lines of pointseg/cli
    assert "61  pointseg/cli/run.py:main" in printed
    assert "pointseg/sub/three.py -> pointseg/cli/run.py" in printed


def test_this_checkout_has_no_circles_and_no_import_of_a_cli():
    found = measure(read_checkout())
    assert found.circles == []
    assert found.cli_imports == []
