"""Bad and odd inputs in one folder: each gets a mask on exactly its grid, or a reason why not.

One run predicts them all; no input may stop it, delay it, or fail another case.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from dinomed3d.inference.cohort.events import Event
from dinomed3d.inference.cohort.outcome import Outcome
from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from tests.dinomed3d.inference.dicom.dicom_series import write_object
from tests.dinomed3d.inference.image_files import ORIENTATIONS, affine_of, check_same_grid
from tests.dinomed3d.inference.models.write_model import write_model
from tests.dinomed3d.inference.odd_inputs import (
    COLOUR,
    SHAPE,
    Reference,
    Writer,
    at,
    big_endian,
    damaged,
    dicom,
    encrypted,
    flipped,
    gap,
    in_slice,
    itk,
    jpeg_2000,
    link,
    nifti,
    nrrd,
    pair,
    pipe,
    plain,
    replaced,
    rewritten,
    several,
    shouted,
    typed,
    voxels,
    with_slice,
    with_values,
    without_end,
    zeros_without_end,
    zipped,
)

LINUX, POSIX = sys.platform.startswith("linux"), os.name == "posix"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One input and the expected outcome."""

    write: Writer
    case: str | None
    """Its id; None: it is not a case, and only counted."""
    reason: str | None = None
    """Part of the reason why it failed; None: it gets a mask."""
    note: str = ""
    """Part of the notes of its record."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of it that are ignored: reason -> count."""


def mask(write: Writer, note: str = "", *, case: str | None = None, **ignored: int) -> Row:
    return Row(write=write, case=case or write.case, note=note, ignored=ignored)


def failed(write: Writer, reason: str, *, case: str | None = None) -> Row:
    return Row(write=write, case=case or write.case, reason=reason)


def left(write: Writer, why: str) -> Row:
    return Row(write=write, case=None, ignored={why: 1})


def pixdim(*spacing: float) -> list[float]:
    return [1, *spacing, *[1] * (7 - len(spacing))]


def spaced(*spacing: float) -> np.ndarray:
    return affine_of(spacing=spacing)


def moved(by_mm: float) -> np.ndarray:
    affine = affine_of()
    affine[2, 3] += by_mm
    return affine


def dims(*lengths: int) -> list[int]:
    return [len(lengths), *lengths, *[1] * (7 - len(lengths))]


