"""The same image under two names: in training and test, twice in training, or as two channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dinomed3d.dataset.findings import CaseFault, Fault
from dinomed3d.dataset.voxels import CaseVoxels

FAULTS: Mapping[str, Fault] = {
    "in test": Fault(
        topic="duplicates",
        says="of imagesTs have the voxels of a training case, so that a score on imagesTs means little",
        fix="take them out of imagesTs, or out of imagesTr and labelsTr",
    ),
    "same name": Fault(
        topic="duplicates",
        says="in imagesTs have the name of a training case, and other voxels",
        fix="rename them: results of both would have one name",
        state="note",
    ),
    "twice": Fault(
        topic="duplicates",
        says="have the same voxels as another training case; in training and validation of one fold they make its "
        "score too good",
        fix="keep one of each, or write splits_final.json so that they are in one part",
        state="note",
    ),
    "channels": Fault(
        topic="duplicates",
        says="have the same voxels in two channels",
        fix="check which file was copied under both names",
        state="note",
    ),
}


def find_duplicates(
    training: Iterable[CaseVoxels], test: Iterable[CaseVoxels], test_names: Iterable[str]
) -> list[CaseFault]:
    """Cases with the same voxels.

    Args:
        training: what was read of training cases.
        test: likewise of test cases, of those at least that have the shape of a training case.
        test_names: of all test cases.
    """
    faults = []
    first: dict[tuple[str, ...], str] = {}
    names = set()
    for one in sorted(training, key=lambda one: one.case):
        names.add(one.case)
        if not one.digests:
            continue
        if len(set(one.digests)) < len(one.digests):
            faults.append(CaseFault("channels", one.case))
        if one.digests in first:
            faults.append(CaseFault("twice", one.case, f"as {first[one.digests]}"))
        first.setdefault(one.digests, one.case)
    copied = {one.case: first[one.digests] for one in test if one.digests in first}
    faults += [CaseFault("in test", case, f"as {other}") for case, other in copied.items()]
    faults += [CaseFault("same name", name) for name in set(test_names) & names - copied.keys()]
    return faults
