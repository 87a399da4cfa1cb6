"""How much main memory this process may take: the machine's, and what it and its control groups are allowed.

Containers and jobs of a scheduler run in control groups with a limit of their own (cgroup v1 and v2). The
system ends a process that exceeds it, without a message, so work is sized by this one rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CGROUPS = Path("/sys/fs/cgroup")
"""Mount point of control groups of version 2; those of version 1 are mounted below it."""
OWN_GROUPS = Path("/proc/self/cgroup")
"""File that names the control groups of this process."""


class _Files(NamedTuple):
    """Names of a control group's files."""

    limit: str
    usage: str
    stat_prefix: str
    """How lines of memory.stat begin that count all groups below, too."""


_VERSION_2 = _Files("memory.max", "memory.current", "")
_VERSION_1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


def free_bytes() -> int:
    """Main memory that this process can still take, in bytes.

    That is the least of what the machine has available, what is left of the address space that the process is
    allowed (``ulimit -v``) and, for each control group that it is in, its limit less its usage. Pages of files
    that were read count as free: the system gives them up.
    """
    import psutil

    free = int(min(psutil.virtual_memory().available, _address_space_left()))
    for group, files in _control_groups():
        try:
            limit = int((group / files.limit).read_text(encoding="ascii"))
            usage = int((group / files.usage).read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such group here, or "max"
            continue
        free = min(free, max(0, limit - usage + _file_pages(group, files.stat_prefix)))
    return free


def resident_bytes() -> int:
    """Main memory that this process takes now, in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def _address_space_left() -> float:
    """Bytes that this process may still map; infinite where nothing limits it."""
    import psutil

    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    return max(0, limit - int(psutil.Process().memory_info().vms))


def _control_groups() -> Iterator[tuple[Path, _Files]]:
    """The groups that limit this process: its own and all above it."""
    own = {"": "/", "memory": "/"}  # version 2, and version 1
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        lines = []
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        own.update({name: path for name in controllers.split(",") if name in own})
    for root, path, files in (
        (CGROUPS, own[""], _VERSION_2),
        (CGROUPS / "memory", own["memory"], _VERSION_1),
    ):
        group = root / path.lstrip("/")  # in a container, the host's path: only its root is there
        yield from ((folder, files) for folder in (group, *group.parents) if root in folder.parents)
        yield root, files


def _file_pages(group: Path, prefix: str) -> int:
    """Bytes of files in memory that the system gives up as soon as a program wants them."""
    try:
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return sum(int(found.get(f"{prefix}{kind}_file", "0")) for kind in ("active", "inactive"))
