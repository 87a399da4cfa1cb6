"""All types of files alike: what is written reads back, labelled copies keep everything else."""

from __future__ import annotations

import numpy as np
import pytest

from dinomed3d.runtime.errors import UserError
from pointseg.files import (
    SUFFIXES,
    CloudFileError,
    ValueRanges,
    cloud_suffix,
    finite_points,
    read_cloud,
    write_cloud,
    write_labelled,
)
from pointseg.files.formats import FORMATS, Format
from pointseg.scene import IGNORE, Scene

READ_ONLY = tuple(suffix for suffix in SUFFIXES if FORMATS[suffix].result)
NAMES = [*(f"cloud{suffix}" for suffix in SUFFIXES if suffix not in READ_ONLY), "cloud"]
EXACT = [name for name in NAMES if not name.endswith((".las", ".laz"))]
BARE = (".bin",)  # .bin and .pcd.bin: positions and intensity alone
COLORS = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)


def scene(count=50, *, seed=0, origin=(0, 0, 0), **extra):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    fields = {
        "color": rng.integers(0, 256, (count, 3)).astype(np.float32),
        "normal": normal.astype(np.float32),
        "strength": rng.random((count, 1)).astype(np.float32),
        "segment": rng.integers(-1, 3, count).astype(np.int32),
        **extra,
    }
    coord = rng.normal(size=(count, 3)).astype(np.float32)
    return Scene(coord=coord, fields=fields, origin=np.array(origin, float), name="cloud")


@pytest.mark.parametrize("name", EXACT)
def test_what_is_written_reads_back(tmp_path, name):
    written = scene()
    write_cloud(tmp_path / name, written)
    read = read_cloud(tmp_path / name)
    assert read.name == "cloud" and not read.origin.any()
    np.testing.assert_array_equal(read.coord, written.coord)
    np.testing.assert_array_equal(read["segment"], written["segment"])
    np.testing.assert_allclose(read["strength"], written["strength"], atol=1e-7)
    if not name.endswith(BARE):
        np.testing.assert_array_equal(read["color"], written["color"])
        np.testing.assert_allclose(read["normal"], written["normal"], atol=1e-6)


@pytest.mark.parametrize("name", ["cloud.las", "cloud.laz"])
def test_las_reads_back_to_its_resolution(tmp_path, name):
    written = scene(height=np.arange(50, dtype=np.float64))
    write_cloud(tmp_path / name, written)
    read = read_cloud(tmp_path / name)
    np.testing.assert_allclose(read.coord, written.coord, atol=0.51e-4)
    np.testing.assert_array_equal(read["segment"], written["segment"])
    np.testing.assert_allclose(read["strength"], written["strength"], atol=1 / 65535)
    np.testing.assert_array_equal(read["color"], written["color"])
    np.testing.assert_allclose(read["normal"], written["normal"], atol=1e-6)
    np.testing.assert_array_equal(read["height"], written["height"])


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(BARE)])
def test_far_positions_keep_their_millimetres(tmp_path, name):
    origin = (10_000_000.0, -4_321_000.0, 0.0)
    written = scene(origin=origin)
    write_cloud(tmp_path / name, written)
    read = read_cloud(tmp_path / name)
    assert read.origin.tolist() == list(origin)
    np.testing.assert_allclose(read.coord, written.coord, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(BARE)])
@pytest.mark.parametrize("colors", [None, COLORS])
def test_a_labelled_copy_keeps_all_other_fields(tmp_path, name, colors):
    original = scene(
        origin=(684_000.0, 5_017_000.0, 0),
        height=np.linspace(0, 1, 50).astype(np.float32),
        number=np.arange(50, dtype=np.int32) - 20,
    ).without("segment")
    source, target = tmp_path / "in" / name, tmp_path / "out" / name
    write_cloud(source, original)
    before = read_cloud(source)
    segment = np.random.default_rng(1).integers(-1, 3, 50)
    write_labelled(source, target, segment, colors=colors)
    after = read_cloud(target)
    np.testing.assert_array_equal(after["segment"], segment)
    np.testing.assert_array_equal(after.coord, before.coord)
    np.testing.assert_array_equal(after.origin, before.origin)
    added = set(after.fields) - set(before.fields)
    classes = {"pointseg_class"} if name.endswith(("las", "laz")) else {"class"}
    assert added - {"segment"} == classes and not set(before.fields) - set(after.fields)
    kept = set(before.fields) - {"segment"} - (set() if colors is None else {"color"})
    assert {"height", "number", "normal", "strength"} <= kept
    for key in kept - {"red", "green", "blue"}:
        np.testing.assert_array_equal(after[key], before[key])
    if colors is not None:
        painted = np.concatenate([colors, [[128, 128, 128]]])[segment]
        np.testing.assert_array_equal(after["color"], painted)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(BARE)])
