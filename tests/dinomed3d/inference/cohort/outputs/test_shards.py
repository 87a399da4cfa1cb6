"""Shards of a run: disjoint, complete, balanced, with one report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from dinomed3d.inference.case import Case, CaseList, RejectedInput, Scan
from dinomed3d.inference.cohort.outputs.shards import take_shard
from tests.dinomed3d.inference.cohort.runs import done_in, run


def test_shards_are_disjoint_complete_and_balanced(tmp_path):
    rng = np.random.default_rng(0)

    def case(i):
        scan = Scan(files=(f"/{i}",), ending=".nii")
        return Case(id=f"{i:03}", scans=(scan,), size_bytes=int(rng.integers(1, 1000)))

    found = CaseList(
        cases=tuple(case(i) for i in range(100)),
        rejected=tuple(RejectedInput(id=f"r{i}", reason="") for i in range(5)),
    )
    shards = [take_shard(found, (i, 4), tmp_path) for i in range(1, 5)]
    assert sorted(name for shard in shards for name in shard.ids) == found.ids
    loads = [sum(case.size_bytes for case in shard.cases) for shard in shards]
    assert max(loads) - min(loads) < 60
    assert take_shard(found, None, tmp_path) == found
    # what is added later moves nothing
    more = replace(found, cases=(*found.cases, case(100), case(101)))
    later = [take_shard(more, (i, 4), tmp_path) for i in range(1, 5)]
    assert all(set(one.ids) <= set(two.ids) for one, two in zip(shards, later, strict=True))
    assert sum(len(shard.cases) for shard in later) == 102


def test_shards_share_one_report(spec):
    first, _ = run(spec, shard=(1, 2))
    content = json.loads((Path(spec.out) / "run.json").read_text())
    assert content["missing"] and 0 < len(first.done) < 3
    second, _ = run(spec, shard=(2, 2))
    assert not set(first.done) & set(second.done)
    assert json.loads((Path(spec.out) / "run.json").read_text())["missing"] == []
    table = (Path(spec.out) / "report.csv").read_text()
    assert all(case in table for case in (*first.done, *second.done))
    assert not done_in(run(spec, shard=(1, 2))[1])
