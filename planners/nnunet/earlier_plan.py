"""What is left in a plan's file from an earlier planning."""

from __future__ import annotations

import json
from pathlib import Path

from dinomed3d.runtime.files.atomic_files import atomic_write

STANDARD = {"2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"}
"""Names of the configurations that a planner makes."""


def drop_stale(path: Path, planned: set[str]) -> None:
    """Remove standard configurations of an earlier plan, which nnU-Net would keep.

    They were sized for another memory or spacing. Configurations that a user added stay.

    Args:
        path: the plan's file; there may be none yet.
        planned: names of the configurations that are planned now.
    """
    if not path.is_file():
        return
    old = json.loads(path.read_text(encoding="utf-8"))
    stale = STANDARD & old["configurations"].keys() - planned
    if stale:
        for name in stale:
            del old["configurations"][name]
        atomic_write(path, json.dumps(old, indent=4).encode())
        print(f"{path.name}: {', '.join(sorted(stale))} of an earlier plan are removed")
