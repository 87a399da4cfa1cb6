"""Text that others wrote, such as names of files and series, made safe for terminals and logs.

Records, reports and results keep the true text; only what is printed is cleaned.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import unicodedata

_LINE_ENDS = re.compile(r"[ \t]*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_CONTROLLING = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode's categories of controls, formats (bidirectional ones among them), surrogates and line separators."""
_JOINERS = "\u200c\u200d"
"""Formats that Persian, Indian scripts and emoji need, and that move nothing."""


def one_line(text: str) -> str:
    r"""A message as one line that cannot control a terminal: escape sequences and the like are spelled out.

    Line ends become a space, so that no name can forge a line of its own.

    Args:
        text: may hold names and texts from elsewhere.

    Examples:
        `"a\nfailed: b"` -> `"a failed: b"`; an escape (27) becomes the four characters `\x1b`.
    """
    return text if text.isprintable() else _spelled_out(_LINE_ENDS.sub(" ", text))


def lines_of(text: str) -> str:
    r"""A table or report of several lines, each of which is cleaned; only `\n` ends a line."""
    return "\n".join(_spelled_out(line) for line in text.split("\n"))


def print_any_text() -> None:
    """Let names be printed that the terminal's encoding lacks, and log messages be one clean line each."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_OneLineFormatter())


class _OneLineFormatter(logging.Formatter):
    """Log messages as lines that cannot control a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone, as Python shows it where no handler is set, cleaned."""
        return one_line(super().format(record))


def _spelled_out(text: str) -> str:
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(sign: str) -> str:
    if sign.isprintable() or sign in _JOINERS or unicodedata.category(sign) not in _CONTROLLING:
        return sign
    return sign.encode("unicode_escape").decode("ascii")
