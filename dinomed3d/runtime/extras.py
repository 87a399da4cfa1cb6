"""How to install what only some people need."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """The command, in the folder of the sources, that installs an extra of pyproject.toml."""
    return f'in dinomed3d\'s source folder: pip install ".[{extra}]"'
