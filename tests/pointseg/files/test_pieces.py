"""Files read and labelled in pieces: what they give as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.files import (
    CloudFileError,
    SavedLabels,
    in_pieces,
    read_cloud,
    write_cloud,
    write_labelled,
)
from pointseg.files.arrays import folder, npy
from pointseg.files.columns.to_scene import scene_of
from pointseg.files.labelling.certainty import SavedCertainty
from pointseg.files.labelling.labels import Labels
from pointseg.files.labelling.saved_rows import SavedRows
from pointseg.files.las import label as las_label
from pointseg.files.las import read as las_read
from pointseg.files.las import rewrite as las_rewrite
from pointseg.files.pcd import label as pcd_label
from pointseg.files.ply import label as ply_label
from pointseg.files.table import pieces
from pointseg.scene import Scene

SUFFIXES = (".las", ".laz", ".ply", ".pcd", ".npy", "", ".bin", ".pcd.bin")
COUNT = 25


@pytest.fixture
def small(monkeypatch):
    """Pieces of four points."""
    for module in (pieces, ply_label, pcd_label, npy, folder):
        monkeypatch.setattr(module, "PIECE", 4)
    for module in (las_read, las_rewrite, las_label):
        monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setattr(Labels.pieces, "__defaults__", (4,))


def written(path, count=COUNT):
    rng = np.random.default_rng(0)
    fields = {
        "strength": np.round(rng.random((count, 1)), 3).astype(np.float32),
        "segment": (np.arange(count) % 5 - 1).astype(np.int32),
    }
    if not path.name.endswith(".bin"):
        fields["color"] = np.rint(rng.random((count, 3)) * 255).astype(np.float32)
    write_cloud(path, Scene(coord=rng.random((count, 3)).astype(np.float32), fields=fields))
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("count", [COUNT, 0])
def test_pieces_are_the_parts_of_the_whole(tmp_path, suffix, count):
    path = written(tmp_path / f"a{suffix}", count)
    found = in_pieces(path)
    assert found.count == count
    parts = list(found.read(4))
    assert [len(next(iter(part.values()))) for part in parts] == [4] * (count // 4) + [
        count % 4 if count else 0
    ]
    whole = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    scene, expected = scene_of(path, whole, name="a"), read_cloud(path)
    np.testing.assert_array_equal(scene.coord, expected.coord)
    assert scene.fields.keys() == expected.fields.keys()
    for name in set(expected.fields) - {"strength"}:
        np.testing.assert_array_equal(scene[name], expected[name])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_copies_made_in_pieces_are_those_made_at_once(tmp_path, request, suffix):
    path = written(tmp_path / f"a{suffix}")
    segment = np.arange(COUNT) % 7 - 1
    segment.astype("<i2").tofile(tmp_path / "labels")
    saved = SavedLabels(tmp_path / "labels", np.dtype("<i2"), COUNT)
    colors = None if suffix.endswith(".bin") else np.arange(18, dtype=np.uint8).reshape(6, 3)
    certainty = saved_certainty = heights = saved_heights = None
    given = {"colors": colors}
    if not suffix.endswith(".bin"):
        certainty = np.arange(3 * COUNT, dtype=np.uint16).reshape(COUNT, 3)
        certainty.astype("<u2").tofile(tmp_path / "certainty")
        saved_certainty = SavedCertainty(tmp_path / "certainty", COUNT)
        heights = np.linspace(-1, 30, COUNT, dtype="<f4")
        heights.tofile(tmp_path / "heights")
        saved_heights = SavedRows(tmp_path / "heights", heights.dtype, (COUNT,))
        given |= {"codes": (2, 6, 5, 3, 4, 9), "legend": ("a", "b", "c", "d", "e", "f")}
    whole, parts = tmp_path / f"whole/a{suffix}", tmp_path / f"parts/a{suffix}"
    write_labelled(path, whole, segment, certainty=certainty, heights=heights, **given)
    request.getfixturevalue("small")
    write_labelled(path, parts, saved, certainty=saved_certainty, heights=saved_heights, **given)
    whole, parts = (sorted((tmp_path / n).rglob("*.*")) for n in ("whole", "parts"))
    assert [file.name for file in whole] == [file.name for file in parts]
    for one, other in zip(whole, parts, strict=True):
        if one.is_file():
            assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("suffix", [".txt", ".npz"])
def test_types_that_are_read_as_a_whole_are_refused(tmp_path, suffix):
    with pytest.raises(CloudFileError, match="only read as a whole"):
        in_pieces(written(tmp_path / f"a{suffix}"))


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_of_an_array_in_either_order(tmp_path, order):
    values = np.arange(60).reshape(5, 3, 4)
    np.save(tmp_path / "a.npy", np.asarray(values, order=order))
    np.testing.assert_array_equal(npy.ArrayFile(tmp_path / "a.npy").rows(1, 4), values[1:4])
