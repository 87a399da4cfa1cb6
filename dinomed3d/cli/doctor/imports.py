"""Imports that may fail: what `doctor` says of them."""

from __future__ import annotations

import importlib

REINSTALL = "in dinomed3d's source folder: pip install --force-reinstall --no-deps ."
"""What to do where the package's own modules cannot be found or imported."""


def import_error(name: str) -> str:
    """Why a package cannot be imported; empty if it can."""
    try:
        importlib.import_module(name.replace("-", "_"))
    except Exception as error:  # whatever it is, our import would fail with it
        return one_line_of(error)
    return ""


def one_line_of(error: BaseException) -> str:
    """An error with its class, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())
