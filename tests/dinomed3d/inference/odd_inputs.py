"""Writers of odd inputs: unusual headers, damaged files, names, and other files among scans.

Each function returns a `Writer`, which is called with the folder of the input tree.
"""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from tests.dinomed3d.inference.dicom.dicom_series import Change, write_series
from tests.dinomed3d.inference.image_files import affine_of, save

Reference = Path | list[Path] | None
Damage = Callable[[bytes], bytes]
SHAPE = (12, 11, 10)
"""(x, y, z): small, and of three lengths."""
COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@dataclass(frozen=True)
class Writer:
    """Writes one input."""

    name: str
    """Name of its file or folder, below the input."""
    write: Callable[[Path], Reference]
    """Writes it; returns what its mask is compared with: an image, or the slices of a series."""

    @property
    def case(self) -> str:
        """The id of its case: the name without ending."""
        endings = (".nii.gz", ".nii", ".mha", ".nrrd", ".zip", ".hdr", ".nhdr", ".mgz")
        return next((self.name[: -len(e)] for e in endings if self.name.endswith(e)), self.name)

    def __call__(self, root: Path) -> Reference:
        return self.write(root)


def voxels(*shape: int, dtype: Any = np.int16, seed: int = 0) -> np.ndarray:
    """Smooth enough that a network sees something in it."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal([n // 3 + 1 for n in shape])
    fine = np.kron(coarse, np.ones([3] * len(shape)))[tuple(slice(n) for n in shape)]
    return (np.abs(fine) * 40 + 1).astype(dtype)


def placed(root: Path, name: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# --- NIfTI


def nifti(name: str, array: np.ndarray | None = None, affine: Any = None, **options: Any) -> Writer:
    """One NIfTI file; `options` are q and sform codes, kind, and header fields."""

    def write(root: Path) -> Path:
        data = voxels(*SHAPE) if array is None else array
        return save(placed(root, name), data, affine, **options)

    return Writer(name, write)


def shouted(name: str) -> Writer:
    """A good scan whose name, ending too, is written in capitals."""

    def write(root: Path) -> Path:
        path = save(placed(root, name.lower()), voxels(*SHAPE))
        return path.rename(root / name)

    return Writer(name, write)


def rewritten(name: str, **fields: Any) -> Writer:
    """A NIfTI-1 file whose header fields are changed after all others were made to fit them."""

    def change(content: bytes) -> bytes:
        header = nib.Nifti1Header(content[:348], check=False)
        for key, value in fields.items():
            header[key] = value
        return header.binaryblock + content[348:]

    return damaged(name, change, inside=True)


def big_endian(name: str, kind: Any = nib.Nifti1Image, dtype: str = ">i2") -> Writer:
    def write(root: Path) -> Path:
        header = kind.header_class(endianness=">")
        header.set_data_dtype(dtype)
        header.set_xyzt_units("mm")
        image = kind(voxels(*SHAPE, dtype=dtype), affine_of(angle=0.2), header)
        assert image.header.endianness == ">"
        nib.save(image, placed(root, name))
        return root / name

    return Writer(name, write)


def typed(name: str, dtype: str) -> Writer:
    """Voxels of any type, those of 64 bits too."""

    def write(root: Path) -> Path:
        array = voxels(*SHAPE, dtype=dtype)
        nib.save(nib.Nifti1Image(array, affine_of(), dtype=array.dtype), placed(root, name))
        return root / name

    return Writer(name, write)


def with_values(name: str, *values: float, dtype: Any = np.float32) -> Writer:
    """A scan with these values in its first voxels."""

    def write(root: Path) -> Path:
        array = voxels(*SHAPE, dtype=dtype)
        array.flat[: len(values)] = values
        return save(placed(root, name), array)

    return Writer(name, write)


def damaged(name: str, damage: Damage, *, inside: bool = False) -> Writer:
    """A good scan, then its bytes changed; those that are packed with `inside`."""

    def write(root: Path) -> Path:
        path = save(placed(root, name), voxels(*SHAPE))
        packed = inside and name.endswith(".gz")
        content = path.read_bytes()
        content = damage(gzip.decompress(content) if packed else content)
        path.write_bytes(gzip.compress(content) if packed else content)
        return path

    return Writer(name, write)


def replaced(old: bytes, new: bytes) -> Damage:
    return lambda data: data.replace(old, new, 1)


def without_end(count: int) -> Damage:
    return lambda data: data[:-count]


def flipped(where: int) -> Damage:
    return lambda data: data[:where] + bytes([data[where] ^ 0xFF]) + data[where:][1:]


def gap(data: bytes) -> bytes:
    """400 bytes between header and voxels, as a header extension makes them."""
    header = nib.Nifti1Header(data[:348], check=False)
    header["vox_offset"] = 752
    extension = struct.pack("<ii", 400, 6) + b"comment".ljust(392, b"\0")
    return header.binaryblock + b"\1\0\0\0" + extension + data[352:]


def zeros_without_end(name: str, side: int) -> Writer:
    """A gzip file of few bytes that unpacks to a complete scan of side ** 3 zeros."""

    def write(root: Path) -> Path:
        header = nib.Nifti1Header()
        header.set_data_dtype(np.uint8)
        header.set_data_shape([side] * 3)
        header.set_sform(np.eye(4), 1)
        header["vox_offset"], header["scl_slope"] = 352, 1
        header["magic"] = b"n+1"
        block = gzip.compress(bytes(1 << 24))
        blocks = side**3 // (1 << 24) + 1
        path = placed(root, name)
        path.write_bytes(gzip.compress(header.binaryblock + bytes(4)) + block * blocks)
        return path

    return Writer(name, write)


# --- MetaImage and NRRD


def itk(
    name: str,
    array: np.ndarray | None = None,
    *,
    spacing: Sequence[float] = (0.9, 1.1, 2.5),
    direction: Sequence[float] | None = None,
    packed: bool = False,
    vector: bool = False,
    damage: Damage | None = None,
) -> Writer:
    """A file that SimpleITK writes from an array (z, y, x)."""

    def write(root: Path) -> Path:
        image = sitk.GetImageFromArray(
            voxels(*SHAPE[::-1]) if array is None else array, isVector=vector
        )
        axes = image.GetDimension()
        image.SetSpacing([*spacing, 1.0][:axes])
        image.SetOrigin([5.5, -70.25, 12.125, 0.0][:axes])
        if direction is not None:
            image.SetDirection(direction)
        path = placed(root, name)
        sitk.WriteImage(image, str(path), packed)
        if damage is not None:
            path.write_bytes(damage(path.read_bytes()))
        return path

    return Writer(name, write)


def nrrd(name: str, *lines: str, sizes: str = "12 11 10", dimension: int = 3) -> Writer:
    """An NRRD file of exactly these header lines."""

    def write(root: Path) -> Path:
        head = f"NRRD0004\ntype: int16\ndimension: {dimension}\nsizes: {sizes}\nencoding: raw\n"
        text = head + "endian: little\n" + "".join(f"{line}\n" for line in lines) + "\n"
        count = int(np.prod([int(n) for n in sizes.split()]))
        path = placed(root, name)
        path.write_bytes(text.encode() + voxels(*SHAPE).reshape(-1)[:count].astype("<i2").tobytes())
        return path

    return Writer(name, write)


# --- DICOM


def dicom(name: str, /, **options: Any) -> Writer:
    """A series in a folder; its mask is compared with the slices that this writer wrote."""

    def write(root: Path) -> list[Path]:
        before = set((root / name).glob("*"))
        write_series(root / name, **{"slices": 6, "shape": (11, 12), **options})
        return sorted(set((root / name).glob("*")) - before)

    return Writer(name, write)


def in_slice(*which: int, **elements: Any) -> Change:
    """Elements that these slices have, or all with none named; an element of None is taken out."""

    def change(dataset: Any, z: int) -> None:
        for key, value in elements.items() if z in which or not which else ():
            delattr(dataset, key) if value is None else setattr(dataset, key, value)

    return change


def at(*positions: Sequence[float]) -> Change:
    """Slices that lie at these positions, mm."""

    def change(dataset: Any, z: int) -> None:
        dataset.ImagePositionPatient = [float(v) for v in positions[z]]

    return change


def with_slice(series: Writer, index: int, damage: Damage | None) -> Writer:
    """A series with one slice, counted by file name, damaged; or left out, with None."""

    def write(root: Path) -> Reference:
        slices = series(root)
        assert isinstance(slices, list)
        path = slices[index]
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage(path.read_bytes()))
        return [path for path in slices if path.exists()]

    return Writer(series.name, write)


def jpeg_2000(name: str) -> Writer:
    """A series packed without loss, as archives send it."""
    series = dicom(name, shape=(32, 36), spacing=(2.0, 1.1, 0.9))

    def write(root: Path) -> Reference:
        slices = series(root)
        assert isinstance(slices, list)
        for path in slices:
            image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
            writer = sitk.ImageFileWriter()
            writer.SetImageIO("GDCMImageIO")
            writer.KeepOriginalImageUIDOn()
            writer.SetUseCompression(True)
            writer.SetCompressor("JPEG2000")
            writer.SetFileName(str(path))
            writer.Execute(image)
        return slices

    return Writer(name, write)


def zipped(
    name: str,
    content: Writer | None = None,
    members: dict[str, bytes] | None = None,
    damage: Damage | None = None,
) -> Writer:
    """A zip of what a writer writes, which stays outside the tree to compare with, and of more."""

    def write(root: Path) -> Reference:
        outside = root.parent / "unpacked" / name
        outside.mkdir(parents=True)
        reference = None if content is None else content(outside)
        with zipfile.ZipFile(placed(root, name), "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(p for p in outside.rglob("*") if p.is_file()):
                archive.write(path, path.relative_to(outside))
            for member, data in (members or {}).items():
                archive.writestr(member, data)
        if damage is not None:
            (root / name).write_bytes(damage((root / name).read_bytes()))
        return reference

    return Writer(name, write)


def encrypted(data: bytes) -> bytes:
    """A zip whose flags say that all members are encrypted."""
    content = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = data.find(signature, at + 4)
    return bytes(content)


# --- files of any kind


def plain(name: str, content: bytes = b"no image") -> Writer:
    def write(root: Path) -> None:
        placed(root, name).write_bytes(content)

    return Writer(name, write)


def link(name: str, target: str) -> Writer:
    """A symbolic link; its target is relative to it."""

    def write(root: Path) -> Path:
        placed(root, name).symlink_to(target)
        return root / name

    return Writer(name, write)


def pipe(name: str) -> Writer:
    """A named pipe that nobody ever writes to: whoever opens it waits for ever."""
    return Writer(name, lambda root: os.mkfifo(placed(root, name)))


def several(*writers: Writer, name: str = "") -> Writer:
    """All of them, called as the first or by `name`; the mask is compared with the first one's."""
    return Writer(name or writers[0].name, lambda root: [writer(root) for writer in writers][0])


def pair(name: str, first: Writer | None = None, second: Writer | None = None) -> Writer:
    """Files _0000 and _0001; good ones unless others are given."""
    others = first or nifti(f"{name}_0000.nii.gz"), second or nifti(f"{name}_0001.nii.gz")
    return several(*others, name=name)
