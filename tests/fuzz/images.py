"""Scans: found, read, prepared for a tiny model and, now and then, predicted."""

from __future__ import annotations

import gzip
import io
import shutil
import zipfile
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk

from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.memory_budget import MemoryBudget
from dinomed3d.inference.cohort.worker.worker import Worker
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.io.image import check_mask
from dinomed3d.inference.models.model import open_model
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.dicom.dicom_series import write_series
from tests.dinomed3d.inference.image_files import save
from tests.dinomed3d.inference.models.write_model import write_model
from tests.dinomed3d.inference.odd_inputs import SHAPE, voxels
from tests.fuzz.damage import (
    NUMBERS,
    WORDS,
    Damaged,
    Fields,
    bytes_damaged,
    fields_damaged,
    json_damaged,
    text_damaged,
)
from tests.fuzz.kind import Finding, Kind, Refused, Result

SOUND = "sound_0000.nii"
"""A sound scan in the same folder, so that the damaged one is never all that there is."""
NIFTI_FIELDS: Fields = [
    (offset + i * kind.base.itemsize, "<" + kind.base.char.replace("l", "i"))
    for name, (kind, offset) in nib.Nifti1Header.template_dtype.fields.items()
    if kind.base.kind in "iuf"
    for i in range(int(np.prod(kind.shape, dtype=int)))
]
LIMIT_GIB = 2.5


class Predicting:
    """A model in memory, made once, that predicts the scans of one folder after the other."""

    def __init__(self, folder: Path) -> None:
        self.model = open_model(write_model(folder))
        self.out = folder / "out"
        self.out.mkdir()
        spec = PredictSpec(
            source=str(folder),
            out=str(self.out),
            model=str(self.model.source),
            device="cpu",
            engine="threads",
            memory_limit_gib=LIMIT_GIB,
        )
        self.worker = Worker(self.model, spec)

    def __call__(self, folder: Path, whole: bool) -> Result:
        """What is read of a folder; with `whole` its masks are written, too."""
        try:
            found = find_cases(folder, channels=self.model.channels)
        except UserError as error:
            raise Refused(str(error)) from error
        problems = [f"{one.id}: {one.reason}" for one in found.rejected]
        problems += [f"{name}: {why}" for name, why in found.left_out.items()]
        result: dict[str, np.ndarray] = {}
        for case in found.cases:
            if any(file.endswith(SOUND) for file in case.scans[0].files):
                continue
            problem = self._predict(case, whole, result)
            problems += [f"{case.id}: {problem}"] * (problem is not None)
        if problems:  # what else was read is done as well, and the run ends with another exit code
            raise Refused("; ".join(problems))
        if result:
            return result
        raise Finding(f"it was neither read nor named; ignored: {dict(found.ignored)}")

    def _predict(self, case: Any, whole: bool, result: dict[str, np.ndarray]) -> str | None:
        budget = MemoryBudget(2**31)
        task = self.worker.read(case, budget, lambda event: None)
        if task.reason is None:
            assert task.volume is not None and task.prepared is not None
            grid = task.volume.grid
            result["voxels"] = np.stack(task.volume.channels)
            result["spacing"] = np.array(grid.spacing_mm)
            result["matrix"] = np.asarray(grid.matrix)
            for name, values in result.items():
                if not np.isfinite(values).all():
                    raise Finding(f"{name} is not finite")
            if whole:
                self.worker.predict(task, lambda event: None)
        if whole and task.reason is None:
            result["mask"] = task.segmentation.mask
            self.worker.write(task, budget, lambda: 0.0, lambda event: None)
            if task.reason is None:
                problem = check_mask(self.out / f"{case.id}{grid.ending}", grid)
                if problem is not None:
                    raise Finding(f"its mask: {problem}")
        if task.trace is not None or "out of memory in step" in (task.reason or ""):
            raise Finding(f"{task.reason}\n{task.trace}")
        if task.reason is not None:
            result.clear()
        return task.reason


def nifti_lie(rng: Random, content: bytes) -> Damaged:
    return fields_damaged(rng, content, NIFTI_FIELDS)


def packed_lie(rng: Random, content: bytes) -> Damaged:
    """The header inside lies, or the voxels inside are damaged, below a checksum that fits."""
    lie = nifti_lie(rng, gzip.decompress(content))
    return Damaged(gzip.compress(lie.content, 1), lie.how, is_lie=True)


def header_lie(end: bytes, rng: Random, content: bytes) -> Damaged:
    """The text before the voxels lies."""
    return text_damaged(rng, content, content.index(end) + len(end))


