"""Scenes as new PCD files."""

from __future__ import annotations

from pathlib import Path

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.columns.from_scene import columns_of
from pointseg.files.table.rows import as_rows, storable
from pointseg.scene import Scene


def write_pcd(path: Path, scene: Scene) -> None:
    """A scene as a binary PCD file; positions are doubles if it has an origin."""
    columns = {key.replace(" ", "_"): storable(v) for key, v in columns_of(scene).items()}
    if "color" in scene:
        red, green, blue = (columns.pop(key).astype("u4") for key in ("red", "green", "blue"))
        columns["rgb"] = red << 16 | green << 8 | blue
    lines = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(columns)}",
        f"SIZE {' '.join(str(v.dtype.itemsize) for v in columns.values())}",
        f"TYPE {' '.join(v.dtype.kind.upper() for v in columns.values())}",
        f"COUNT {' '.join('1' for _ in columns)}",
        f"WIDTH {len(scene)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(scene)}",
        "DATA binary",
        "",
    ]
    with new_file(path) as part:
        part.write_bytes("\n".join(lines).encode() + as_rows(columns).tobytes())
