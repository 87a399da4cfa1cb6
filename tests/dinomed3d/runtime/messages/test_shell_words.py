"""Commands in messages are those of the reader's shell."""

import os
import shlex

from dinomed3d.runtime.messages.shell_words import make_folder, set_variable


def test_a_unix_shell(monkeypatch):
    monkeypatch.setattr(os, "name", "posix")
    assert shlex.split(set_variable("A", "/x/it's y")) == ["export", "A=/x/it's y"]
    assert shlex.split(make_folder("/a b")) == ["mkdir", "-p", "/a b"]


def test_powershell(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    assert set_variable("A", "D:/it's") == "$env:A = 'D:/it''s'"
    assert make_folder("D:/a") == "mkdir 'D:/a'"