def test_colours_are_added_where_there_were_none(tmp_path, name):
    if name == "cloud.npy":
        original = scene().without("color", "segment")
    else:
        original = scene().without("color", "segment", "normal")
    write_cloud(tmp_path / "in" / name, original)
    write_labelled(tmp_path / "in" / name, tmp_path / name, np.ones(50, np.int64), colors=COLORS)
    read = read_cloud(tmp_path / name)
    assert read["color"].tolist() == [[40, 50, 60]] * 50
    assert read["segment"].tolist() == [1] * 50


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(BARE)])
def test_labels_that_are_there_stay_with_new_ones(tmp_path, name):
    original = scene()
    write_cloud(tmp_path / "in" / name, original)
    write_labelled(tmp_path / "in" / name, tmp_path / name, np.full(50, 7))
    read = read_cloud(tmp_path / name)
    assert read["segment"].tolist() == [7] * 50
    if name == "cloud":  # numpy's files call it segment, as Pointcept does
        assert np.array_equal(np.load(tmp_path / name / "segment.npy"), original["segment"])
    elif name.endswith((".npy", ".npz")):
        held = np.load(tmp_path / name)
        assert np.array_equal(held["segment"], original["segment"])
    elif not name.endswith((".las", ".laz")):  # ours are replaced there: the file has no other
        assert read["pointseg_class"].tolist() == [7] * 50
        np.testing.assert_array_equal(read["class"], original["segment"])


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(BARE)])
def test_labelling_twice_replaces_the_first(tmp_path, name):
    write_cloud(tmp_path / "in" / name, scene().without("segment"))
    first, second = tmp_path / "a" / name, tmp_path / "b" / name
    write_labelled(tmp_path / "in" / name, first, np.full(50, 1), field="guess")
    write_labelled(first, second, np.full(50, -1), field="guess")
    assert read_cloud(second)["guess"].tolist() == [-1] * 50


@pytest.mark.parametrize("name", NAMES)
def test_empty_clouds_are_read_and_labelled(tmp_path, name):
    empty = scene().select(np.zeros(50, bool))
    write_cloud(tmp_path / "in" / name, empty)
    assert len(read_cloud(tmp_path / "in" / name)) == 0
    write_labelled(tmp_path / "in" / name, tmp_path / name, np.empty(0, np.int64))
    assert len(read_cloud(tmp_path / name)) == 0


@pytest.mark.parametrize("name", EXACT)
def test_points_without_a_position_are_kept_and_can_be_left_out(tmp_path, name):
    original = scene().without("segment")
    original.coord[3] = np.nan
    original.coord[7, 2] = np.inf
    write_cloud(tmp_path / "in" / name, original)
    read = read_cloud(tmp_path / "in" / name)
    np.testing.assert_array_equal(read.coord, original.coord)
    finite, index = finite_points(read)
    assert len(finite) == 48 and sorted(set(range(50)) - set(index.tolist())) == [3, 7]
    np.testing.assert_array_equal(finite.coord, original.coord[index])
    segment = np.full(50, IGNORE)
    segment[index] = 2
    write_labelled(tmp_path / "in" / name, tmp_path / name, segment)
    after = read_cloud(tmp_path / name)
    np.testing.assert_array_equal(after.coord, original.coord)
    np.testing.assert_array_equal(after["segment"], segment)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_number_of_classes_is_refused_and_nothing_is_left(tmp_path, name):
    write_cloud(tmp_path / "in" / name, scene())
    for wrong in (np.zeros(49, np.int64), np.zeros((50, 1), np.int64), np.zeros(50)):
        with pytest.raises(CloudFileError, match="'segment'"):
            write_labelled(tmp_path / "in" / name, tmp_path / "out" / name, wrong)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
def test_files_that_are_cut_off_raise_our_error_or_are_shorter(tmp_path, name, share):
    path = tmp_path / name
    write_cloud(path, scene().without("segment"))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share) - int(len(data) * share) % 4 + 1])
    text = name.endswith((".txt", ".xyz", ".csv", ".asc", ".pts"))
    if text:  # text does not say how many lines it has
        try:
            assert len(read_cloud(path)) < 50
        except CloudFileError as error:
            assert str(path) in str(error)
        return
    with pytest.raises(CloudFileError, match=r"cloud\."):
        read_cloud(path)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_damaged_files_raise_our_error_or_are_read(tmp_path, name):
    path = tmp_path / name
    write_cloud(path, scene().without("segment"))
    data = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(40):
        broken = data.copy()
        # Mostly in the first part: the header says how much memory to ask for.
        where = rng.integers(0, min(len(data), 400), 3)
        broken[where] = rng.integers(0, 256, 3)
        path.write_bytes(broken.tobytes())
        try:
            read_cloud(path)
        except CloudFileError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_other_content_under_this_name_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"this is a letter, not a cloud\n" * 3 + b"!")
    with pytest.raises(CloudFileError, match=r"cloud\."):
        read_cloud(path)


