"""ScanNet v2 with 20 classes and ScanNet200 with 200: class lists, official splits, submissions.

Both read what ``pointseg-prepare --dataset scannet`` wrote.

Source: Dai 2017, arXiv:1702.04405; Rozenberszki 2022, arXiv:2204.07761; the benchmark's label files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.datasets.classes import ClassList
from pointseg.datasets.named_scenes import require_split
from pointseg.datasets.prepared import PreparedScenes
from pointseg.datasets.scannet import classes200
from pointseg.datasets.submission import Results, checked_prediction

NAME = "scannet"

NYU40_IDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
"""Ids of the 20 classes in label files and submissions, by training index."""

CLASSES = ClassList(
    names=(
        "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
        "picture", "counter", "desk", "curtain", "refrigerator", "shower curtain", "toilet", "sink",
        "bathtub", "otherfurniture",
    ),
    colors=np.array(
        [
            [174, 199, 232], [152, 223, 138], [31, 119, 180], [255, 187, 120], [188, 189, 34],
            [140, 86, 75], [255, 152, 150], [214, 39, 40], [197, 176, 213], [148, 103, 189],
            [196, 156, 148], [23, 190, 207], [247, 182, 210], [219, 219, 141], [255, 127, 14],
            [158, 218, 229], [44, 160, 44], [112, 128, 144], [227, 119, 194], [82, 84, 163],
        ],
        np.uint8,
    ),
)  # fmt: skip
"""The 20 classes of the benchmark, with its colours."""

VAL_ROOMS = frozenset(
    int(room)
    for room in """
    0011 0015 0019 0025 0030 0046 0050 0063 0064 0077 0081 0084 0086 0088 0095 0100 0131 0139 0144
    0146 0149 0153 0164 0169 0187 0193 0196 0203 0207 0208 0217 0221 0222 0231 0246 0249 0251 0256
    0257 0277 0278 0300 0304 0307 0314 0316 0328 0329 0334 0338 0342 0343 0351 0353 0354 0355 0356
    0357 0377 0378 0382 0389 0406 0412 0414 0423 0426 0427 0430 0432 0435 0441 0458 0461 0462 0474
    0488 0490 0494 0496 0500 0518 0527 0535 0549 0550 0552 0553 0558 0559 0565 0568 0574 0575 0578
    0580 0583 0591 0593 0595 0598 0599 0606 0607 0608 0609 0616 0618 0621 0629 0633 0643 0644 0645
    0647 0648 0651 0652 0653 0655 0658 0660 0663 0664 0665 0670 0671 0678 0684 0685 0686 0689 0690
    0693 0695 0696 0697 0699 0700 0701 0702 0704
    """.split()
)
"""Rooms of the validation split."""
TEST_ROOMS = range(707, 807)
"""Rooms of the test split, with one scan each."""
OFFICIAL_COUNTS: Mapping[str, int] = MappingProxyType({"train": 1201, "val": 312, "test": 100})
"""Scans of each split in the whole dataset."""
IMAGE_SIZE = (480, 640)
"""Height and width of exported images, for encoders with patches of 16 pixels."""


def split_of(scene: str) -> str | None:
    """train, val or test, by the official lists of rooms; None for names that are not in them."""
    match = re.fullmatch(r"scene(\d{4})_(\d{2})", scene)
    if match is None:
        return None
    room, scan = int(match[1]), int(match[2])
    if room in TEST_ROOMS:
        return "test" if scan == 0 else None
    if room >= TEST_ROOMS.stop:
        return None
    return "val" if room in VAL_ROOMS else "train"


class _ScanNetScenes(PreparedScenes):
    """The scenes with one of the two class lists."""

    raw_ids: tuple[int, ...]
    """Ids of the classes in the benchmark, by training index."""

    def write_submission(
        self, out: Path, results: Results, *, split: str, use_camera: bool = False
    ) -> list[Path]:
        """Write one text file per scene with the raw id of each vertex, in the order of the mesh.

        Raises:
            DatasetError: a vertex without a class.
        """
        require_split(self.name, split, self.splits())
        raw_ids = np.array(self.raw_ids)
        written = []
        for name, scene, predicted in results:
            classes = checked_prediction(self.name, name, len(scene), predicted, len(raw_ids))
            path = out / f"{name}.txt"
            with new_file(path) as part:
                part.write_text("".join(f"{raw}\n" for raw in raw_ids[classes].tolist()))
            written.append(path)
        return written


class ScanNet(_ScanNetScenes):
    """ScanNet v2 with 20 classes."""

    raw_ids = NYU40_IDS

    def __init__(self, root: Path) -> None:
        super().__init__(
            root,
            name="scannet",
            prepared_as=NAME,
            classes=CLASSES,
            label="segment20",
            unlabelled=("test",),
        )


class ScanNet200(_ScanNetScenes):
    """The same scenes with 200 classes in three groups: head, common and tail."""

    raw_ids = classes200.RAW_IDS

    def __init__(self, root: Path) -> None:
        super().__init__(
            root,
            name="scannet200",
            prepared_as=NAME,
            classes=classes200.CLASSES,
            label="segment200",
            unlabelled=("test",),
        )
