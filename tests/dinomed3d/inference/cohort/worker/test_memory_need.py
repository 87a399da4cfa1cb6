"""Memory that a case needs, and how it is cut to fit."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.footprint import GIB, Footprint
from dinomed3d.inference.cohort.worker.memory_need import (
    ALLOCATOR_FACTOR,
    CHUNK_BYTES,
    MAX_SPLITS,
    estimate,
)
from dinomed3d.inference.nnunet.plan import read_plan
from tests.dinomed3d.inference.models.write_model import tiny_dataset, tiny_plans

NOTHING = Footprint(base=0, window=0)
PLAIN = {"spec": PredictSpec(source="i", out="o", model="m"), "ending": ".nii"}


def plan(heads=3, patch=(10, 10, 10)):
    read = read_plan(
        SimpleNamespace(
            plans=tiny_plans(), dataset=tiny_dataset(), configuration="3d_fullres", source="m"
        )
    )
    return replace(read, transpose=(0, 1, 2), spacing_mm=(1.0, 1.0, 1.0), patch=patch, heads=heads)


def test_by_hand():
    # 100 x 100 x 100 of 1 mm, the network's own grid: raw 4 + data 4 + mask 1 bytes a voxel,
    # sums 2 * (heads + 1) * 10 planes, export 32 * heads of one plane
    need = estimate((100, 100, 100), (1, 1, 1), plan(), NOTHING, 10 * GIB, **PLAIN)
    plane = 100 * 100
    sweep = 9_000_000 + 2 * 4 * 10 * plane + 32 * 3 * plane + CHUNK_BYTES
    assert need.splits == 1
    assert need.peak == int(ALLOCATOR_FACTOR * max(sweep, 4_000_000 + 4_000_000 + CHUNK_BYTES))


def test_more_heads_more_splits_until_nothing_helps():
    wide = plan(heads=400, patch=(50, 50, 50))
    one = estimate((100, 400, 100), (1, 1, 1), wide, NOTHING, 100 * GIB, **PLAIN)
    assert one.splits == 1
    limit = one.peak - 1
    cut = estimate((100, 400, 100), (1, 1, 1), wide, NOTHING, limit, **PLAIN)
    assert cut.splits == 2 and cut.peak <= limit
    least = 0
    for shrink in range(1, 60):
        try:
            least = estimate(
                (100, 400, 100), (1, 1, 1), wide, NOTHING, limit // shrink, **PLAIN
            ).peak
        except CaseError as error:
            assert f"{MAX_SPLITS} parts" in str(error) and "--memory-limit" in str(error)
            break
    assert 0 < least < one.peak / 4


def test_the_base_counts():
    base = Footprint(base=5 * GIB, window=0)
    with pytest.raises(CaseError, match="needs about 5.2 GiB"):
        estimate((100, 100, 100), (1, 1, 1), plan(), base, 5 * GIB, **PLAIN)


def test_a_refusal_shows_both_grids_and_doubts_an_odd_unit():
    with pytest.raises(CaseError) as caught:
        estimate((400, 400, 400), (2, 1, 1), plan(), NOTHING, GIB // 2, **PLAIN)
    assert (
        "400 x 400 x 400 voxels of 2 x 1 x 1 mm become 800 x 400 x 400 of the model's 1 x 1 x 1 mm"
        in str(caught.value)
    )
    assert "--memory-limit" in str(caught.value)
    with pytest.raises(CaseError, match="unit of the voxel size") as caught:
        estimate((16, 32, 32), (1e15, 1e15, 1e15), plan(), NOTHING, GIB, **PLAIN)  # at once
    assert "--memory-limit" not in str(caught.value)
    assert "e+" in str(caught.value) and len(str(caught.value)) < 300  # no numbers of 80 digits
