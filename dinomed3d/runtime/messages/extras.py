"""How to install what only some people need, from wherever the package itself was installed."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname


def how_to_install(extra: str) -> str:
    """The command that installs an extra of pyproject.toml.

    It names the clone or repository from which pip installed the package (PEP 610), so that it works in every folder.
    """
    origin = _origin()
    url, folder = str(origin.get("url", "")), _folder(origin)
    if folder is not None:
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f'pip install {editable}"{folder}[{extra}]"'
    if vcs := origin.get("vcs_info", {}).get("vcs"):
        return f'pip install "dinomed3d[{extra}] @ {vcs}+{url}"'
    return f'in dinomed3d\'s source folder: pip install -e ".[{extra}]"'


def is_editable(distribution: str) -> bool:
    """Whether pip installed it as a link to a source folder."""
    return bool(_origin(distribution).get("dir_info", {}).get("editable"))


def _origin(distribution: str = "dinomed3d") -> dict[str, Any]:
    """What pip wrote down about where a package came from; empty if nothing."""
    try:
        text = importlib.metadata.distribution(distribution).read_text("direct_url.json")
        found = json.loads(text or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _folder(origin: dict[str, Any]) -> Path | None:
    """The source folder that a package came from, if it is still there."""
    if "dir_info" not in origin:
        return None
    folder = Path(url2pathname(urlparse(str(origin.get("url", ""))).path))
    return folder if (folder / "pyproject.toml").is_file() else None
