"""Scenes as new PLY files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.columns.from_scene import columns_of
from pointseg.files.ply.header import NAMES
from pointseg.files.table.rows import as_rows, storable
from pointseg.scene import Scene


def write_ply(path: Path, scene: Scene, comments: Sequence[str] = ()) -> None:
    """A scene as a little-endian PLY file; positions are doubles if it has an origin."""
    columns = {key.replace(" ", "_"): storable(v) for key, v in columns_of(scene).items()}
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in comments)]
    lines.append(f"element vertex {len(scene)}")
    kinds = {key: f"{v.dtype.kind}{v.dtype.itemsize}" for key, v in columns.items()}
    lines += [f"property {NAMES[kind]} {key}" for key, kind in kinds.items()]
    header = "\n".join([*lines, "end_header", ""]).encode()
    with new_file(path) as part:
        part.write_bytes(header + as_rows(columns).tobytes())
