"""How to install an extra: the command names the place that the package was installed from."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from dinomed3d.runtime.messages.extras import how_to_install, is_editable


class Installed:
    def __init__(self, text):
        self.text = text

    def read_text(self, name):
        return self.text if name == "direct_url.json" else None


@pytest.mark.parametrize(
    ("origin", "expected", "editable"),
    [
        ({"dir_info": {"editable": True}}, 'pip install -e "{}[ray]"', True),
        ({"dir_info": {}}, 'pip install "{}[ray]"', False),
        (
            {"vcs_info": {"vcs": "git"}, "url": "https://x/y"},
            'pip install "dinomed3d[ray] @ git+https://x/y"',
            False,
        ),
        (
            {"dir_info": {}, "url": "file:///gone"},
            'in dinomed3d\'s source folder: pip install -e ".[ray]"',
            False,
        ),
        (None, 'in dinomed3d\'s source folder: pip install -e ".[ray]"', False),
    ],
)
def test_where_it_was_installed_from(origin, expected, editable, tmp_path, monkeypatch):
    clone = tmp_path / "a clone"
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    text = None if origin is None else json.dumps({"url": clone.as_uri(), **origin})
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(text))
    assert how_to_install("ray") == expected.format(clone)
    assert is_editable("dinomed3d") is editable
