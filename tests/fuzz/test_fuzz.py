"""Damaged and lying inputs: read rightly, or refused in one sentence that names the file.

Never another error, a crash, no end, more than 2 GiB, or another result than the sound file's: where a
checksum covers the bytes (gzip, zip, checkpoints), the same or a refusal; where a file says how long it is,
the same or a refusal if its end is missing; where rows of plain numbers have no checksum, a damaged byte
changes one number. DINOMED3D_FUZZ_SECONDS=600 tries new seeds for so long, from DINOMED3D_FUZZ_SEED on.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.fuzz import damage
from tests.fuzz.planted import WRONG
from tests.fuzz.run import fuzz

SECONDS = float(os.environ.get("DINOMED3D_FUZZ_SECONDS", "0"))
FIRST = int(os.environ.get("DINOMED3D_FUZZ_SEED", "0" if SECONDS == 0 else "1000"))
ROUNDS = 24
"""Seeds that are tried in any case; the same each time, so that an error does not come and go."""
MOST_S = 100
"""Bound of a run without DINOMED3D_FUZZ_SECONDS, on whatever machine."""


@pytest.mark.timeout(max(SECONDS, MOST_S) + 400)
def test_whatever_is_damaged_is_read_rightly_or_refused_by_name(tmp_path: Path) -> None:
    count = 10**9 if SECONDS else ROUNDS
    done, findings = fuzz(work=tmp_path, first=FIRST, count=count, seconds=SECONDS or MOST_S)
    assert not findings, "\n".join(map(str, findings))
    assert done > 100


def test_the_test_notices_what_must_not_be(tmp_path: Path) -> None:
    expected = {name for name in WRONG if name != "memory" or sys.platform.startswith("linux")}
    _, findings = fuzz(
        work=tmp_path, first=3, count=4, seconds=60, kinds=["planted"], hangs_after_cpu_s=1
    )
    assert {found.kind for found in findings} == expected
    assert "hangs" in next(found.problem for found in findings if found.kind == "hang")
    assert "crash" in next(found.problem for found in findings if found.kind == "crash")


def test_damage_is_the_same_for_the_same_seed_and_changes_something() -> None:
    content = b"ply\nelement vertex 12\nproperty float x\n" * 30
    for make in (damage.bytes_damaged, damage.text_damaged):
        made = [make(random.Random(seed), content) for seed in range(40)]
        assert made == [make(random.Random(seed), content) for seed in range(40)]
        assert sum(one.content != content for one in made) > 30
    for one in (damage.bytes_damaged(random.Random(seed), content) for seed in range(200)):
        if one.at is not None:  # says which bytes differ
            differ = [
                i for i, (a, b) in enumerate(zip(content, one.content, strict=True)) if a != b
            ]
            assert differ == sorted(one.at)
