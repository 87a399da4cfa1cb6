"""Commands for a shell, in messages: those of PowerShell on Windows, of a Unix shell elsewhere."""

from __future__ import annotations

import os
import shlex


def set_variable(name: str, value: object) -> str:
    """The command that sets an environment variable.

    Examples:
        `export nnUNet_raw=/data/raw`; on Windows `$env:nnUNet_raw = 'D:/raw'`.
    """
    if os.name == "nt":
        return f"$env:{name} = {_quoted(value)}"
    return f"export {name}={_quoted(value)}"


def make_folder(path: object) -> str:
    """The command that makes a folder and those above it."""
    return f"mkdir {_quoted(path)}" if os.name == "nt" else f"mkdir -p {_quoted(path)}"


def _quoted(value: object) -> str:
    """A value as the shell takes it as a single word."""
    if os.name == "nt":
        return "'{}'".format(str(value).replace("'", "''"))
    return shlex.quote(str(value))
