"""The scans and models of `hospital.py`, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hospital_cases import Organ, atlas, copies, read_image, scan, write_image
from hospital_measure import Commands
from hospital_models import Pair, train_model
from hospital_plans import ModelSpec

SEED = 0
# Kind of plan, with regions, mirrored.
AGREEMENT = tuple(
    (name, regions, mirrored)
    for name in ("isotropic", "anisotropic", "2d", "hippocampus")
    for regions in (False, True)[: 1 if name == "hippocampus" else 2]
    for mirrored in (True, False)
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large everything is."""

    ct_shape: tuple[int, int, int] = (200, 512, 512)
    ct_spacing_mm: tuple[float, float, float] = (1.5, 0.8, 0.8)
    ct_planned_mm: float = 1.5
    ct_patch: int = 96
    ct_training_patch: int = 48
    ct_steps: int = 1200
    many: int = 117
    small_steps: int = 250
    cases: int = 4
    agreement: tuple[tuple[str, bool, bool], ...] = AGREEMENT
    copies: int = 200
    kill_cases: int = 30
    kills: tuple[int, int, int] = (20, 5, 5)
    """Of all processes, of the command alone, of the worker alone."""


TINY = Size(
    ct_shape=(40, 64, 64),
    ct_spacing_mm=(7.5, 6.4, 6.4),
    ct_planned_mm=7.5,
    ct_patch=32,
    ct_training_patch=24,
    ct_steps=2,
    many=20,
    small_steps=2,
    cases=1,
    agreement=(("isotropic", True, True),),
    copies=2,
    kill_cases=2,
    kills=(1, 0, 1),
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and how large."""

    work: Path
    size: Size
    commands: Commands
    shared: Path | None
    stock_many: bool

    def folder(self, name: str) -> Path:
        """Of one part."""
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        return folder

    def ct_scan(self) -> Path:
        """The large scan, in a folder of its own."""
        folder, size = self.work / "scans" / "ct", self.size
        if not folder.exists():
            image, _ = scan(
                size.ct_shape, size.ct_spacing_mm, atlas(15, pieces=4, seed=SEED), seed=1
            )
            write_image(folder / "ct_0000.nii.gz", image, size.ct_spacing_mm)
        return folder

    def ct_spec(self) -> ModelSpec:
        size = self.size
        return ModelSpec(
            name="ct",
            labels=15,
            spacing_mm=(size.ct_planned_mm,) * 3,
            patch=(size.ct_patch,) * 3,
            training_patch=(size.ct_training_patch,) * 3,
            steps=size.ct_steps,
            seed=SEED,
        )

    def ct_model(self) -> Path:
        """Trained on other patients at the planned spacing."""
        size, mm = self.size, self.size.ct_planned_mm
        extents = zip(size.ct_shape, size.ct_spacing_mm, strict=True)
        shape = tuple(round(n * s / mm) for n, s in extents)
        organs = atlas(15, pieces=4, seed=SEED)
        pairs = [(*scan(shape, (mm,) * 3, organs, seed=100 + i), (mm,) * 3) for i in range(2)]
        return train_model(self.ct_spec(), pairs, self.work / "models")

    def small(self, name: str, *, regions: bool = False) -> tuple[Path, Path]:
        """Model and folder of scans of one kind of plan."""
        spec, spacing_mm = KINDS[name]
        spec = replace(spec, steps=self.size.small_steps, seed=SEED, regions=regions)
        spec = replace(spec, name=f"{name}-regions" if regions else name)
        scans = self.work / "scans" / name
        if name == "hippocampus" and self.shared is not None:
            return self._real(spec, self.shared / "medical" / "Dataset004_Hippocampus")
        extent_mm = (36, 50, 36) if name == "hippocampus" else (128, 112, 112)
        organs = atlas(spec.labels, pieces=1 if name == "hippocampus" else 3, seed=SEED)
        pairs = [_scan_of(extent_mm, spacing_mm, organs, seed=100 + i) for i in range(3)]
        for i in [] if scans.exists() else range(self.size.cases):
            # the first as planned, the others finer along some axes and coarser along others
            factors = [1 + 0.35 * ((i * (axis + 1)) % 4 - 1) * (i > 0) for axis in range(3)]
            spacing = [mm * factor for mm, factor in zip(spacing_mm, factors, strict=True)]
            image, _, _ = _scan_of(extent_mm, spacing, organs, seed=10 + i)
            write_image(scans / f"{name}{i}_0000.nii.gz", image, spacing)
        return train_model(spec, pairs, self.work / "models"), scans

    def _real(self, spec: ModelSpec, dataset: Path) -> tuple[Path, Path]:
        """Trained on real cases; scans of others."""
        pairs: list[Pair] = []
        for path in sorted((dataset / "labelsTr").glob("*.nii.gz"))[:60]:
            image = dataset / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz")
            voxels, spacing = read_image(image)
            pairs.append((voxels, read_image(path)[0].round(), spacing))
        scans = self.work / "scans" / "hippocampus-real"
        found = sorted((dataset / "imagesTs").glob("*.nii.gz"))
        copies(found, scans, min(len(found), 10 * self.size.cases))
        return train_model(spec, pairs, self.work / "models"), scans


def _scan_of(
    extent_mm: Sequence[float], spacing: Sequence[float], organs: Sequence[Organ], *, seed: int
) -> Pair:
    shape = tuple(max(8, round(e / s)) for e, s in zip(extent_mm, spacing, strict=True))
    return (*scan(shape, spacing, organs, seed=seed), spacing)


# Plan, and the spacing of its scans (z, y, x); the anisotropic ones have their thick axis last, and
# their plan turns it to the front, as nnU-Net's planner does.
KINDS: dict[str, tuple[ModelSpec, tuple[float, float, float]]] = {
    "isotropic": (
        ModelSpec(name="isotropic", labels=5, patch=(48, 48, 48), features=(8, 16, 32)),
        (1.5, 1.5, 1.5),
    ),
    "anisotropic": (
        ModelSpec(
            name="anisotropic",
            labels=5,
            patch=(12, 64, 64),
            spacing_mm=(5.0, 1.2, 1.2),
            transpose=(2, 0, 1),
            thick_stages=1,
            features=(8, 16, 32),
        ),
        (1.2, 1.2, 5.0),
    ),
    "2d": (
        ModelSpec(name="2d", labels=5, patch=(64, 64), spacing_mm=(1.2, 1.2), features=(8, 16, 32)),
        (5.0, 1.2, 1.2),
    ),
    "hippocampus": (
        ModelSpec(
            name="hippocampus",
            labels=2,
            patch=(40, 56, 40),
            spacing_mm=(1.0, 1.0, 1.0),
            normalization="ZScoreNormalization",
            features=(16, 32, 64),
        ),
        (1.0, 1.0, 1.0),
    ),
}
