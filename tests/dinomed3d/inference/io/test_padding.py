"""Files that hold more than their header says: whatever the format, their values would be wrong."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io import itk, nifti, other_scans
from dinomed3d.inference.io.padding import longest_padding

VOXELS = np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype("<i2")  # (z, y, x)
RAW = VOXELS.tobytes()
PACKED = zlib.compress(RAW)
AFFINE = np.diag([-1, -1, 1, 1.0])


def metaimage(ending: str = ".mha", data: bytes = RAW, **fields: object):
    def write(folder: Path) -> Path:
        head = {"ObjectType": "Image", "NDims": 3, "BinaryData": True, "CompressedData": False}
        head |= {"ElementSpacing": "1 1 1", "DimSize": "7 6 5", "ElementType": "MET_SHORT"} | fields
        local = ending == ".mha"
        head["ElementDataFile"] = "LOCAL" if local else "scan.raw"
        lines = "".join(f"{name} = {value}\n" for name, value in head.items())
        (folder / "scan.raw").write_bytes(data)
        path = folder / f"scan{ending}"
        path.write_bytes(lines.encode() + (data if local else b""))
        return path

    return write


def nrrd(data: bytes = RAW, ending: str = ".nrrd", **fields: str):
    def write(folder: Path) -> Path:
        head = {"type": "short", "dimension": "3", "sizes": "7 6 5", "endian": "little"}
        head |= {"encoding": "raw", "spacings": "1 1 1"} | fields
        if ending == ".nhdr":
            head["data file"] = "scan.raw"
        (folder / "scan.raw").write_bytes(data)
        lines = "".join(f"{name.replace('_', ' ')}: {value}\n" for name, value in head.items())
        path = folder / f"scan{ending}"
        path.write_bytes(
            b"NRRD0004\n" + lines.encode() + b"\n" + (data if ending == ".nrrd" else b"")
        )
        return path

    return write


def nibabels(kind, name: str, at: int = 0, patch: bytes = b"", more: bytes = b""):
    """A file that nibabel writes, with other bytes in its header, and more behind its voxels."""

    def write(folder: Path) -> Path:
        path = folder / name
        nib.save(kind(VOXELS.transpose(2, 1, 0), AFFINE), path)
        content = bytearray(path.read_bytes())
        content[at : at + len(patch)] = patch
        path.write_bytes(content)
        voxels = path.with_suffix(".img") if path.suffix == ".hdr" else path
        voxels.write_bytes(voxels.read_bytes() + more)
        return path

    return write


def gipl(**fields: int):
    def write(folder: Path) -> Path:
        head = bytearray(256)
        struct.pack_into(">4HH", head, 0, 7, 6, fields.get("slices", 5), 1, fields.get("kind", 15))
        struct.pack_into(">4f", head, 10, 1, 1, 1, 1)
        struct.pack_into(">I", head, 252, 719555000)
        path = folder / "scan.gipl"
        path.write_bytes(bytes(head) + VOXELS.astype(">i2").tobytes())
        return path

    return write


def read(path: Path):
    ending = path.suffix
    if ending == ".nii":
        return nifti.read(path, ending)
    module = other_scans if ending in other_scans.ENDINGS else itk
    return module.read(path, ending)


packed = {"CompressedData": True, "CompressedDataSize": len(PACKED)}


@pytest.mark.parametrize(
    "write",
    [
        metaimage(),
        metaimage(data=RAW + bytes(40)),
        metaimage(".mhd"),
        metaimage(data=PACKED, **packed),
        metaimage(data=PACKED, **packed | {"CompressedData": "T"}),
        metaimage(BinaryData="T"),
        nrrd(),
        nrrd(gzip.compress(RAW), encoding="gzip"),
        nrrd(b"x" * 900 + RAW, byte_skip="-1"),
        nrrd(ending=".nhdr"),
        nibabels(nib.Nifti1Pair, "scan.hdr"),
        nibabels(nib.MGHImage, "scan.mgh"),
        nibabels(nib.MGHImage, "scan.mgh", more=struct.pack(">iq", 3, 500) + b"mri_convert" * 50),
        gipl(),
    ],
)
def test_sound_files_are_read(write, tmp_path: Path) -> None:
    assert np.array_equal(read(write(tmp_path)).channels[0], VOXELS)


@pytest.mark.parametrize(
    "write",
    [
        metaimage(ElementType="MET_UCHAR"),
        metaimage(DimSize="7 6 4"),
        metaimage(HeaderSize=100),
        metaimage(BinaryData="T", data=RAW[:-50]),
        metaimage(".mhd", ElementType="MET_CHAR"),
        metaimage(".mhd", data=RAW + RAW),
        metaimage(data=PACKED, ElementType="MET_UCHAR", **packed),
        metaimage(data=PACKED, CompressedData=True, compresseddatasize=len(PACKED)),
        metaimage(data=PACKED, **packed | {"CompressedDataSize ": ": 10"}),
        nrrd(type="uchar"),
        nrrd(sizes="7 6 4"),
        nrrd(gzip.compress(RAW), encoding="gzip", type="uchar"),
        nrrd(ending=".nhdr", type="uchar"),
        nibabels(nib.Nifti1Pair, "scan.hdr", 70, struct.pack("<h", 2)),
        nibabels(nib.Nifti1Pair, "scan.hdr", more=RAW),
        nibabels(nib.Nifti1Image, "scan.nii", 108, struct.pack("<f", 348)),
        nibabels(nib.MGHImage, "scan.mgh", 20, struct.pack(">i", 0)),
        nibabels(nib.MGHImage, "scan.mgh", 12, struct.pack(">i", 3)),
        gipl(kind=8),
        gipl(slices=4),
    ],
)
def test_files_that_hold_more_or_less_than_their_header_says_are_refused(write, tmp_path) -> None:
    with pytest.raises(CaseError, match=r"scan\."):
        read(write(tmp_path))


@pytest.mark.parametrize(
    ("unit", "written", "millimetres"), [("um", "1000", 1), ("cm", "0.1", 1), ("metre", "1", 1000)]
)
def test_units_of_axes_of_a_file_without_a_space(unit, written, millimetres, tmp_path) -> None:
    path = nrrd(spacings=" ".join([written] * 3), units=" ".join([f'"{unit}"'] * 3))(tmp_path)
    volume = itk.read(path, ".nrrd")
    assert volume.grid.spacing_mm == pytest.approx((millimetres,) * 3)
    mask = tmp_path / "mask.nrrd"
    itk.write(np.zeros(VOXELS.shape, np.uint8), volume.grid, mask)
    assert itk.read_grid(mask, ".nrrd").spacing_mm == pytest.approx((millimetres,) * 3)


def test_padding_is_shorter_than_any_plane() -> None:
    assert longest_padding((7, 6, 5), 2) == 59
    assert longest_padding((7, 6), 2) == longest_padding((7, 6, 1), 2) == 11
    assert longest_padding((512, 512, 100), 2) == 4095
