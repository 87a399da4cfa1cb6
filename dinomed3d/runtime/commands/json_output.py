"""What ``--json`` does in every command: one JSON object alone on stdout. Imports nothing heavy.

Keys are listed in docs/json_output.md; a key is renamed or removed only with another number in ``format``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, is_dataclass
from os import PathLike, fspath
from typing import Any


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add the option ``--json``."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the results as one JSON object on stdout, alone; null: there is no such number (default: as text)",
    )


@contextmanager
def json_alone(wanted: bool) -> Iterator[None]:
    """While a command works, send what libraries print to stderr, so that stdout holds JSON alone.

    Args:
        wanted: whether ``--json`` was given; without it nothing changes.
    """
    if not wanted:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def print_json(kind: str, content: Mapping[str, Any]) -> None:
    r"""Print the results of a command.

    Args:
        kind: name and version of the keys, ``format`` of the object, such as ``dinomed3d-doctor-1``.
        content: plain values, dataclasses, paths, arrays and numbers of numpy, tensors of one number. NaN and
            infinities become null; text keeps its characters as ``\u`` escapes, so that every terminal takes it.
    """
    print(json.dumps(plain({"format": kind, **content}), indent=1, allow_nan=False))


def plain(value: Any) -> Any:
    """A value as JSON has it.

    Raises:
        TypeError: JSON has nothing for it.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(entry) for entry in value)
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):  # of numpy or torch
        return plain(value.tolist())
    raise TypeError(
        f"print_json: 'content' holds {type(value).__name__}, which JSON has nothing for"
    )