HUGE = "GiB of memory|is cut off"
CUBE = spaced(1, 1, 1)
GOOD = [
    mask(nifti("good/a.nii.gz", voxels(20, 18, 16, seed=1))),
    mask(nifti("good/b.nii", voxels(20, 18, 16, seed=2), affine_of(angle=0.2))),
    mask(nifti("zz/after-all-others.nii.gz", voxels(20, 18, 16, seed=3))),
]
PLACES = [  # where the header says the voxels lie
    *(
        mask(nifti(f"axes/{i}.nii", affine=affine_of(*turn, angle=0.1 * (i % 2))))
        for i, turn in enumerate(ORIENTATIONS[5::7])
    ),
    mask(nifti("g/oblique.nii.gz", affine=affine_of(angle=0.5))),
    mask(nifti("g/sheared.nii", affine=affine_of(shear=0.3), codes=(0, 1)), "not at right angles"),
    mask(nifti("g/slanted.nii", affine=affine_of(angle=0.4, shear=0.2)), "not at right angles"),
    mask(nifti("g/qform.nii.gz", affine=affine_of(angle=0.3), codes=(1, 0))),
    mask(nifti("g/sform.nii.gz", affine=affine_of(angle=0.3), codes=(0, 1))),
    mask(nifti("g/no-codes.nii.gz", codes=(0, 0)), "no orientation"),
    mask(nifti("g/codes.nii.gz", codes=(2, 4))),
    mask(rewritten("g/q-and-s.nii", qoffset_x=40.0), "mm apart; the sform was used"),
    mask(rewritten("g/q-broken.nii", quatern_b=2.0), "qform is not a rotation"),
    mask(rewritten("g/no-qfac.nii", pixdim=[0, 0.7, 1.1, 2.5, 1, 1, 1, 1])),
    mask(nifti("g/micrometres.nii", affine=spaced(700, 1100, 2500), xyzt_units=3), "converted to mm"),
    mask(nifti("g/metres.nii", affine=spaced(7e-4, 11e-4, 25e-4), xyzt_units=1), "converted to mm"),
    mask(nifti("g/far.nii.gz", affine=moved(1e6))),
    mask(rewritten("g/rounded.nii", pixdim=pixdim(0.703, 1.1, 2.5))),
    mask(nifti("g/thick.nii.gz", affine=spaced(0.5, 0.5, 30))),
    mask(damaged("g/extension.nii.gz", gap, inside=True)),
    mask(nifti("g/nifti-2.nii.gz", kind=nib.Nifti2Image)),
    mask(big_endian("g/big-endian.nii")),
    mask(big_endian("g/big-endian-2.nii.gz", nib.Nifti2Image, ">f4")),
    failed(rewritten("g/zero.nii", pixdim=pixdim(0.7, 0, 2.5)), "voxel size must be positive"),
    failed(rewritten("g/minus.nii.gz", pixdim=pixdim(-0.7, 1.1, 2.5)), "voxel size must be positive"),
    failed(rewritten("g/nan.nii", pixdim=pixdim(0.7, 1.1, np.nan)), "voxel size must be positive"),
    failed(rewritten("g/inf.nii", pixdim=pixdim(0.7, 1.1, np.inf)), "voxel size must be positive"),
    failed(rewritten("g/disagrees.nii.gz", pixdim=pixdim(0.7, 1.1, 1)), "disagrees with itself"),
    failed(rewritten("g/nan-affine.nii", srow_y=[0, 1, np.nan, 0]), "affine must be finite"),
    failed(rewritten("g/zero-affine.nii", srow_x=0, srow_y=0, srow_z=0), "disagrees with itself"),
    failed(rewritten("g/singular.nii", srow_x=[0.7, 1.1, 0, 0], srow_y=0), "axes point the same way"),
    failed(rewritten("g/no-rotation.nii", sform_code=0, quatern_b=2), "qform is not a rotation"),
    failed(rewritten("g/code.nii.gz", sform_code=9), "sform_code must be 0 to 5"),
    failed(nifti("g/thin.nii.gz", voxels(12, 11, 1), spaced(1, 1, 0.05)), "less than one voxel thick"),
    failed(nifti("g/minute.nii", affine=spaced(1e-5, 1e-5, 1e-5)), "less than one voxel thick"),
    failed(nifti("g/giant.nii", affine=spaced(3e4, 3e4, 3e4)), "GiB of memory"),
]  # fmt: skip
SIZES = [
    mask(nifti("s/voxel.nii.gz", voxels(1, 1, 1), CUBE)),
    mask(nifti("s/needle.nii.gz", voxels(1, 1, 30), CUBE)),
    mask(nifti("s/row.nii", voxels(30, 1, 1), CUBE)),
    mask(nifti("s/slice.nii.gz", voxels(20, 18, 1))),
    mask(nifti("s/sagittal.nii.gz", voxels(1, 20, 18), CUBE)),
    mask(nifti("s/coronal.nii", voxels(20, 1, 18))),
    mask(nifti("s/small.nii.gz", voxels(5, 4, 3))),
    mask(nifti("s/larger.nii.gz", voxels(44, 40, 20))),
    mask(nifti("s/4d-of-one.nii.gz", voxels(*SHAPE, 1))),
    mask(nifti("s/5d-of-one.nii", voxels(*SHAPE, 1, 1))),
    mask(nifti("s/7d-of-one.nii", voxels(*SHAPE, 1, 1, 1, 1))),
    mask(nifti("s/2d.nii.gz", voxels(20, 18))),
    failed(nifti("s/4d.nii.gz", voxels(*SHAPE, 3)), "must be one 3D image, its shape is 12 x 11 x 10 x 3"),
    failed(nifti("s/5d.nii", voxels(*SHAPE, 1, 3)), "must be one 3D image"),
    failed(nifti("s/1d.nii", voxels(60)), "two or three axes"),
    failed(rewritten("s/0d.nii", dim=[0, 12, 11, 10, 1, 1, 1, 1]), "1 to 7 axes"),
    failed(rewritten("s/9d.nii", dim=[9, 12, 11, 10, 1, 1, 1, 1]), "1 to 7 axes"),
    failed(rewritten("s/empty-axis.nii", dim=dims(12, 0, 10)), "must hold voxels"),
    failed(rewritten("s/minus.nii.gz", dim=dims(12, -11, 10)), "must hold voxels"),
    failed(rewritten("s/claim.nii", dim=dims(32767, 32767, 32767)), HUGE),
    failed(rewritten("s/claim-packed.nii.gz", dim=dims(32767, 32767, 32767)), HUGE),
    failed(rewritten("s/claim-some.nii", dim=dims(200, 200, 200)), "is cut off"),
    failed(zeros_without_end("s/zeros-without-end.nii.gz", 2000), "GiB of memory"),
]  # fmt: skip
TYPES = ("uint8", "int8", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
VALUES = [
    *(mask(typed(f"v/{dtype}.nii.gz", dtype)) for dtype in TYPES),
    mask(nifti("v/yes-no.nii.gz", (voxels(*SHAPE) > 20).astype(np.uint8))),
    mask(nifti("v/slope.nii.gz", scl_slope=0.5, scl_inter=-1024.0)),
    mask(nifti("v/slope-0.nii.gz", scl_slope=0.0, scl_inter=3.0)),
    mask(nifti("v/slope-nan.nii.gz", scl_slope=np.nan, scl_inter=np.nan)),
    mask(nifti("v/slope-minus.nii", scl_slope=-1.0)),
    mask(nifti("v/constant.nii.gz", np.full(SHAPE, 7, np.int16)), "all voxels have the value 7"),
    mask(nifti("v/all-zero.nii.gz", np.zeros(SHAPE, np.int16)), "all voxels have the value 0"),
    mask(with_values("v/huge.nii.gz", 3e38, -3e38, 1e30)),
    mask(nifti("v/minute.nii", voxels(*SHAPE).astype(np.float32) * np.float32(1e-38))),
    mask(nifti("v/one-bright.nii", np.pad([[[900]]], 5).astype(np.int16), CUBE)),
    failed(with_values("v/nan.nii.gz", np.nan), "must be finite, 1 are NaN and 0 infinite"),
    failed(with_values("v/inf.nii", np.inf, -np.inf), "must be finite, 0 are NaN and 2 infinite"),
    failed(with_values("v/too-large.nii", 1e300, dtype=np.float64), "1 infinite"),
    failed(nifti("v/slope-large.nii", scl_slope=3e38), "infinite"),
    failed(nifti("v/inter-nan.nii", scl_slope=2.0, scl_inter=np.nan), "scl_inter must be finite"),
    failed(nifti("v/complex.nii.gz", voxels(*SHAPE, dtype=np.complex64)), "complex numbers"),
    failed(nifti("v/colour.nii.gz", np.zeros(SHAPE, COLOUR)), "colours"),
    failed(rewritten("v/bits.nii", datatype=1, bitpix=1), "data type"),
    failed(rewritten("v/unknown.nii", datatype=0, bitpix=0), "data type"),
    failed(rewritten("v/long-double.nii", datatype=1536, bitpix=128), "grey values|data type"),
]
DAMAGE = [
    failed(plain("d/empty.nii", b""), "0 bytes"),
    failed(plain("d/empty-packed.nii.gz", b""), "0 bytes"),
    failed(damaged("d/cut.nii", without_end(200)), "is cut off"),
    failed(damaged("d/cut-head.nii", lambda data: data[:200]), "does not start with a NIfTI header"),
    failed(damaged("d/head-only.nii", lambda data: data[:352]), "is cut off"),
    failed(damaged("d/gz-10-bytes.nii.gz", lambda data: data[:10]), "is cut off"),
    failed(damaged("d/gz-half.nii.gz", lambda data: data[: len(data) // 2]), "is cut off"),
    failed(damaged("d/gz-tail.nii.gz", without_end(4)), "is cut off"),
    failed(damaged("d/gz-inside.nii.gz", without_end(9), inside=True), "is cut off"),
    failed(damaged("d/gz-bit.nii.gz", flipped(200)), "damaged|cut off|not NIfTI"),
    failed(damaged("d/gz-sum.nii.gz", flipped(-6)), "damaged"),
    failed(damaged("d/gz-more.nii.gz", lambda data: data + b"tail"), "damaged"),
    mask(damaged("d/gz-zeros.nii.gz", lambda data: data + bytes(512))),
    mask(damaged("d/longer.nii", lambda data: data + b"tail"), "4 bytes follow its voxels"),
    failed(rewritten("d/type.nii", datatype=2, bitpix=8), "longer than its header says"),
    failed(rewritten("d/type-packed.nii.gz", datatype=2, bitpix=8), "longer than its header says"),
    failed(damaged("d/packed.nii", gzip.compress), "must end in .nii.gz"),
    failed(damaged("d/unpacked.nii.gz", gzip.decompress), "not packed with gzip"),
    failed(plain("d/text.nii", b"<html>404</html>" * 40), "is not NIfTI"),
    failed(plain("d/web-page.nii.gz", b"<html>404</html>" * 40), "not packed with gzip"),
    failed(damaged("d/pair.nii", replaced(b"n+1", b"ni1")), "half of a pair"),
    failed(damaged("d/analyze.nii", replaced(b"n+1", b"\0\0\0")), "is not NIfTI"),
    failed(rewritten("d/offset.nii", vox_offset=np.nan), "must start behind the header"),
    failed(rewritten("d/offset-0.nii", vox_offset=0), "must start behind the header"),
    failed(rewritten("d/offset-far.nii.gz", vox_offset=1e9), "is cut off"),
]  # fmt: skip
NAMES = [
    mask(nifti("n/folder.nii.gz/scan.nii.gz")),
    mask(nifti("n/with space.nii.gz")),
    mask(nifti("n/M\u00fcller-\u014cta.nii.gz")),
    mask(nifti("n/U\u0308mlaut.nii.gz"), case="n/\u00dcmlaut"),
    mask(nifti("n/\U0001f9e0.nii.gz")),
    mask(nifti("n/-leading.nii.gz")),
    mask(nifti("n/it's $HOME 100% #1; rm.nii")),
    mask(nifti("n/[brackets] {}.nii.gz")),
    mask(nifti("n/a.b.c.nii.gz")),
    mask(shouted("n/UPPER.NII.GZ"), case="n/UPPER"),
    mask(nifti("n/numbered_0000.nii.gz"), case="n/numbered"),
    mask(nifti("report.nii.gz"), case="_report"),
    mask(itk("run.mha"), case="_run"),
    failed(nifti("n/second_0001.nii.gz"), "the model has no channel _0001"),
    failed(several(nifti("n/twin.nii.gz"), nifti("n/twin.nii")), "2 inputs would write the same output"),
]  # fmt: skip
LONG = "long" * 55
LONG_ID = f"n/{LONG[:171]}-{hashlib.sha256(LONG.encode()).hexdigest()[:8]}"
if POSIX:
    NAMES += [
        mask(nifti(f"n/{LONG}.nii.gz"), case=LONG_ID),
        mask(nifti('n/"quoted" <a|b>?*.nii.gz'), case="n/_quoted_ _a_b___"),
        mask(nifti("n/two\nlines.nii"), case="n/two_lines"),
        mask(nifti("n/back\\slash.nii"), case="n/back_slash"),
        mask(nifti("n/con.nii.gz"), case="n/_con"),
        mask(nifti("n/aux.mha.nii"), case="n/_aux.mha"),
        mask(nifti("n/dot..nii"), case="n/dot"),
        mask(link("n/link.nii.gz", "../good/a.nii.gz")),
        failed(link("n/dangling.nii.gz", "nowhere.nii.gz"), "is a link to a file that is not there"),
        failed(link("n/circle.nii.gz", "circle.nii.gz"), "is a link to a file that is not there"),
        left(link("n/again", "../good"), "folder of results, or a link to a folder seen before"),
        left(pipe("n/pipe.nii.gz"), "neither file nor folder"),
    ]  # fmt: skip
    if os.geteuid() != 0:

        def unreadable(root: Path) -> None:
            nifti("d/forbidden.nii.gz")(root)
            (root / "d/forbidden.nii.gz").chmod(0)

        DAMAGE += [failed(Writer("d/forbidden.nii.gz", unreadable), "Permission denied")]
if LINUX:
    NAMES += [
        failed(several(nifti("n/CASE.nii.gz"), nifti("n/case.nii.gz")), "2 inputs would write the same output"),
        mask(nifti(os.fsdecode(b"n/latin-\xfc.nii.gz")), case="n/latin-_"),
        failed(link("d/io-error.nii", "/proc/self/mem"), "cannot be read: Input/output error"),
    ]  # fmt: skip
IGNORED = [
    left(plain("x/._a.nii.gz"), "macOS '._' file"),
    left(plain("x/.DS_Store"), "macOS '.DS_Store'"),
    left(plain("x/.hidden.nii.gz"), "hidden"),
    left(plain("x/.cache/a.nii.gz"), "hidden"),
    left(plain("__MACOSX/a.nii.gz"), "macOS '__MACOSX' folder"),
    left(plain("x/Thumbs.db"), "not an image"),
    left(plain("x/letter.pdf", b"%PDF-1.7"), "not an image"),
    left(plain("x/readme.txt"), "not an image"),
    left(plain("x/data.json", b"{}"), "not an image"),
    left(plain("x/none", b""), "not an image"),
    left(plain("x/DICOMDIR"), "DICOMDIR"),
    left(plain("x/analyze.img"), "voxels of a header next to them (.img)"),
    left(plain("x/detached.raw"), "voxels of a header next to them (.raw)"),
]
UNREAD = [
    failed(plain("x/a.mnc"), "a.mnc: .mnc is not read; MINC: 'mnc2nii a.mnc a.nii'"),
    failed(plain("x/analyze.hdr"), "no header of NIfTI or Analyze"),
    failed(plain("x/detached.nhdr"), "is not NRRD"),
    failed(plain("x/b.nii.bz2"), "bunzip2"),
    failed(plain("x/alone.rec"), r"without their header \(.par\)"),
    failed(zipped("x/empty.zip"), "holds no file"),
]
TURN = affine_of((1, 2, 0), (1, -1, 1), (1, 1, 1), angle=0.3)[:3, :3]
SLANT = affine_of((0, 1, 2), (1, 1, 1), (1, 1, 1), shear=0.3)[:3, :3]
FIRST = "space origin: (10,20,30)"
AXES = "space directions: (2,0,0) (0,3,0) (0,0,4)"
LIST = AXES.replace(": ", ": none ")
PLANE = voxels(11, 12)
ITK = [
    mask(itk("i/plain.mha")),
    mask(itk("i/packed.mha", packed=True)),
    mask(itk("i/oblique.mha", direction=TURN.ravel())),
    mask(itk("i/slanted.mha", direction=SLANT.ravel()), "not at right angles"),
    mask(itk("i/4d-of-one.mha", voxels(1, 10, 11, 12))),
    mask(itk("i/float64.mha", voxels(10, 11, 12, dtype=np.float64))),
    failed(itk("i/4d.mha", voxels(3, 10, 11, 12)), "must be one 3D image"),
    failed(itk("i/colour.mha", voxels(10, 11, 12, 3, dtype=np.uint8), vector=True), "one number per voxel"),
    failed(itk("i/complex.mha", voxels(10, 11, 12, dtype=np.complex64)), "one number per voxel"),
    failed(itk("i/nan.mha", np.full((5, 6, 7), np.nan, np.float32)), "must be finite"),
    failed(itk("i/cut.mha", damage=without_end(100)), "is cut off"),
    failed(itk("i/cut-packed.mha", packed=True, damage=without_end(100)), "is cut off"),
    failed(itk("i/bits.mha", packed=True, damage=flipped(-60)), "damaged"),
    failed(itk("i/head.mha", damage=replaced(b"ElementType", b"Element---")), "header cannot be read"),
    failed(itk("i/no-spacing.mha", damage=replaced(b"ElementSpacing", b"ElementNothing")), "no spacing"),
    failed(itk("i/elsewhere.mha", damage=replaced(b"= LOCAL", b"= a.raw")), "another file"),
    failed(itk("i/axes.mha", damage=replaced(b"NDims = 3", b"NDims = 1000000")), "1 to 7 axes"),
    failed(itk("i/minus.mha", damage=replaced(b"12 11 10", b"-12 11 10")), "axes and their lengths"),
    failed(itk("i/packed-size.mha", packed=True, damage=replaced(b"DataSize = ", b"DataSize = 9")), "is cut off"),
    failed(itk("i/no-packed-size.mha", packed=True, damage=replaced(b"DataSize", b"DataSise")), "CompressedDataSize"),
    failed(itk("i/small-packed-size.mha", packed=True, damage=replaced(b"DataSize = ", b"DataSize = 1 #")), "Compr"),
    failed(itk("i/claim.mha", damage=replaced(b"12 11 10", b"32767 32767 32767")), HUGE),
    failed(plain("i/text.mha"), "is not MetaImage"),
    failed(plain("i/empty.mha", b""), "0 bytes"),
    mask(itk("r/plain.nrrd")),
    mask(itk("r/packed.nrrd", packed=True, direction=TURN.ravel())),
    *(mask(nrrd(f"r/{space}.nrrd", f"space: {space}", AXES, FIRST)) for space in ("LPS", "RAS", "LAS")),
    mask(nrrd("r/space-less.nrrd", "spacings: 2 3 4"), "names no space"),
    mask(nrrd("r/sheared.nrrd", "space: LPS", "space directions: (2,0,0) (1,3,0) (0,0,4)"), "not at right angles"),
    failed(plain("r/text.nrrd"), "is not NRRD"),
    failed(nrrd("r/axes.nrrd", dimension=8), "1 to 7 axes"),
    failed(nrrd("r/scanner.nrrd", "space: scanner-xyz", AXES), "space must be LPS, RAS or LAS"),
    failed(nrrd("r/no-spacing.nrrd"), "no spacing"),
    failed(nrrd("r/long.nrrd", "space: LPS", f"space directions: {3000 * 'a'}"), "at most 500"),
    failed(nrrd("r/nan-spacing.nrrd", "spacings: 2 nan 4"), "has no direction"),
    failed(nrrd("r/list.nrrd", "space: LPS", LIST, dimension=4, sizes="2 6 11 10"), "has no direction"),
    failed(itk("r/vectors.nrrd", voxels(10, 11, 12, 2), vector=True), "no direction|one number per voxel"),
    failed(nrrd("r/detached.nrrd", "data file: there.raw", AXES), "another file"),
    failed(itk("r/cut.nrrd", damage=without_end(100)), "is cut off"),
    failed(itk("r/cut-packed.nrrd", packed=True, damage=without_end(100)), "is cut off"),
]  # fmt: skip
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
SEGMENTATION, REPORT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.33"


NO_SERIES = "zip without a DICOM series (unpack it if it holds images)"


def nothing(name: str) -> Writer:
    """Nothing of its own: the outcome of another row's files."""
    return Writer(name, lambda root: None)


def among_slices(name: str, sop_class: str) -> Writer:
    """An object that is not a slice, among the slices of dc/mixed."""
    place = "dc/mixed"
    return Writer(name, lambda root: write_object(root / place, name, SOPClassUID=sop_class))


def by_height(z: int) -> str:
    return f"{z}.dcm"


def otherwise(z: int) -> str:
    return f"b{z}"


def packed_in(name: str) -> Writer:
    return zipped(name, dicom("inside"))


DICOM = [
    mask(dicom("dc/good")),
    mask(dicom("dc/oblique", cosines=OBLIQUE)),
    mask(dicom("dc/sagittal", cosines=(0, 1, 0, 0, 0, -1))),
    mask(dicom("dc/no-endings", name=lambda z: f"IM 000{z}")),
    mask(dicom("dc/two", number=4), "2 DICOM series in the same place", case="dc/two/series-4"),
    mask(dicom("dc/two", number=5, name=otherwise), "2 DICOM series", case="dc/two/series-5"),
    mask(dicom("dc/one", slices=1), "a single slice"),
    mask(jpeg_2000("dc/jpeg-2000")),
    mask(
        several(dicom("dc/mixed"), among_slices("seg.dcm", SEGMENTATION), among_slices("sr.dcm", REPORT)),
        **{"DICOM Segmentation": 1, "DICOM Comprehensive SR": 1},
    ),
    mask(several(dicom("dc/broken"), plain("dc/broken/notes.dcm")), "cannot be read, slices at its ends"),
    failed(nothing("dc/broken/unreadable-dicom"), "notes.dcm is called DICOM and is not"),
    failed(plain("dc/x/also.dcm"), "called DICOM and is not", case="dc/x"),
    failed(with_slice(dicom("dc/missing", name=by_height), 2, None), "1 slice is missing"),
    failed(
        several(dicom("dc/twice", uid="1.2.3.4"), dicom("dc/twice", uid="1.2.3.4", name=otherwise)),
        "12 slices at only 6 positions",
    ),
    failed(dicom("dc/sizes", change=in_slice(3, Rows=12, Columns=11)), "slices of several sizes"),
    failed(dicom("dc/tilt", change=at(*((0, z, 2 * z) for z in range(6)))), "gantry tilt"),
    failed(dicom("dc/uneven", change=at(*((0, 0, z**2) for z in range(6)))), "uneven"),
    failed(dicom("dc/echoes", change=at(*((0, 0, z // 2) for z in range(6)))), "6 slices at only 3 positions"),
    failed(dicom("dc/thickness", slices=1, change=in_slice(SliceThickness=None)), "without SliceThickness"),
    failed(dicom("dc/nowhere", change=in_slice(2, ImagePositionPatient=None)), "ImagePositionPatient"),
    failed(dicom("dc/no-spacing", change=in_slice(PixelSpacing=None)), "has no PixelSpacing"),
    failed(dicom("dc/zero-spacing", change=in_slice(PixelSpacing=[0, 0])), "must be > 0 mm"),
    failed(dicom("dc/frames", change=in_slice(NumberOfFrames=2)), "2 frames"),
    failed(dicom("dc/colour", change=in_slice(SamplesPerPixel=3, PhotometricInterpretation="RGB")), "colour image"),
    failed(with_slice(dicom("dc/cut"), 2, without_end(40)), "cut off within its pixels"),
    mask(packed_in("z/series.zip")),
    mask(zipped("z/two.zip", dicom("a", number=1)), case="z/two"),
    failed(zipped("z/outside.zip", dicom("a"), {"../outside.dcm": b"x"}), "leads out of the archive"),
    failed(zipped("z/bomb.zip", dicom("a"), {"a.dcm": bytes(20 << 20)}), "would unpack from"),
    failed(zipped("z/encrypted.zip", dicom("a"), damage=encrypted), "is encrypted"),
    failed(zipped("z/cut.zip", dicom("a"), damage=without_end(300)), "not a whole zip archive"),
    failed(zipped("z/bits.zip", dicom("a"), damage=flipped(900)), "1 slice is missing"),
    failed(nothing("z/bits/unreadable-dicom"), "Bad CRC-32"),
    failed(zipped("z/missing.zip", with_slice(dicom("a", name=by_height), 2, None)), "1 slice is missing"),
    failed(plain("z/text.zip"), "not a whole zip archive"),
    failed(plain("z/empty.zip", b""), "not a whole zip archive"),
    left(zipped("z/papers.zip", members={"a.txt": b"hello"}), NO_SERIES),
    left(zipped("z/nested.zip", zipped("b.zip", members={"a": b""})), NO_SERIES),
]  # fmt: skip
ENTANGLED = [
    mask(itk("i/2d.mha", PLANE)),  # one voxel between labels in a plane
    failed(nifti("n/blocked.nii"), "needs the folder", case="n/blocked_"),
    mask(nifti("n/blocked.json/a.nii")),
]
ONE_CHANNEL = [
    *(*GOOD, *PLACES, *SIZES, *VALUES, *DAMAGE, *NAMES, *IGNORED, *UNREAD, *ITK, *DICOM, *ENTANGLED)
]


TWO_CHANNELS = [
    mask(pair("c/good")),
    mask(pair("c/types", second=nifti("c/types_0001.nii", voxels(*SHAPE, dtype=np.float32)))),
    mask(pair("c/formats", itk("c/formats_0000.mha"), itk("c/formats_0001.nrrd"))),
    mask(pair("c/near", second=nifti("c/near_0001.nii.gz", affine=moved(0.004))), "taken as one grid"),
    failed(pair("c/far", second=nifti("c/far_0001.nii.gz", affine=moved(0.5))), "0.5 mm apart"),
    failed(pair("c/turned", second=nifti("c/turned_0001.nii.gz", affine=affine_of(signs=(-1, 1, 1)))), "mm apart"),
    failed(pair("c/shapes", second=nifti("c/shapes_0001.nii.gz", voxels(12, 11, 9))), "one grid, their shapes"),
    failed(pair("c/half", second=damaged("c/half_0001.nii.gz", without_end(200))), "half_0001.nii.gz: is cut"),
    failed(pair("c/nan", with_values("c/nan_0000.nii", np.nan)), "1 are NaN"),
    failed(nifti("c/missing_0000.nii.gz"), r"channel T2 \(_0001\) is missing", case="c/missing"),
    failed(several(pair("c/extra"), nifti("c/extra_0002.nii.gz")), "the model has no channel _0002"),
    failed(several(pair("c/double"), itk("c/double_0001.mha")), "is there more than once"),
    mask(nifti("c/together.nii.gz", voxels(*SHAPE, 2))),
    mask(itk("c/together-itk.mha", voxels(2, 10, 11, 12))),
    failed(nifti("c/three.nii.gz", voxels(*SHAPE, 3)), "must be 4D with 2 channels"),
    failed(nifti("c/alone.nii.gz"), "must be 4D with 2 channels"),
    failed(nifti("c/five.nii", voxels(*SHAPE, 1, 2)), "must be 4D with 2 channels"),
    mask(several(nifti("f/anna/T1.nii.gz"), nifti("f/anna/T2.nii.gz"), name="f/anna"), "by sub-folders"),
    mask(several(nifti("f/bert/t1/a.nii.gz"), nifti("f/bert/t2/a.nii.gz"), name="f/bert"), "by sub-folders"),
    mask(several(dicom("f/carl/T1"), dicom("f/carl/T2"), name="f/carl"), "by sub-folders"),
    failed(nifti("f/dora/T1.nii.gz"), "channel T2 is missing", case="f/dora"),
    failed(several(dicom("f/emil", number=1), dicom("f/emil", number=2, name=otherwise)), "which channel each is"),
]  # fmt: skip
if POSIX:
    TWO_CHANNELS += [
        failed(pair("c/dangling", second=link("c/dangling_0001.nii.gz", "no")), "T2: .*is not there"),
    ]  # fmt: skip
PATTERNS = {"T1": "*t1*", "T2": "*t2*"}
BY_PATTERN = [
    mask(several(nifti("p/x/mprage_t1.nii.gz"), nifti("p/x/tse_t2.nii.gz"), name="p/x"), "channels by patterns"),
    failed(nifti("p/y/t1.nii.gz"), r"channel T2 \(\*t2\*\) is missing", case="p/y"),
    mask(several(nifti("p/z/a_t1.nii"), nifti("p/z/a_t2.nii"), name="p/z/a"), "channels by patterns"),
    failed(several(*map(nifti, ("p/z/b_t1.nii", "p/z/b_t1.nii.gz", "p/z/b_t2.nii")), name="p/z/b"), "more than once"),
    failed(nifti("p/q/both_t1_t2.nii.gz"), "matches the patterns of T1", case="p/q"),
    left(nifti("p/other.nii.gz"), "name that no pattern of --channels matches"),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run over many inputs."""

    rows: Sequence[Row]
    references: Mapping[str, Reference]
    out: Path
    outcome: Outcome
    events: Sequence[Event]

    def record(self, case: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.out / f"{case}.json").read_text("utf-8"))
        return content

    def check(self, row: Row) -> None:
        """The outcome of one case is that of its row."""
        assert row.case is not None
        if row.reason is not None:
            reason = self.outcome.failed.get(row.case, "it did not fail")
            assert re.search(row.reason, reason), reason
            assert "\n" not in reason and "unexpected" not in reason
            assert self.record(row.case)["status"] == "failed"
            return
        assert row.case in self.outcome.done, self.outcome.failed.get(row.case)
        record = self.record(row.case)
        assert row.note in "; ".join(record["notes"])
        path = self.out / record["mask"]["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == record["mask"]["sha256"]
        reference = self.references[row.case]
        if isinstance(reference, list):
            same_as_slices(reference, path)
        else:
            assert reference is not None
            check_same_grid(reference, path)

    def account(self) -> None:
        """Each input is done, failed or counted, and nothing else is written."""
        done = {row.case for row in self.rows if row.case and row.reason is None}
        bad = {row.case for row in self.rows if row.case and row.reason is not None}
        assert set(self.outcome.done) == done
        assert set(self.outcome.failed) == bad
        counted: Counter[str] = Counter()
        for row in self.rows:
            counted.update(row.ignored)
        assert self.events[0].shard.ignored == dict(counted)
        run = json.loads((self.out / "run.json").read_text("utf-8"))
        assert not self.outcome.missing and run["missing"] == []
        assert run["ignored"] == dict(counted)
        with open(self.out / "report.csv", encoding="utf-8", newline="") as stream:
            assert {row["case"] for row in csv.DictReader(stream)} == done | bad
        written = [path.relative_to(self.out) for path in self.out.rglob("*") if path.is_file()]
        cases = [f"{case}.json" for case in done | bad] + [f"{case}.png" for case in done]
        masks = [self.record(case)["mask"]["file"] for case in done]
        report = ["report.html", "report.csv", "run.json", "labels.ctbl"]
        assert sorted(path.as_posix() for path in written) == sorted([*cases, *masks, *report])


def run_over(rows: Sequence[Row], folder: Path, channels: Sequence[str], **options: Any) -> Ran:
    """Write all inputs into one tree, and predict it."""
    root, out = folder / "in", folder / "out"
    root.mkdir(parents=True)
    references = {row.case or row.write.name: row.write(root) for row in rows}
    assert len(references) == len(rows)
    spec = PredictSpec(
        source=str(root),
        out=str(out),
        model=str(write_model(folder / "model", channels=channels)),
        device="cpu",
        engine="threads",
        step_size=1.0,
        mirroring=False,
        memory_limit_gib=6.0,
        **options,
    )
    events: list[Event] = []
    outcome = predict(spec, events.append)
    return Ran(rows=rows, references=references, out=out, outcome=outcome, events=events)


def same_as_slices(slices: Sequence[Path], path: Path) -> None:
    """Each pixel of each slice, and a voxel of the mask, lie at the same millimetres."""
    mask = sitk.ReadImage(str(path))
    planes = [sitk.ReadImage(str(file), imageIO="GDCMImageIO") for file in slices]
    x, y, _ = planes[0].GetSize()
    assert mask.GetSize() == (x, y, len(planes)) and mask.GetPixelID() == sitk.sitkUInt8
    heights = []
    for plane in planes:
        first = mask.TransformPhysicalPointToIndex(plane.GetOrigin())
        heights.append(first[2])
        for index in ((0, 0), (x - 1, 0), (0, y - 1), (x - 1, y - 1)):
            there = plane.TransformIndexToPhysicalPoint((*index, 0))
            assert mask.TransformIndexToPhysicalPoint((*index, first[2])) == pytest.approx(
                there, abs=2e-4
            )
    assert sorted(heights) == list(range(len(planes)))


def shared_rows(data: Path) -> list[Row]:
    """Real files of many origins, and their outcome."""

    def copied(name: str) -> Writer:
        def write(root: Path) -> Reference:
            source, target = data / name, root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not source.is_dir():
                shutil.copy(source, target)
                return target
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("LICENSE"))
            return [path for path in target.rglob("*") if path.is_file()]

        return Writer(name, write)

    odd, sct = "nifti_oddities/nibabel", "sct"
    several_volumes = "must be one 3D image"
    return [
        mask(copied(f"{odd}/standard.nii.gz")),
        mask(copied(f"{odd}/someones_anatomy.nii.gz")),
        mask(copied(f"{odd}/anatomical.nii")),
        mask(copied(f"{odd}/reoriented_anat_moved.nii")),
        failed(copied(f"{odd}/resampled_anat_moved.nii"), "NaN"),
        failed(copied(f"{odd}/example4d.nii.gz"), several_volumes),
        failed(copied(f"{odd}/example_nifti2.nii.gz"), several_volumes),
        failed(copied(f"{odd}/functional.nii"), several_volumes),
        failed(copied(f"{odd}/test.mgz"), several_volumes),
        left(copied(f"{odd}/COPYING"), "not an image"),
        mask(copied("nifti_oddities/niivue/chris_MRA.nii.gz")),
        mask(copied("nifti_oddities/niivue/fmri_pitch.nii.gz")),
        failed(copied(f"{sct}/dmri/dmri.nii.gz"), several_volumes),
        failed(copied(f"{sct}/fmri/fmri.nii.gz"), several_volumes),
        mask(copied(f"{sct}/t2s/t2s.nii.gz")),
        mask(copied(f"{sct}/mt/mt1.nii.gz")),
        mask(copied("pyradiomics/breast1_image.nrrd")),
        mask(copied("pyradiomics/prostate_phantom_subvolume.nrrd")),
        mask(copied("totalseg_samples/example_mr_sm.nii.gz")),
        failed(copied("dicom_ge_tilt_ct"), "gantry is tilted by 18.5 degrees"),
    ]


def params(rows: Sequence[Row]) -> list[Any]:
    return [pytest.param(row, id=ascii(row.case)[1:41]) for row in rows if row.case]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    scratch = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(scratch))
        result = run_over(ONE_CHANNEL, tmp_path_factory.mktemp("one"), ["CT"])
    assert not [t for t in threading.enumerate() if t.name.startswith(("reader", "writer"))]
    assert not [path for path in scratch.iterdir() if path.name.startswith("dinomed3d")]
    return result


@pytest.fixture(scope="module")
def ran_two(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_over(TWO_CHANNELS, tmp_path_factory.mktemp("two"), ["T1", "T2"])


@pytest.fixture(scope="module")
def ran_patterns(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("patterns")
    return run_over(BY_PATTERN, folder, ["T1", "T2"], patterns=PATTERNS)


def test_there_are_more_than_two_hundred() -> None:
    assert len(ONE_CHANNEL) + len(TWO_CHANNELS) + len(BY_PATTERN) > 200


@pytest.mark.parametrize("row", params(ONE_CHANNEL))
def test_each_input(ran: Ran, row: Row) -> None:
    ran.check(row)


@pytest.mark.parametrize("row", params(TWO_CHANNELS))
def test_each_input_of_two_channels(ran_two: Ran, row: Row) -> None:
    ran_two.check(row)


@pytest.mark.parametrize("row", params(BY_PATTERN))
def test_each_input_by_pattern(ran_patterns: Ran, row: Row) -> None:
    ran_patterns.check(row)


def test_every_input_is_accounted_for(ran: Ran, ran_two: Ran, ran_patterns: Ran) -> None:
    for one in (ran, ran_two, ran_patterns):
        one.account()


def test_good_inputs_get_the_same_masks_without_the_bad_ones(ran: Ran, tmp_path: Path) -> None:
    alone = run_over(GOOD, tmp_path, ["CT"])
    for case in alone.outcome.done:
        name = alone.record(case)["mask"]["file"]
        assert np.asanyarray(nib.load(alone.out / name).dataobj).any()
        assert (ran.out / name).read_bytes() == (alone.out / name).read_bytes()


def test_real_files(shared: Path, tmp_path: Path) -> None:
    rows = shared_rows(shared / "data" / "medical")
    real = run_over([*rows, *GOOD], tmp_path, ["CT"])
    for row in real.rows:
        if row.case is not None:
            real.check(row)
    real.account()


@pytest.mark.parametrize("case", ["s/claim", "s/claim-packed", "s/zeros-without-end", "i/claim"])
def test_huge_claims_cost_neither_time_nor_memory(ran: Ran, case: str) -> None:
    record = ran.record(case)
    assert sum(record["seconds"].values()) < 2 and record["peak_memory_gib"] < 3
