"""The scene as one HTML file that opens without a server and without a network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.viewing.panel_html import text_html

if TYPE_CHECKING:
    import viser


def write_page(
    server: viser.ViserServer, path: Path, title: str, about: Sequence[str], legends: Sequence[str]
) -> int:
    """Write what a server shows now.

    Args:
        server: whose scene is written.
        path: the file to be.
        title: of the page.
        about: lines above the legends.
        legends: HTML.

    Returns:
        Bytes of the file.

    Raises:
        WriteError: the system refuses to write.
    """
    page = server.get_scene_serializer().as_html()
    # viser's own notices come at the top left, its buttons at the right
    head = '<div style="position:fixed;bottom:0;left:0;z-index:1000;max-width:24em;max-height:75vh;overflow:auto;'
    style = "margin:0.75em;padding-top:0.5em;border-radius:4px;background:#fffd;color:#222;font-family:sans-serif"
    panel = f'{head}{style}">{text_html([title, *about])}{"".join(legends)}</div>'
    page = page.replace("<title>Viser</title>", f"<title>{html.escape(title)}</title>", 1)
    before, body, after = page.rpartition("</body>")
    with new_file(path) as part:
        part.write_text(f"{before}{panel}{body}{after}", encoding="utf-8")
    return path.stat().st_size
