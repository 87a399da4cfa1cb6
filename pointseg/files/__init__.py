"""Files that hold clouds: PLY, PCD, LAS and LAZ, E57, KITTI's and nuScenes' scans, text, PTX, numpy arrays.

A cloud is read with all its fields, and copied with a class for each point while everything else in
its file stays as it is. A file is checked against its size before memory is taken for it; one that is
damaged, cut off or of another type raises ``CloudFileError``, which says what is wrong and what to do.
"""

from pointseg.files.columns.origin import finite_points
from pointseg.files.columns.scales import Scales, ValueRanges
from pointseg.files.formats import (
    LAS_SUFFIXES,
    SUFFIXES,
    TEXT_SUFFIXES,
    cloud_name,
    cloud_suffix,
    known_intensity_max,
    result_suffix,
    size_of,
)
from pointseg.files.labelled_copy import check_labelled, write_labelled
from pointseg.files.labelling.labels import UNLABELLED_COLOR, SavedLabels
from pointseg.files.ply.elements import read_faces
from pointseg.files.read_cloud import in_pieces, name_notes, read_cloud, read_columns, read_scaled
from pointseg.files.table.errors import CloudFileError
from pointseg.files.write_cloud import check_painted, write_cloud, write_painted

__all__ = [
    "LAS_SUFFIXES",
    "SUFFIXES",
    "TEXT_SUFFIXES",
    "UNLABELLED_COLOR",
    "CloudFileError",
    "SavedLabels",
    "Scales",
    "ValueRanges",
    "check_labelled",
    "check_painted",
    "cloud_name",
    "cloud_suffix",
    "finite_points",
    "in_pieces",
    "known_intensity_max",
    "name_notes",
    "read_cloud",
    "read_columns",
    "read_faces",
    "read_scaled",
    "result_suffix",
    "size_of",
    "write_cloud",
    "write_labelled",
    "write_painted",
]
