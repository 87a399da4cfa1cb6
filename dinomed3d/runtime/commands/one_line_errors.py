"""A user's mistake as one line where nnU-Net's own commands run our classes, as in commands of ours."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.terminal_text import one_line

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]


class OneLineHook:
    """An `excepthook` with one line for errors of users and for Ctrl-C; others are left to the former one."""

    def __init__(self, command: str, former: Hook) -> None:
        """Keep the command's name for the line, and the hook for other errors."""
        self.command = command
        self.former = former

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Report an error that ends the program.

        Raises:
            SystemExit: exit code 2 after an error of the user, 130 after Ctrl-C.
        """
        if isinstance(error, KeyboardInterrupt):
            print(f"{self.command}: interrupted", file=sys.stderr)
            raise SystemExit(130)
        if not isinstance(error, UserError):
            self.former(kind, error, trace)
            return
        print(f"{self.command}: {one_line(str(error))}", file=sys.stderr)
        raise SystemExit(2)


def report_user_errors() -> None:
    """Report a UserError that ends one of nnU-Net's commands as one line and exit code 2, without a traceback.

    Only the program's last resort is changed, and only in these commands: whoever calls our classes
    from Python gets the error.
    """
    command = Path(sys.argv[0]).stem if sys.argv else ""
    if command.startswith("nnUNetv2_") and not isinstance(sys.excepthook, OneLineHook):
        sys.excepthook = OneLineHook(command, sys.excepthook)
