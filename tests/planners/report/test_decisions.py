"""The decisions of a plan: one row each, with the reason that the rules had."""

from __future__ import annotations

from typing import Any

import pytest

from examples.benchmarks.fingerprints import FINGERPRINTS, size
from planners.report.decisions import decisions
from planners.sizing.search import ENCODER_CANDIDATES

SMALL = ENCODER_CANDIDATES[-1]


def test_every_decision_has_a_reason() -> None:
    for name, fingerprint in FINGERPRINTS.items():
        sizing = size(name, 12)
        rows = {row.what: row for row in decisions(fingerprint.stats, sizing, 12, {})}
        assert all(row.value and row.why for row in rows.values())
        assert {"patch", "batch", "CNN", "tokens", "encoder", "checkpointing", "taps", "tuned blocks",
                "slices per embedding", "3D adapters", "tokens enter", "a step", "stage I",
                "stage lengths"} <= rows.keys()  # fmt: skip
        assert rows["patch"].value == " x ".join(map(str, sizing.trial.patch))
        assert rows["encoder"].value == sizing.spec.encoder
        assert rows["batch"].value == str(sizing.trial.batch)


@pytest.mark.parametrize(
    ("name", "gib", "forced", "what", "words"),
    [
        ("brain tumour", 8, {}, "patch", "nnU-Net's rule for 8 GiB"),
        ("117 labels", 12, {}, "patch", "so that the whole step fits"),
        ("brain tumour", 8, {}, "tokens", "the finest within 50%"),
        ("hippocampus", 12, {}, "tokens", "the cheapest"),
        ("brain tumour", 8, {"slices_per_token": 3}, "tokens", "DINOMED3D_SLICES_PER_TOKEN"),
        ("prostate", 24, {}, "encoder", "next larger"),
        ("prostate", 12, {"encoder": SMALL}, "encoder", "set by the user"),
        ("brain tumour", 12, {}, "slices per embedding", "divided among 4 channels"),
        ("ultrasound", 12, {}, "slices per embedding", "no neighbours"),
        ("prostate", 12, {"components": ("detail",)}, "encoder", "DINOMED3D_COMPONENTS"),
    ],
)
def test_reasons_are_those_of_the_rules(
    name: str, gib: float, forced: dict[str, Any], what: str, words: str
) -> None:
    rows = decisions(FINGERPRINTS[name].stats, size(name, gib, forced), gib, forced)
    assert words in {row.what: row.why for row in rows}[what]
