"""How every command ends: exit codes, one-line errors, signals. Imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.signals import end_gently


def run_command(name: str, run: Callable[[], int]) -> int:
    """Run a command; an error of the user becomes one line on stderr.

    Returns:
        Exit code: what ``run`` returns, 2 for an error that the user can fix, 130 when interrupted.
    """
    end_gently()
    try:
        return run()
    except (UserError, OSError) as error:  # OSError: a folder that cannot be written, a full disk
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
