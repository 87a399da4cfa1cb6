"""Bare scans: columns, labels next to them, sizes that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.files import CloudFileError, in_pieces, read_cloud, write_cloud, write_labelled
from pointseg.files.scans.bare_table import TableForm, weigh
from pointseg.scene import Scene

POINTS = [[1, 2, 3, 0.5], [4, 5, 6, 1.0], [np.nan, 8, 9, 0.0]]


def scan(path, labels=None):
    np.array(POINTS, "<f4").tofile(path)
    if labels is not None:
        np.array(labels, "<u4").tofile(path.with_suffix(".label"))
    return path


def test_a_scan_by_hand(tmp_path):
    scene = read_cloud(scan(tmp_path / "a.bin"))
    np.testing.assert_array_equal(scene.coord, np.array(POINTS, np.float32)[:, :3])
    assert scene["strength"].tolist() == [[0.5], [1], [0]]
    assert scene["remission"].tolist() == [0.5, 1, 0] and "segment" not in scene


def test_labels_next_to_a_scan(tmp_path):
    scene = read_cloud(scan(tmp_path / "a.bin", [40, 7 << 16 | 10, 0xFFFF]))
    assert scene["segment"].tolist() == [40, 10, -1]
    assert scene["instance"].tolist() == [0, 7, 0]


def test_a_scan_of_nuscenes(tmp_path):
    np.array([[1, 2, 3, 51, 4], [4, 5, 6, 255, 31]], "<f4").tofile(tmp_path / "a.pcd.bin")
    scene = read_cloud(tmp_path / "a.pcd.bin")
    assert scene.name == "a" and scene.coord.tolist() == [[1, 2, 3], [4, 5, 6]]
    np.testing.assert_allclose(scene["strength"], [[0.2], [1]])
    assert scene["intensity"].tolist() == [51, 255] and scene["ring"].tolist() == [4, 31]
    write_labelled(tmp_path / "a.pcd.bin", tmp_path / "out" / "a.pcd.bin", np.array([3, 4]))
    assert read_cloud(tmp_path / "out" / "a.pcd.bin")["segment"].tolist() == [3, 4]
    assert (tmp_path / "out" / "a.label").exists()
    write_cloud(tmp_path / "b.pcd.bin", scene)
    copy = read_cloud(tmp_path / "b.pcd.bin")
    np.testing.assert_allclose(copy["intensity"], [51, 255], rtol=1e-6)
    assert copy["ring"].tolist() == [4, 31]


def test_a_labelled_copy_is_the_scan_and_its_labels(tmp_path):
    source = scan(tmp_path / "a.bin", [1, 2, 3])
    write_labelled(source, tmp_path / "out" / "a.bin", np.array([5, 6, -1]))
    assert (tmp_path / "out" / "a.bin").read_bytes() == source.read_bytes()
    assert np.fromfile(tmp_path / "out" / "a.label", "<u4").tolist() == [5, 6, 0xFFFF]
    assert read_cloud(tmp_path / "out" / "a.bin")["segment"].tolist() == [5, 6, -1]


def test_objects_are_written_with_classes(tmp_path):
    fields = {"segment": np.array([4, -1], np.int32), "instance": np.array([-1, 9], np.int32)}
    write_cloud(tmp_path / "a.bin", Scene(coord=np.ones((2, 3), np.float32), fields=fields))
    assert np.fromfile(tmp_path / "a.label", "<u4").tolist() == [4, 9 << 16 | 0xFFFF]


def test_labels_of_a_scan_are_not_overwritten(tmp_path):
    source = scan(tmp_path / "a.bin", [1, 2, 3])
    with pytest.raises(CloudFileError, match=r"a\.label"):
        write_labelled(source, source, np.array([5, 6, 7]))
    (tmp_path / "a.label").unlink()
    write_labelled(source, source, np.array([5, 6, 7]))
    assert read_cloud(source)["segment"].tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("classes", "options", "named"),
    [
        ([0, 0, 0], {"colors": np.zeros((1, 3), np.uint8)}, r"a\.bin"),
        ([0, 0, 0], {"field": "class"}, r"a\.bin"),
        ([0, 1, 65535], {}, r"b\.label"),
    ],
)
def test_labels_that_have_no_place_are_refused(tmp_path, classes, options, named):
    with pytest.raises(CloudFileError, match=named):
        write_labelled(scan(tmp_path / "a.bin"), tmp_path / "b.bin", np.array(classes), **options)


def test_far_positions_cannot_be_written(tmp_path):
    scene = Scene(coord=np.zeros((1, 3), np.float32), origin=np.array([1e6, 0, 0]))
    with pytest.raises(CloudFileError, match="float32"):
        write_cloud(tmp_path / "a.bin", scene)


@pytest.mark.parametrize(
    ("size", "labels", "named"),
    [(18, 0, r"a\.bin.*18 bytes"), (20, 0, r"a\.bin.*nuScenes"), (48, 8, r"a\.label.*12 bytes")],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path, size, labels, named):
    (tmp_path / "a.bin").write_bytes(bytes(size))
    if labels:
        (tmp_path / "a.label").write_bytes(bytes(labels))
    with pytest.raises(CloudFileError, match=named):
        read_cloud(tmp_path / "a.bin")


def table(
    width, kind="<f4", count=1500, scale=(9, 5, 1, 0.1, 40, 3, 20, 0.5, 1, 4, 90, 7, 2, 0.2, 30, 6)
):
    """Rows whose columns differ as those of scans do."""
    rng = np.random.default_rng(width)
    values = rng.random((count, width)) * scale[:width]
    values[:, :2] *= rng.choice([-1, 1], (count, 2))
    return values.astype(kind)


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
@pytest.mark.parametrize("width", [3, 4, 5, 6, 7, 8, 12, 15, 16])
@pytest.mark.parametrize("suffix", [".bin", ".pcd.bin"])
def test_tables_without_names_are_weighed(tmp_path, width, kind, suffix):
    path, values = tmp_path / f"a{suffix}", table(width, kind)
    values.tofile(path)
    if (width, kind) == ({".bin": 4, ".pcd.bin": 5}[suffix], "<f4"):
        assert len(read_cloud(path)) == 1500
    else:
        form = f"{width} columns of {'float32' if kind == '<f4' else 'float64'}"
        with pytest.raises(CloudFileError, match=rf"a{suffix}: .*{form}.*--columns"):
            read_cloud(path)
    names = ["x", "y", "z", "intensity", "ring", "time", "label", "beam", *"abcdefgh"][:width]
    scene = read_cloud(path, columns=names)
    np.testing.assert_allclose(scene.coord, values[:, :3], rtol=1e-6)
    if width > 6:
        with pytest.raises(CloudFileError, match=rf"a{suffix}: .*{width} columns"):
            read_cloud(path, columns=["x", "y", "z", "intensity"])
    write_labelled(path, tmp_path / f"out/a{suffix}", np.arange(1500), columns=names)
    assert read_cloud(tmp_path / f"out/a{suffix}", columns=names)["segment"].tolist() == list(
        range(1500)
    )
    parts = in_pieces(path, names).read(700)
    np.testing.assert_array_equal(np.concatenate([part["y"] for part in parts]), values[:, 1])


def test_places_of_long_tables_begin_within_rows(tmp_path):
    table(7, count=10_003).tofile(tmp_path / "a.bin")
    form = TableForm(7, "<f4")
    found = weigh(tmp_path / "a.bin")
    table(7, count=1500).tofile(tmp_path / "b.bin")
    assert found.best == form
    assert found.bits[form] == pytest.approx(weigh(tmp_path / "b.bin").bits[form], abs=0.05)


@pytest.mark.parametrize("beams", [2, 3])
def test_beams_that_take_turns_are_no_longer_rows(tmp_path, beams):
    rng = np.random.default_rng(0)
    angle, up = np.mgrid[0:6:1000j, -0.2 : 0.2 : beams * 1j].reshape(2, -1)
    far = 15 + 8 * np.sin(3 * angle)  # every second or third point lies high
    around = far * np.cos(angle), far * np.sin(angle), far * np.sin(up), rng.random(1000 * beams)
    np.stack(around, 1).astype("<f4").tofile(tmp_path / "a.bin")
    assert len(read_cloud(tmp_path / "a.bin")) == 1000 * beams


@pytest.mark.parametrize(
    "values",
    [
        np.round(table(4, "<f8") * 4) / 4,  # whole numbers: the halves of doubles are 0
        table(4, "<f8").astype("<f4").astype("<f8"),
        table(4, "<f8") + [6.3e5, 5.1e6, 200, 0],
    ],
    ids=["quarters", "from float32", "UTM"],
)
def test_doubles_are_no_floats(tmp_path, values):
    values.tofile(tmp_path / "a.bin")
    with pytest.raises(CloudFileError, match=r"a\.bin: .*float64"):
        read_cloud(tmp_path / "a.bin")
    scene = read_cloud(tmp_path / "a.bin", columns=["x", "y", "z", "intensity"])
    np.testing.assert_allclose(scene.coord + scene.origin, values[:, :3], rtol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).random((3000, 4), np.float32),  # columns that do not differ
        np.zeros((3000, 4), np.float32),
        np.tile(table(4, count=12), (200, 1)),  # a period of 12 rows
        table(4, count=40),
        table(4) * [1, 1, 1, 0],  # no intensities
        np.where(np.random.default_rng(0).random((1500, 1)) < 0.4, np.nan, table(4)),
    ],
    ids=["alike", "zeros", "periodic", "few", "no intensity", "no returns"],
)
def test_scans_of_four_columns_stay_what_they_are(tmp_path, values):
    values.astype("<f4").tofile(tmp_path / "a.bin")
    assert len(read_cloud(tmp_path / "a.bin")) == len(values)


@pytest.mark.parametrize(
    ("file", "width", "kind"),
    [("three", 3, "32"), ("five", 5, "32"), ("six", 6, "32"), ("float64", 4, "64")],
)
def test_tables_that_went_wrong(shared, file, width, kind):
    names = ["x", "y", "z", "intensity", "ring", "time"][:width]
    name = "float64.bin" if file == "float64" else f"{file}_columns.bin"
    path = shared / "cases/points/bin_columns" / name
    with pytest.raises(CloudFileError, match=rf"2000 points of {width} columns of float{kind}"):
        read_cloud(path)
    scene = read_cloud(path, columns=names)
    assert len(scene) == 2000 and 9.9 < scene.coord[:, 0].max() < 10


def test_rows_of_two_points_are_no_rows_of_one(tmp_path):
    names = ["x", "y", "z", "nx", "ny", "nz"]
    table(3, count=3000).tofile(tmp_path / "a.bin")
    with pytest.raises(CloudFileError, match=r"a\.bin: .*3000 points of 3 columns"):
        read_cloud(tmp_path / "a.bin", columns=names)
    np.hstack([table(3), table(3) * [0.1, 0.3, 1]]).astype("<f4").tofile(tmp_path / "a.bin")
    assert len(read_cloud(tmp_path / "a.bin", columns=names)) == 1500


def test_a_real_scan(shared, tmp_path):
    source = shared / "data/points/semantickitti_scan/000000.bin"
    scene = read_cloud(source)
    assert len(scene) == 123_389 and len(np.unique(scene["segment"])) == 19
    assert 0 <= scene["strength"].min() and 0.9 < scene["strength"].max() <= 1
    write_labelled(source, tmp_path / "a.bin", scene["segment"])
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.bin")["segment"], scene["segment"])


def test_a_real_scan_of_nuscenes(shared):
    (source,) = (shared / "data/points/nuscenes_sample").glob("*.pcd.bin")
    scene = read_cloud(source)
    assert len(scene) == 34_688 and np.unique(scene["ring"]).tolist() == list(range(32))
    assert scene["strength"].max() <= 1