def test_endings():
    from pathlib import Path

    assert cloud_suffix(Path("a/B.PCD.BIN")) == ".pcd.bin"
    assert cloud_suffix(Path("b.bin")) == ".bin" and cloud_suffix(Path("b.PCD")) == ".pcd"
    assert cloud_suffix(Path("b.jpg")) is None and cloud_suffix(Path("ply")) is None


def test_las_and_laz_and_kinds_of_text_are_alike(tmp_path):
    write_cloud(tmp_path / "a.laz", scene())
    write_labelled(tmp_path / "a.laz", tmp_path / "b.las", np.full(50, 2))
    assert read_cloud(tmp_path / "b.las")["segment"].tolist() == [2] * 50
    write_cloud(tmp_path / "a.csv", scene())
    write_labelled(tmp_path / "a.csv", tmp_path / "b.txt", np.full(50, 2))
    assert read_cloud(tmp_path / "b.txt")["pointseg_class"].tolist() == [2] * 50


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda folder: read_cloud(folder / "a.jpg"), "a.jpg"),
        (lambda folder: read_cloud(folder / "missing.ply"), "missing.ply"),
        (lambda folder: read_cloud(folder / "directory"), "directory"),
        (lambda folder: write_cloud(folder / "b.jpg", scene()), "b.jpg"),
        (lambda folder: write_cloud(folder / "a.jpg" / "a.ply", scene()), "a.ply"),
        (lambda folder: label(folder, "a.jpg/b.ply"), "b.ply"),
        (lambda folder: label(folder, "b.pcd"), "b.pcd"),
        *((lambda folder, f=f: label(folder, field=f), "a.ply") for f in
          ("two words", "", "é", "x" * 40, "1st", "x", "Y", "coord")),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(tmp_path, call, named):
    write_cloud(tmp_path / "a.ply", scene())
    (tmp_path / "a.jpg").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(UserError, match=named):
        call(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.jpg", "a.ply", "directory"]


def label(folder, target="b.ply", **options):
    write_labelled(folder / "a.ply", folder / target, np.zeros(50, int), **options)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    write_cloud(tmp_path / "a.ply", scene())

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(FORMATS, ".ply", Format(refuse, refuse, refuse))
    with pytest.raises(CloudFileError, match=r"a\.ply: .*Permission denied"):
        read_cloud(tmp_path / "a.ply")
    with pytest.raises(CloudFileError, match=r"a\.ply: .*Permission denied"):
        label(tmp_path)


@pytest.mark.parametrize(
    "suffix", [".ply", ".pcd", ".las", ".npz", ".npy", ".csv", "", ".bin", ".pcd.bin"]
)
def test_every_reader_takes_the_scale_of_intensities_that_is_said(tmp_path, suffix):
    strength = np.array([[0.2], [0.4], [0.8]], np.float32)
    path = tmp_path / f"a{suffix}"
    write_cloud(path, Scene(np.eye(3, dtype=np.float32), {"strength": strength}))
    own = {".las": 65535, ".pcd.bin": 255}.get(suffix, 1)  # what 1 is written as
    np.testing.assert_allclose(read_cloud(path)["strength"], strength, atol=1e-4)
    found = read_cloud(path, stated=ValueRanges(intensity_max=own / 2))["strength"]
    np.testing.assert_allclose(found, np.minimum(strength * 2, 1), atol=1e-4)


@pytest.mark.parametrize("name", ["Class", "scalar_class", "scalar_pointseg_class"])
@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".csv", ".npz", ".npy", ".las"])
def test_what_is_read_back_are_the_classes_that_were_written(tmp_path, suffix, name):
    fields = {name: np.array([7, 8], np.int32)}
    write_cloud(tmp_path / f"a{suffix}", Scene(np.eye(3, dtype=np.float32)[:2], fields))
    assert read_cloud(tmp_path / f"a{suffix}")["segment"].tolist() == [7, 8]
    write_labelled(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", np.array([1, 0]))
    found = read_cloud(tmp_path / f"b{suffix}")
    assert found["segment"].tolist() == [1, 0]
    if "pointseg" not in name:
        assert found[name].tolist() == [7, 8]
