"""How many voxels the main memory has room for: systems end programs that ask for more, unasked and unheard."""

from __future__ import annotations

from pathlib import Path

BYTES_PER_VOXEL = 8000
"""What full-size backbones take while they predict in float32, and a little more (PTv3 7000, MinkUNet34C 5000)."""
SHARE = 0.7
"""Of the free memory that a network may take."""
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""What Linux allows the processes of a container or a scheduler's job, and what they take."""


def affordable_voxels() -> int:
    """Voxels that can go through a network on the CPU at once, with the memory that is free now."""
    return int(free_bytes() * SHARE) // BYTES_PER_VOXEL


def free_bytes() -> int:
    """Main memory that this process can still have."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, usage in LIMITS:
        try:
            allowed, taken = (int(path.read_text(encoding="ascii")) for path in (limit, usage))
        except (OSError, ValueError):  # not there, or "max"
            continue
        free = min(free, max(0, allowed - taken))
    return free