def dicom_lie(rng: Random, content: bytes) -> Damaged:
    """Elements of a slice have other values, or are missing."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    changes = []
    for element in rng.sample(list(dataset), rng.choice((1, 1, 2))):
        if rng.random() < 0.2:
            del dataset[element.tag]
            changes.append(f"{element.keyword} is missing")
            continue
        new: Any = rng.choice((*NUMBERS, *WORDS))
        text = str(new)
        if element.VR in ("US", "UL", "SS", "SL"):
            new = (
                int(np.nan_to_num(float(new), posinf=0, neginf=0))
                if not isinstance(new, str)
                else 0
            )
            new %= 2 ** (16 if element.VR[1] == "S" else 32)
        elif element.VR in ("OW", "OB"):
            new = rng.choice((b"", element.value[:-2], element.value * 2))
        else:
            count = element.VM if rng.random() < 0.7 else rng.choice((0, 1, 2, 7))
            one = rng.randrange(max(1, count))
            values = [str(v) for v in (element.value if element.VM > 1 else [element.value])]
            new = [text[:60] if i == one else values[i % len(values)] for i in range(count)]
        element._value = new
        changes.append(f"{element.keyword} is {str(new)[:60]}")
    target = io.BytesIO()
    try:
        dataset.save_as(target, enforce_file_format=True)
    except Exception:  # what nobody can write
        return Damaged(content[:-1], "cut by one byte", is_cut=True)
    return Damaged(target.getvalue(), "; ".join(changes), is_lie=True)


def zip_lie(rng: Random, content: bytes) -> Damaged:
    """A member is damaged below a checksum that fits, or has an odd name."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        names = old.namelist()
        chosen, how = rng.choice(names), ""
        for name in names:
            data = old.read(name)
            if name == chosen and rng.random() < 0.7:
                damage = _member_damage(rng, name, data)
                data, how = damage.content, f"{name}: {damage.how}"
            elif name == chosen:
                name = rng.choice(
                    ("", "/", "../x", "a/../b.dcm", "C:\\x", "CON", *names, "x" * 300)
                )
                how = f"{chosen} is called {name[:40]!r}"
            try:
                new.writestr(name, data)
            except (ValueError, IndexError, UserWarning):
                continue  # zipfile itself refuses the name
    return Damaged(target.getvalue(), how, is_lie=True)


def _member_damage(rng: Random, name: str, data: bytes) -> Damaged:
    if rng.random() < 0.7:
        if name.endswith(".dcm"):
            return dicom_lie(rng, data)
        if name.endswith(".json"):
            return json_damaged(rng, data)
    return bytes_damaged(rng, data)


def _write(folder: Path, name: str) -> None:
    save(folder / SOUND, voxels(*SHAPE, seed=1))
    array = voxels(*SHAPE[::-1], seed=2)
    if name.endswith((".nii", ".nii.gz")):
        save(folder / name, array.transpose(2, 1, 0))
        return
    if name.endswith(".dcm"):
        (folder / "series").mkdir()
        write_series(
            folder / "series", slices=6, shape=(11, 12), uid="1.2.3.4", name=lambda z: f"{z}.dcm"
        )
        return
    if name.endswith(".zip"):
        write_series(
            folder / "raw", slices=6, shape=(11, 12), uid="1.2.3.4", name=lambda z: f"{z}.dcm"
        )
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((folder / "raw").iterdir()):
                archive.write(path, path.name)
        shutil.rmtree(folder / "raw")
        return
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([0.9, 1.1, 2.5])
    sitk.WriteImage(image, str(folder / name), "packed" in name)


def kinds(folder: Path) -> list[Kind]:
    """All kinds of scans; they share a model below `folder`."""
    read = Predicting(folder)
    mha, nrrd = partial(header_lie, b"LOCAL\n"), partial(header_lie, b"\n\n")

    def kind(file: str, lie: Any, **more: Any) -> Kind:
        name = Path(file).name
        return Kind(
            name=file, file=file, write=partial(_write, name=name), read=read, lie=lie, **more
        )

    return [
        kind("scan.nii", nifti_lie, data="voxels", data_at=lambda content: 352),
        kind("scan.nii.gz", packed_lie, has_checksum=True),
        kind("scan.mha", mha, data="voxels", data_at=lambda c: c.index(b"LOCAL\n") + 6),
        kind("packed.mha", mha),
        kind("scan.nrrd", nrrd, data="voxels", data_at=lambda c: c.index(b"\n\n") + 2),
        kind("packed.nrrd", nrrd),
        kind("series/2.dcm", dicom_lie),
        kind("series.zip", zip_lie, has_checksum=True),
    ]
