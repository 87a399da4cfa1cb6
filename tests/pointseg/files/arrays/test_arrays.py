"""numpy arrays: folders in Pointcept's layout, npz, single arrays; objects in them are refused."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from pointseg.files import CloudFileError, check_labelled, read_cloud, write_labelled

COORD = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def folder(path, **arrays):
    path.mkdir()
    for name, values in {"coord": COORD, **arrays}.items():
        np.save(path / f"{name}.npy", values)
    return path


def test_pointcepts_layout(tmp_path):
    arrays = dict(
        color=np.array([[255, 0, 7], [1, 2, 3]], np.uint8),
        normal=np.array([[0, 0, 2], [0, 0, 0]], np.float64),
        strength=np.array([0.25, 1], np.float32),
        segment=np.array([[3], [-1]], np.int64),
        instance=np.array([5, 6], np.int16),
        segment200=np.array([7, 8], np.int32),
        pose=np.eye(4),
    )
    scene = read_cloud(folder(tmp_path / "room", **arrays))
    assert scene.name == "room" and scene.coord.tolist() == COORD.tolist()
    assert scene["color"].tolist() == [[255, 0, 7], [1, 2, 3]]
    assert scene["normal"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert scene["strength"].tolist() == [[0.25], [1]]
    assert scene["segment"].tolist() == [3, -1] and scene["instance"].tolist() == [5, 6]
    assert scene["segment200"].tolist() == [7, 8]
    assert "pose" not in scene  # no row per point


@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i2"])
def test_types_and_orders_of_positions(tmp_path, kind):
    assert (
        read_cloud(folder(tmp_path / "a", coord=COORD.astype(kind))).coord.tolist()
        == COORD.tolist()
    )
    columns = np.asfortranarray(COORD.astype(kind))
    assert read_cloud(folder(tmp_path / "b", coord=columns)).coord.tolist() == COORD.tolist()


def test_a_labelled_folder_keeps_all_files(tmp_path):
    source = folder(tmp_path / "a", pose=np.eye(4), color=np.array([[0.5, 0, 1]] * 2))
    write_labelled(source, tmp_path / "out" / "b.1", np.array([1, 0]))
    assert {f.name for f in (tmp_path / "out" / "b.1").iterdir()} == {
        "coord.npy", "pose.npy", "color.npy", "class.npy"
    }  # fmt: skip
    assert read_cloud(tmp_path / "out" / "b.1")["segment"].tolist() == [1, 0]
    colors = np.array([[255, 0, 51], [0, 0, 0]], np.uint8)
    write_labelled(source, source, np.array([1, 0]), colors=colors)
    assert np.load(source / "color.npy").tolist() == [[0, 0, 0], [1, 0, 0.2]]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_other_names(tmp_path, save):
    save(tmp_path / "a.npz", points=COORD, rgb=np.array([[65535, 0, 257]] * 2, np.uint16),
         label=np.array([1.0, np.nan]), number=np.arange(2), pose=np.eye(4))  # fmt: skip
    scene = read_cloud(tmp_path / "a.npz")
    assert scene["color"].tolist() == [[255, 0, 1]] * 2
    assert scene["segment"].tolist() == [1, -1] and scene["number"].tolist() == [0, 1]
    colors = np.array([[1, 2, 3]], np.uint8)
    write_labelled(tmp_path / "a.npz", tmp_path / "b.npz", np.array([0, 0]), colors=colors)
    held = np.load(tmp_path / "b.npz")
    assert held["rgb"].tolist() == [[257, 514, 771]] * 2 and held["class"].tolist() == [0, 0]
    assert held["pose"].tolist() == np.eye(4).tolist()


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ([[1, 2, 3], [4, 5, 6]], set()),
        ([[1, 2, 3, 0.5], [4, 5, 6, 0.25]], {"intensity", "strength"}),
        ([[1, 2, 3, 255, 0, 1], [4, 5, 6, 7, 8, 9]], {"color"}),
    ],
)
def test_a_single_array(tmp_path, table, found):
    np.save(tmp_path / "a.npy", np.array(table, np.float32))
    scene = read_cloud(tmp_path / "a.npy")
    assert scene.coord.tolist() == COORD.tolist() and set(scene.fields) == found
    write_labelled(tmp_path / "a.npy", tmp_path / "b.npy", np.array([7, -1]))
    rows = np.load(
        tmp_path / "b.npy"
    )  # named: four columns may be those of a class, or of intensity
    assert rows.tolist() == [(*table[0], 7), (*table[1], -1)] and rows.dtype.names[-1] == "class"
    labelled = read_cloud(tmp_path / "b.npy")
    assert labelled["segment"].tolist() == [7, -1]
    for field, values in {"coord": scene.coord, **scene.fields}.items():
        np.testing.assert_array_equal(
            labelled.coord if field == "coord" else labelled[field], values
        )


def test_colours_of_a_single_array(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, 2, 3, 9, 9, 9]], np.int16))
    colors = np.array([[255, 0, 51]], np.uint8)
    write_labelled(tmp_path / "a.npy", tmp_path / "b.npy", np.array([0]), colors=colors)
    assert np.load(tmp_path / "b.npy").tolist() == [(1, 2, 3, 255, 0, 51, 0)]
    np.save(tmp_path / "a.npy", np.array([[1, 2, 3]], np.int16))
    measured = np.array([[9000, 100, 8000]], np.uint16)
    write_labelled(
        tmp_path / "a.npy", tmp_path / "b.npy", np.array([0]), colors=colors, certainty=measured
    )
    found = read_cloud(tmp_path / "b.npy")
    assert found["color"].tolist() == colors.tolist() and found["segment"].tolist() == [0]
    assert found["confidence"].tolist() == pytest.approx([0.9])


def test_colours_of_a_structured_array(tmp_path):
    rows = np.zeros(2, [(name, "f4") for name in ("x", "y", "z", "red", "green", "blue")])
    rows["red"] = 1
    np.save(tmp_path / "a.npy", rows)
    colors = np.array([[255, 0, 51]], np.uint8)
    write_labelled(tmp_path / "a.npy", tmp_path / "b.npy", np.array([0, 0]), colors=colors)
    np.testing.assert_allclose(
        read_cloud(tmp_path / "b.npy")["color"], [[255, 0, 51]] * 2, atol=1e-4
    )


@pytest.mark.parametrize(
    "name", ["color", "normal", "strength", "segment", "segment20", "instance"]
)
def test_wrong_lengths_are_refused(tmp_path, name):
    values = np.zeros((3, 3) if name in ("color", "normal") else 3)
    np.savez(tmp_path / "a.npz", coord=COORD, **{name: values})
    for path in (folder(tmp_path / "a", **{name: values}), tmp_path / "a.npz"):
        with pytest.raises(CloudFileError, match=rf"{path.name}: '{name}' has 3 rows"):
            read_cloud(path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2)),
        np.zeros((2, 5)),
        np.array([None, {}], object),
        np.array(["a", "b"]),
        np.array(5.0),
    ],
)
def test_arrays_that_are_no_positions_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", coord=array)
    np.savez(tmp_path / "b.npz", colour=COORD)
    for path in (folder(tmp_path / "a", coord=array), *tmp_path.glob("*.np?")):
        with pytest.raises(CloudFileError, match=path.name):
            read_cloud(path)


def test_sizes_are_checked_before_memory_is_allocated(tmp_path):
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**15, 3)}
    np.lib.format.write_array_header_1_0(stream, header)
    (tmp_path / "a.npy").write_bytes(stream.getvalue() + bytes(12))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("coord.npy", stream.getvalue() + bytes(12))
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        with pytest.raises(CloudFileError, match="cut off: 12000000000000000 bytes"):
            read_cloud(path)


def test_later_versions_of_the_format_are_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x09\x00" + bytes(100))
    with pytest.raises(CloudFileError, match=r"a\.npy.*\(9, 0\)"):
        read_cloud(tmp_path / "a.npy")


def test_labelling_a_folder_without_coord_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(CloudFileError, match="coord"):
        write_labelled(tmp_path / "a", tmp_path / "b", np.zeros(1, int))


def test_an_array_may_get_everything(tmp_path):
    for columns in (3, 4, 6):
        np.save(tmp_path / "a.npy", np.zeros((5, columns), np.float32))
        check_labelled(
            tmp_path / "a.npy", tmp_path / "b.npy", colored=True, measured=True, heights=True
        )


def test_nothing_of_an_earlier_result_stays_in_a_folder(tmp_path):
    source, target = folder(tmp_path / "a"), tmp_path / "out"
    np.save(source / "class.npy", np.zeros(2, np.uint8))
    write_labelled(source, target, np.array([1, 1]), certainty=np.full((2, 3), 9000, np.uint16))
    (target / "notes.txt").write_text("mine")
    (source / "class.npy").unlink()
    write_labelled(source, target, np.array([2, 2]))
    assert {f.name for f in target.iterdir()} == {"coord.npy", "class.npy", "notes.txt"}
    assert read_cloud(target)["segment"].tolist() == [2, 2]


def test_a_folder_that_cannot_be_labelled_leaves_the_earlier_result(tmp_path):
    source, target = folder(tmp_path / "a"), tmp_path / "out"
    write_labelled(source, target, np.array([1, 1]))
    with pytest.raises(CloudFileError):
        write_labelled(source, target, np.array([1, 1, 1]))
    assert read_cloud(target)["segment"].tolist() == [1, 1]
    assert {f.name for f in target.iterdir()} == {"coord.npy", "class.npy"}
