"""Reads posed images from any file or folder that describes them, by what is in it."""

from __future__ import annotations

from pathlib import Path

from pointseg.images.readers.colmap import read_colmap
from pointseg.images.readers.frame import Frame, ImagesError
from pointseg.images.readers.manifest import frames_of_manifest, read_json
from pointseg.images.readers.metashape import read_metashape
from pointseg.images.readers.transforms import TRANSFORMS, frames_of_transforms, is_transforms

CAMERA_FILES = (
    f"cameras.json, {TRANSFORMS} (nerfstudio, Polycam, instant-ngp), the cameras of Metashape (.xml), or the folder "
    "of a COLMAP model"
)
"""What ``read_cameras`` reads, in words."""
_COLMAP = tuple(f"{name}{ending}" for name in ("cameras", "images") for ending in (".txt", ".bin"))


def read_cameras(
    path: Path, images: Path | None = None, *, cloud: Path | None = None
) -> tuple[Frame, ...]:
    """The posed images that a file or folder describes; no image is read.

    Args:
        path: a manifest, a ``transforms.json`` or its folder, Metashape's XML, or the folder of a COLMAP model.
        images: folder that names of images are relative to. None: the folder of the file, or ``images`` next to
            a COLMAP model.
        cloud: file of the points, whose world the poses must be in where a file describes two worlds.

    Raises:
        ImagesError: it is missing, of no known kind, or damaged, or ``images`` is given for a manifest.
    """
    if path.is_dir():
        if not any((path / name).is_file() for name in _COLMAP):
            if (path / TRANSFORMS).is_file():
                return read_cameras(path / TRANSFORMS, images, cloud=cloud)
            _explain_folder(path)
        return read_colmap(path, path.parent / "images" if images is None else images)
    if not path.exists():
        raise ImagesError(f"{path}: is missing; give {CAMERA_FILES}")
    if path.suffix.lower() == ".xml":
        return read_metashape(path, images)
    found = read_json(path)
    if is_transforms(found):
        return frames_of_transforms(path, found, images=images, cloud=cloud)
    if images is not None:
        raise ImagesError(
            f"{path}: is a manifest, which names its images itself; a folder of images is for the other kinds"
        )
    return frames_of_manifest(path, found)


def _explain_folder(path: Path) -> None:
    """Refuse a folder without cameras, with the one that has them if it lies below.

    Raises:
        ImagesError: always.
    """
    inner = [path / "sparse" / "0", path / "sparse", path / "colmap" / "sparse" / "0", path / "0"]
    for each in inner:
        if any((each / name).is_file() for name in _COLMAP):
            raise ImagesError(
                f"{path}: has no cameras itself; the COLMAP model in it is {each}, give that (and its images)"
            )
    raise ImagesError(
        f"{path}: has neither COLMAP's cameras and images (.txt or .bin) nor {TRANSFORMS}; give {CAMERA_FILES}"
    )
