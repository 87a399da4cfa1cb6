"""Scans, and whole runs over them in this process, for the tests of this room."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from dinomed3d.inference.cohort.events import CaseEnded, CasesFound
from dinomed3d.inference.cohort.outputs.resume import Worklist
from dinomed3d.inference.cohort.run import predict

AFFINE = np.array([[-1.1, 0, 0, 20], [0, 0.9, 0.1, -7], [0, -0.1, 1.3, 3], [0, 0, 0, 1]])


def write_scan(path: Path, seed: int = 0, shape=(24, 20, 18), affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal([n // 3 + 1 for n in shape])
    fine = np.kron(coarse, np.ones((3, 3, 3)))[tuple(slice(n) for n in shape)]
    nib.save(nib.Nifti1Image((fine * 100).astype(np.int16), affine), path)
    return path


def run(spec, **changes):
    events = []
    return predict(replace(spec, **changes), events.append), events


def record(spec, case):
    return json.loads((Path(spec.out) / f"{case}.json").read_text())


def done_in(events):
    return {event.case for event in events if isinstance(event, CaseEnded)}


def worklist(events) -> Worklist:
    assert isinstance(events[0], CasesFound)
    return events[0].work
