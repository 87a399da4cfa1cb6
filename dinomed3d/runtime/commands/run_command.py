"""How every command ends: exit codes, one-line errors, signals. Imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from dinomed3d.runtime.commands.signals import end_gently
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.temporary_folder import ensure_temporary_folder
from dinomed3d.runtime.hardware.shared_memory import explain_full_shared_memory
from dinomed3d.runtime.messages.terminal_text import one_line, print_any_text


def run_command(
    name: str,
    run: Callable[[], int],
    *,
    results: str | Path | None = None,
    alone: str = "--workers 0",
    again: str = "",
) -> int:
    """Run a command; an error of the user, or of a disk or folder, becomes one line on stderr.

    Args:
        name: of the command, which begins the line.
        run: the command; its imports are late, too.
        results: folder or file that it writes; temporary files lie there if the system has no folder for them.
        alone: option with which it starts no worker processes.
        again: what an interruption leaves, and what the same command does with it.

    Returns:
        Exit code: what ``run`` returns, 2 for an error that the user can fix, 130 when interrupted.
    """
    end_gently()
    print_any_text()
    try:
        if results is not None:
            ensure_temporary_folder(Path(results))
        return run()
    except KeyboardInterrupt:
        print(f"{name}: interrupted{f'; {again}' if again else ''}", file=sys.stderr)
        return 130
    except (UserError, OSError, RuntimeError) as error:
        reason = explain_full_shared_memory(error, alone=alone)
        if reason is None and not isinstance(error, (UserError, OSError)):
            raise  # a bug in the program
        print(f"{name}: {one_line(reason or _reason(error))}", file=sys.stderr)
        return 2


def _reason(error: Exception) -> str:
    """What happened, and with which file: a system's error says so in fields of its own."""
    if isinstance(error, OSError) and not isinstance(error, UserError) and error.strerror:
        where = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([" -> ".join(where), error.strerror] if where else [error.strerror])
    return str(error) or type(error).__name__
