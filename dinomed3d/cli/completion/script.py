"""Scripts with which shells complete our commands, made from the commands' own parsers."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dinomed3d.runtime.commands.argument_parser import parser_of
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.extras import how_to_install

FOLDERS = ("DIR", "FOLDER")
"""Metavars of options that take a folder."""
FILES = ("FILE", "FILES", "IN", "OUT", "MODEL", "CLOUD", "WHERE", "PATH", "YAML")
"""Metavars of options that take a file or a folder, where their type is text."""
_POWERSHELL = Path(__file__).parent / "paths.ps1"
"""Functions that offer paths in PowerShell."""
_END = "DINOMED3D_END_OF_SCRIPT"


def completion_script(shell: str) -> str:
    """The script for all console commands of the installed package.

    Args:
        shell: one that shtab knows: bash, zsh, fish, powershell.

    Raises:
        UserError: shtab or the package itself is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise UserError(
            f"completion needs shtab, which is not installed; {how_to_install('completion')}"
        ) from error
    scripts = []
    for parser in _parsers():
        _say_what_to_complete(parser, shtab.FILE, shtab.DIRECTORY)
        scripts.append(shtab.complete(parser, shell))
    if shell == "zsh":
        return _for_zsh(scripts)
    if shell == "powershell":
        return _for_powershell(scripts)
    return "\n\n".join(scripts)


def _parsers() -> Iterator[argparse.ArgumentParser]:
    """The parsers of all console commands, named as they are typed."""
    try:
        entries = importlib.metadata.distribution("dinomed3d").entry_points
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "completion: the package is run from its source folder; install it there: pip install ."
        ) from error
    for entry in entries.select(group="console_scripts"):
        parser = parser_of(entry.load())
        parser.prog = entry.name
        yield parser


def _say_what_to_complete(parser: argparse.ArgumentParser, file: Any, folder: Any) -> None:
    """Mark, as shtab wants it, the options whose values are paths, and name known values of others."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _say_what_to_complete(verb, file, folder)
            continue
        if action.nargs == 0 or action.choices is not None:
            continue
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if known := getattr(action.type, "known", None):
            action.choices = known
        elif "--encoder" in action.option_strings:
            action.choices = _encoders()
        elif metavar in FOLDERS:
            action.complete = folder  # type: ignore[attr-defined]
        elif action.type is Path or metavar in FILES:
            action.complete = file  # type: ignore[attr-defined]


def _encoders() -> tuple[str, ...]:
    from dinomed3d.lifting import MODELS

    return tuple(MODELS)


def _for_zsh(scripts: list[str]) -> str:
    """Scripts for zsh, each of which expects to be evaluated where a single file is read."""
    parts = ["(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }"]
    parts += [f"eval \"$(cat <<'{_END}'\n{script}\n{_END}\n)\"" for script in scripts]
    return "\n".join(parts)


def _for_powershell(scripts: list[str]) -> str:
    """Scripts for PowerShell, with functions of ours for paths, which put those with blanks into quotes."""
    theirs = "if ($wordToComplete -and $allTokens[-1] -eq $wordToComplete) {"
    ours = "if ($wordToComplete -and (_dinomed3d_bare $allTokens[-1]) -eq (_dinomed3d_bare $wordToComplete)) {"
    paths = _POWERSHELL.read_text(encoding="utf-8")
    return "\n\n".join([*(script.replace(theirs, ours) for script in scripts), paths])
