"""E57 files: scans with poses, and what is refused without reading them."""

from __future__ import annotations

import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pointseg.files import CloudFileError, read_cloud, write_labelled
from pointseg.files.scans.e57 import read_e57


def e57_header(length):
    return struct.pack("<8sIIQQQQ", b"ASTM-E57", 1, 0, length, 48, 0, 1024)


def test_e57_without_its_reader_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.e57"
    path.write_bytes(e57_header(48))
    monkeypatch.setitem(sys.modules, "pye57", None)
    with pytest.raises(CloudFileError, match=r"a\.e57: .*\[e57\]"):
        read_cloud(path)
    path.write_bytes(e57_header(4096))
    with pytest.raises(CloudFileError, match="is cut off: it must have 4096 bytes"):
        read_cloud(path)
    path.write_bytes(b"ply\n" * 20)
    with pytest.raises(CloudFileError, match="is not an E57 file"):
        read_cloud(path)


def stand_in(count, limit=255.0, fail=False):
    """A reader of one scan of three points, of which one is invalid."""
    red = SimpleNamespace(value=lambda: limit)
    fields = ["cartesianX", "cartesianY", "cartesianZ", "colorRed", "colorGreen", "colorBlue"]
    header = SimpleNamespace(
        point_count=count, point_fields=fields, node={"colorLimits": {"colorRedMaximum": red}}
    )
    columns = {f"cartesian{axis}": np.array([1.0, 2.0]) for axis in "XYZ"}
    columns |= {f"color{name}": np.array([7, 8], np.uint8) for name in ("Red", "Green", "Blue")}

    def read_scan(number, **options):
        assert options["transform"] and options["ignore_missing_fields"] and options["colors"]
        assert not options["intensity"]
        if fail:
            raise RuntimeError("bad checksum")
        return columns

    file = SimpleNamespace(
        scan_count=1, get_header=lambda n: header, read_scan=read_scan, close=lambda: None
    )
    return SimpleNamespace(E57=lambda path: file)


def test_e57_is_bounded_before_memory_is_taken(tmp_path, monkeypatch):
    path = tmp_path / "a.e57"
    path.write_bytes(e57_header(48))
    monkeypatch.setitem(sys.modules, "pye57", stand_in(3))
    found = read_e57(path)
    assert found["x"].tolist() == [1, 2] and found["red"].tolist() == [7, 8]
    assert found.notes == ("1 of 3 points are marked as invalid; they were left out",)
    for wrong, problem in (
        (stand_in(10**12), "more than the file can hold"),
        (stand_in(3, limit=65535.0), "colours reach 65535"),
        (stand_in(3, fail=True), "not a readable E57 file: bad checksum"),
    ):
        monkeypatch.setitem(sys.modules, "pye57", wrong)
        with pytest.raises(CloudFileError, match=rf"a\.e57: .*{problem}"):
            read_cloud(path)


def test_e57_of_two_scans_with_poses(tmp_path):
    pye57 = pytest.importorskip("pye57")
    path = tmp_path / "a.e57"
    file = pye57.E57(str(path), mode="w")
    rng = np.random.default_rng(0)
    xyz = rng.random((2, 50, 3)) * 10
    for number in range(2):
        columns = dict(zip(("cartesianX", "cartesianY", "cartesianZ"), xyz[number].T, strict=True))
        columns["intensity"] = rng.random(50).astype(np.float32)
        for name in ("colorRed", "colorGreen", "colorBlue"):
            columns[name] = rng.integers(0, 256, 50).astype(np.uint8)
        half = np.sqrt(0.5)  # a quarter turn about z
        file.write_scan_raw(
            columns,
            rotation=np.array([half, 0, 0, half]),
            translation=np.array([100.0 * number, 0, 5]),
        )
    file.close()
    scene = read_cloud(path)
    wanted = np.stack([-xyz[..., 1], xyz[..., 0], xyz[..., 2] + 5], axis=-1)
    wanted[1, :, 0] += 100
    np.testing.assert_allclose(scene.coord + scene.origin, wanted.reshape(-1, 3), atol=1e-4)
    assert (
        scene["scan"].tolist() == [0] * 50 + [1] * 50 and "color" in scene and "strength" in scene
    )
    write_labelled(path, tmp_path / "b.ply", np.arange(100))
    assert read_cloud(tmp_path / "b.ply")["segment"].tolist() == list(range(100))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CloudFileError, match="is cut off"):
        read_cloud(path)
