"""The sha256 of a mask's file, which says whether it is still the one that was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """The sha256 of a file, as hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_edited(record: Mapping[str, Any], out: Path) -> bool:
    """Whether the mask of a finished case differs from the one that was written."""
    mask = out / record["mask"]["file"]
    return mask.is_file() and sha256(mask) != record["mask"]["sha256"]
