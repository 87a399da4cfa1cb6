"""Pieces of HTML for legends; every name that files or folders gave is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from pointseg.viewing.colouring import Scale
from pointseg.viewing.palette import Color

STOPS = 9
"""Colours of a drawn scale, between which browsers mix."""


def text_html(lines: Sequence[str]) -> str:
    """Lines of plain text."""
    inner = "<br>".join(html.escape(line) for line in lines)
    return (
        f'<div style="padding:0 0.75em 0.5em;font-size:0.8em;overflow-wrap:anywhere">{inner}</div>'
    )


def swatch_html(color: Color) -> str:
    """The colour of the row below, which this lies on."""
    return (
        '<div style="height:0;position:relative"><span style="position:absolute;left:10.2em;top:0.2em;width:1.1em;'
        f'height:1.1em;border-radius:3px;border:1px solid #0006;background:{_css(color)}"></span></div>'
    )


def scale_html(scale: Scale) -> str:
    """A scale of colours with its ends."""
    steps = [round(k * (len(scale.colors) - 1) / (STOPS - 1)) for k in range(STOPS)]
    colors = ",".join(_css((int(r), int(g), int(b))) for r, g, b in scale.colors[steps])
    return (
        '<div style="padding:0 0.75em 0.5em;font-size:0.8em">'
        f'<div style="height:0.9em;border-radius:3px;background:linear-gradient(90deg,{colors})"></div>'
        '<div style="display:flex;justify-content:space-between">'
        f"<span>{scale.low:.6g}</span><span>{scale.high:.6g}</span></div></div>"
    )


def legend_html(entries: Sequence[tuple[str, Color]]) -> str:
    """Names with their colours."""
    rows = "".join(
        f'<div><span style="display:inline-block;width:1em;height:1em;margin-right:0.5em;vertical-align:-0.15em;'
        f'border-radius:3px;border:1px solid #0006;background:{_css(color)}"></span>{html.escape(name)}</div>'
        for name, color in entries
    )
    return f'<div style="padding:0 0.75em 0.5em;font-size:0.8em">{rows}</div>'


def _css(color: Color) -> str:
    return "#" + bytes(color).hex()
