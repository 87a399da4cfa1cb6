"""Classes of the user's own: found where ``python -m`` finds them, refused by name, errors in one line."""

from __future__ import annotations

import sys

import pytest

from dinomed3d.runtime.errors import UserError
from pointseg.plugins import PluginError, errors_of, import_class, is_plugin

MODULES = {
    "fine_plugin": "class Net:\n    class Inner: pass\nvalue = 3\n",
    "broken_plugin": "x = 1\nraise KeyError('no data')\n",
    "needy_plugin": "import a_module_that_is_not_there\n",
    "leaving_plugin": "import sys\nsys.exit(3)\n",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with modules, which is not on the path."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def test_modules_of_the_current_folder_are_found_as_by_python_m(here):
    assert import_class("fine_plugin:Net").__name__ == "Net"
    assert sys.path[0] == str(here)
    assert import_class("fine_plugin:Net") and sys.path.count(str(here)) == 1


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("fine_plugin", ["fine_plugin", "package.module:Class"]),
        ("fine_plugin:Net.Inner", ["package.module:Class"]),
        ("os.system('x'):Net", ["package.module:Class"]),
        ("fine_plugin:value", ["fine_plugin", "value", "it has: Net"]),
        ("fine_plugin:Lost", ["Lost", "it has: Net"]),
        ("lost.plugin:Net", ["no module lost", "current folder"]),
        ("broken_plugin:Net", ["broken_plugin", "KeyError", "broken_plugin.py, line 2"]),
        ("needy_plugin:Net", ["needy_plugin", "a_module_that_is_not_there"]),
        ("leaving_plugin:Net", ["leaving_plugin", "SystemExit"]),
    ],
)
def test_what_cannot_be_imported_is_named(here, name, named):
    with pytest.raises(PluginError) as caught:
        import_class(name)
    assert all(each in str(caught.value) for each in named)


@pytest.mark.parametrize("name", ["ptv3", "folder", "a:b:c", "a b:C", "../x:Y", ":C", "a:", "a.:C"])
def test_other_names_are_no_plugins(name):
    assert not is_plugin(name)


def test_errors_keep_their_cause_and_name_the_line():
    with pytest.raises(
        PluginError, match=r"m:C: load\(\) failed: ZeroDivisionError.*line"
    ) as caught:
        with errors_of("m:C", "load()"):
            1 / 0  # noqa: B018
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("error", [UserError("mine"), MemoryError(), RuntimeError("out of memory")])
def test_what_others_handle_passes(error):
    with pytest.raises(type(error)) as caught:
        with errors_of("m:C", "load()"):
            raise error
    assert caught.value is error
