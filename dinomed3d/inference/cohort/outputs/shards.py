"""Which cases each of several shards of one run predicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from dinomed3d.inference.case import Case, CaseList
from dinomed3d.runtime.files.atomic_files import write_once


def take_shard(found: CaseList, shard: tuple[int, int] | None, out: Path) -> CaseList:
    """Select the cases and rejected inputs of one shard.

    The first shard to start writes the division into the output folder, and all shards use it, also
    if scans are added in the meantime.

    `shard` is (i, n), counted from 1; None selects everything.
    """
    if shard is None:
        return found
    number, count = shard
    path = out / f".division-into-{count}.json"
    write_once(path, json.dumps(divide(found.cases, count)).encode("ascii"))
    division = json.loads(path.read_text(encoding="ascii"))

    def is_mine(name: str) -> bool:
        # what was added later is divided by its name alone, in the same way by all shards
        late = int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest(), 16) % count
        return int(division.get(name, late + 1)) == number

    return CaseList(
        cases=tuple(case for case in found.cases if is_mine(case.id)),
        rejected=tuple(one for one in found.rejected if is_mine(one.id)),
        left_out=found.left_out,
        ignored=found.ignored,
    )


def divide(cases: Iterable[Case], count: int) -> dict[str, int]:
    """Assign each case a shard from 1: the largest first, each to the shard with the fewest bytes."""
    loads = [0] * count
    division = {}
    for case in sorted(cases, key=lambda case: (-case.size_bytes, case.id)):
        smallest = loads.index(min(loads))
        loads[smallest] += max(1, case.size_bytes)
        division[case.id] = smallest + 1
    return division
