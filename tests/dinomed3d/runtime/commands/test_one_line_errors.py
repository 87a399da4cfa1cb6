"""A user's mistake in one of nnU-Net's commands is one line; to callers of the library it is the error itself."""

from __future__ import annotations

import sys

import pytest

from dinomed3d.runtime.commands.one_line_errors import report_user_errors
from dinomed3d.runtime.errors import UserError


@pytest.fixture(autouse=True)
def former(monkeypatch):
    """The hook that was there, which keeps what it is given."""
    given: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: given.append(error))
    return given


@pytest.mark.parametrize("program", ["bin/nnUNetv2_train", "Scripts/nnUNetv2_train.exe"])
def test_one_line_in_commands_of_nnunet(monkeypatch, capsys, former, program):
    monkeypatch.setattr(sys, "argv", [program, "4", "3d_fullres", "0"])
    report_user_errors()
    hook = sys.excepthook
    report_user_errors()
    assert sys.excepthook is hook  # once, however many trainers are built
    with pytest.raises(SystemExit) as exit_:
        hook(UserError, UserError("the file must\nexist"), None)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "nnUNetv2_train: the file must exist\n"
    with pytest.raises(SystemExit) as exit_:
        hook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert exit_.value.code == 130
    assert capsys.readouterr().err == "nnUNetv2_train: interrupted\n"
    other = RuntimeError("a fault of ours")
    hook(RuntimeError, other, None)
    assert former == [other]


@pytest.mark.parametrize("program", ["my_script.py", "bin/pytest", "bin/dinomed3d", ""])
def test_other_programs_are_left_alone(monkeypatch, program):
    hook = sys.excepthook
    monkeypatch.setattr(sys, "argv", [program])
    report_user_errors()
    assert sys.excepthook is hook
