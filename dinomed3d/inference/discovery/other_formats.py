"""Image formats that are not read: each file is refused by name, with the conversion that makes it readable."""

from __future__ import annotations

from collections.abc import Collection

_CONVERSIONS = {
    ".hdr.gz": "unpack it and its .img.gz, and convert both to one .nii.gz",
    ".mnc": "MINC: 'mnc2nii {name} {stem}.nii'",
    ".par": "Philips PAR/REC: 'dcm2niix {name}'",
    ".nii.bz2": "'bunzip2 {name}', then 'gzip' it",
    ".nii.xz": "'unxz {name}', then 'gzip' it",
    ".nii.zip": "unpack it",
    ".nii.zst": "'unzstd {name}', then 'gzip' it",
    ".nii.z": "'uncompress {name}', then 'gzip' it",
    ".head": "AFNI: '3dAFNItoNIFTI {name}'",
    ".vti": "VTK: save it as .nii.gz, for example in 3D Slicer",
    ".v": "ECAT: convert it to .nii.gz",
}
"""Ending -> what to do; all of them are images."""
VOXEL_ENDINGS = {
    ".mhd": (".raw", ".zraw"),
    ".nhdr": (".raw", ".raw.gz"),
    ".hdr": (".img",),
}
"""Ending of a header that is read -> the usual endings of its voxels."""
_VOXELS_OF = {
    ".raw": (".mhd", ".nhdr"),
    ".raw.gz": (".nhdr",),
    ".zraw": (".mhd",),
    ".img": (".hdr",),
    ".img.gz": (".hdr.gz", ".hdr"),
    ".rec": (".par",),
    ".brik": (".head",),
    ".brik.gz": (".head",),
}
"""Ending of files with voxels alone -> the endings of their headers, under which they are refused."""


def unread_format(name: str) -> str | None:
    """The ending of a file in an image format that is not read, or of its voxels; None for others."""
    low = name.lower()
    return next((e for e in (*_CONVERSIONS, *_VOXELS_OF) if low.endswith(e)), None)


def refuse_format(name: str, neighbours: Collection[str]) -> str | None:
    """Why an image of `unread_format` is refused; None for voxels whose header is refused already.

    Args:
        name: of the file.
        neighbours: names of all files in its folder.
    """
    ending = unread_format(name) or ""
    stem = name[: -len(ending)]
    if ending not in _VOXELS_OF:
        advice = _CONVERSIONS[ending].format(name=name, stem=stem)
        return f"{name}: {ending} is not read; {advice}"
    low = {neighbour.lower() for neighbour in neighbours}
    if any(f"{stem.lower()}{header}" in low for header in _VOXELS_OF[ending]):
        return None
    headers = " or ".join(_VOXELS_OF[ending])
    return f"{name}: holds voxels without their header ({headers}); export the image as .nii.gz"
