"""Text: delimiters, names, guesses, copies that leave lines as they are."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.files import CloudFileError, read_cloud, read_columns, read_scaled, write_labelled
from pointseg.files.columns.fields import labels_in


def write(path, text):
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3\n4 5 6\n",
        "1,2,3\n4,5,6\n",
        "1;2;3\n4;5;6\n",
        "1\t2\t3\n4\t5\t6\n",
        "  1   2 \t 3 \n\n\n 4 5 6",
        "1, 2, 3,\n4, 5, 6,\n",
        "x y z\n1 2 3\n4 5 6\n",
        "X,Y,Z\r\n1,2,3\r\n4,5,6\r\n",
        '"x";"y";"z"\n1;2;3\n4;5;6\n',
        "# x y z\n1,2,3\n4,5,6\n",
        "//X Y Z\n1 2 3\n# between\n4 5 6\n",
        "# a letter to the reader\n1 2 3\n4 5 6\n",
        "\ufeffx,y,z\n1,2,3\n4,5,6\n",
        "z y x\n3 2 1\n6 5 4\n",
        "2\n1 2 3\n4 5 6\n",  # the number of points first, as Leica's .pts and CloudCompare have it
        "//X Y Z\n2\n1 2 3\n4 5 6\n",
        "Point cloud export\nof today\nX Y Z\n1 2 3\n4 5 6\n",
        "Easting;Northing;Height\n1;2;3\n4;5;6\n",
        "x(m),y (m),z [m]\n1,2,3\n4,5,6\n",
        '"x","y","z"\n"1","2","3"\n"4","5","6"\n',
        "0.1D+01 2.0d0 3\n4 5 6\n",
    ],
)
def test_lines_of_all_kinds(tmp_path, text):
    scene = read_cloud(write(tmp_path / "a.txt", text))
    assert scene.coord.tolist() == [[1, 2, 3], [4, 5, 6]] and not scene.fields
    write_labelled(tmp_path / "a.txt", tmp_path / "b.txt", np.array([7, -1]))
    copy = read_cloud(tmp_path / "b.txt")
    assert copy.coord.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert copy["segment"].tolist() == [7, -1] and list(copy.fields) == ["segment", "class"]


def test_text_of_windows_editors(tmp_path):
    (tmp_path / "a.txt").write_bytes("x y z\r\n1 2 3\r\n4 5 6\r\n".encode("utf-16"))
    assert read_cloud(tmp_path / "a.txt").coord.tolist() == [[1, 2, 3], [4, 5, 6]]
    write_labelled(tmp_path / "a.txt", tmp_path / "b.txt", np.array([7, 8]))
    expected = "x y z class\r\n1 2 3 7\r\n4 5 6 8\r\n"
    assert (tmp_path / "b.txt").read_bytes().decode("utf-16") == expected
    (tmp_path / "c.txt").write_bytes(b"\xff\xfex\x00\x00\xd8")
    with pytest.raises(CloudFileError, match=r"c\.txt: is no text"):
        read_cloud(tmp_path / "c.txt")


@pytest.mark.parametrize("word", ["nan", "-nan(ind)", "1.#QNAN", "-1.#IND", "NULL", "NA", "NaN"])
def test_words_for_no_number(tmp_path, word):
    scene = read_cloud(write(tmp_path / "a.txt", f"x y z height\n1 2 3 4\n4 5 6 {word}\n"))
    assert scene["height"][0] == 4 and np.isnan(scene["height"][1])
    with pytest.raises(CloudFileError, match="malformed"):
        read_cloud(write(tmp_path / "b.txt", f"x y z height\n1 2 3 4\n4 5 6 x{word}\n"))


def test_a_count_of_points_stays_in_a_copy(tmp_path):
    write_labelled(
        write(tmp_path / "a.pts", "2\n1 2 3\n4 5 6\n"), tmp_path / "b.pts", np.array([7, 8])
    )
    assert (tmp_path / "b.pts").read_text() == "2\n# x y z class\n1 2 3 7\n4 5 6 8\n"


def test_names_may_follow_the_count_of_points(tmp_path):
    path = write(tmp_path / "a.txt", "survey 7\n2\nX Y Z R G B\n1 2 3 0 0 9\n4 5 6 255 1 0\n")
    scene, scales = read_scaled(path)
    assert scene.coord.tolist() == [[1, 2, 3], [4, 5, 6]] and "coord" not in scales.notes
    assert scene["color"].tolist() == [[0, 0, 9], [255, 1, 0]]
    write_labelled(path, tmp_path / "b.txt", np.array([7, 8]))
    lines = (tmp_path / "b.txt").read_text(encoding="utf-8").splitlines()
    assert lines[1:4] == ["2", "X Y Z R G B class", "1 2 3 0 0 9 7"]
    for wrong in ("2\nX Y Z\nI J K\n1 2 3\n", "2\nX Y\n1 2 3\n", "2\nX Y Z\n"):
        with pytest.raises(CloudFileError, match="line"):
            read_cloud(write(tmp_path / "c.txt", wrong))


def test_scans_of_a_file_have_numbers_of_points_each(tmp_path):
    text = "2\n1 2 3\n4 5 6\n1\n7 8 9\n"
    scene, scales = read_scaled(write(tmp_path / "a.pts", text))
    assert scene.coord.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert "coord" not in scales.notes
    write_labelled(tmp_path / "a.pts", tmp_path / "b.pts", np.array([7, 8, 9]))
    assert read_cloud(tmp_path / "b.pts")["segment"].tolist() == [7, 8, 9]
    _, scales = read_scaled(write(tmp_path / "cut.pts", text.removesuffix("7 8 9\n")))
    assert "3 points, but holds 2" in scales.notes["coord"][0]
    assert len(read_cloud(write(tmp_path / "empty.pts", "0\n"))) == 0
    with pytest.raises(CloudFileError, match=r"changed from 3 to 1 at row 2$"):
        read_cloud(write(tmp_path / "no_count.pts", "1 2 3\n5\n4 5 6\n"))


@pytest.mark.parametrize("mark", [";", "\t", " "])
def test_decimal_commas(tmp_path, mark):
    rows = ["x y z height", "1,5 2 -3,25 4e0", "4 5,5 6 7"]
    path = write(tmp_path / "a.txt", "\n".join(rows).replace(" ", mark) + "\n")
    scene, scales = read_scaled(path)
    assert scene.coord.tolist() == [[1.5, 2, -3.25], [4, 5.5, 6]]
    assert scene["height"].tolist() == [4, 7] and "commas" in scales.notes["coord"][0]
    colors = np.array([[51, 0, 255]] * 2, np.uint8)
    write_labelled(path, tmp_path / "b.txt", np.array([0, 1]), colors=colors)
    assert (tmp_path / "b.txt").read_text().splitlines()[1].startswith(rows[1].replace(" ", mark))
    again = read_cloud(tmp_path / "b.txt")
    assert again["segment"].tolist() == [0, 1] and again["color"].tolist() == colors.tolist()


def test_made_clouds_of_people(shared):
    cases = shared / "cases/points/text_count_line"
    for name, fields in {
        "cc_count_only.asc": {"color"},
        "leica.pts": {"color", "intensity", "strength"},
        "pdal1508.txt": {"color", "normal", "strength"},
    }.items():
        found = read_cloud(cases / name)
        assert len(found) == (3 if name == "pdal1508.txt" else 2000)
        assert fields <= set(found.fields), name


def test_named_columns(tmp_path):
    text = "x,y,z,R,G,B,scalar_Label,height,Intensity\n" + "1,2,3,255,0,1,4,0.5,51\n" * 2
    scene = read_cloud(write(tmp_path / "a.csv", text))
    assert scene["color"].tolist() == [[255, 0, 1]] * 2
    assert scene["segment"].tolist() == [4, 4] and scene["height"].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(scene["strength"], 0.2)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("1 2 3 0.5", {"intensity", "strength"}),
        ("1 2 3 255 0 7", {"color"}),
        ("1 2 3 0.6 0 0.8", {"normal"}),
        ("1 2 3 300 -5 7", {"column4", "column5", "column6"}),
        ("1 2 3 255 0 7 0 0 1", {"color", "normal"}),
        ("1 2 3 255 0 7 12", {"color", "column7"}),
        ("1 2 3 -1800 255 0 7", {"intensity", "strength", "color"}),  # Semantic3D
        ("1 2 3 0.5 0 0.25", {"color"}),
        ("1 2 3 4 5", {"column4", "column5"}),
    ],
)
def test_columns_without_names(tmp_path, row, found):
    assert set(read_cloud(write(tmp_path / "a.xyz", f"{row}\n{row}\n")).fields) == found


def test_names_that_are_given(tmp_path):
    path = write(tmp_path / "a.txt", "7 1 2 3\n8 4 5 6\n")
    scene = read_cloud(path, columns=["label", "x", "y", "z"])
    assert scene.coord.tolist() == [[1, 2, 3], [4, 5, 6]] and scene["segment"].tolist() == [7, 8]
    with pytest.raises(CloudFileError, match=r"a\.txt: has 4 columns.*--columns"):
        read_cloud(path, columns=["x", "y", "z"])


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("east,north,up,h", "height"),  # replaced, but for the label
        ("Easting,Northing,Height,h", "height"),
        ("x,y,z,h", "height"),
        ("x,y,z,h,Class", "height"),
        ("x,y,z,h,i,j", "h"),  # of another number: its own
        ("# x y z h", "height"),
        ("z,y,x,h", None),  # which would be mirrored
        ("x,y,z,Class", None),
        ("a,b,c,d,e,f", None),
    ],
)
def test_names_that_are_given_replace_those_of_the_file(tmp_path, names, found):
    row = ",".join("123456"[: len(names.replace(",", " ").replace("#", "").split())])
    path = write(tmp_path / "a.csv", f"{names}\n{row}\n{row}\n")
    columns = ["x", "y", "z", "height", "label"]
    if found is None:
        with pytest.raises(CloudFileError, match=r"a\.csv: .*--columns"):
            read_cloud(path, columns=["x", "y", "z", "intensity", "label"])
        return
    scene = read_cloud(path, columns=columns)
    assert scene.coord.tolist() == [[1, 2, 3]] * 2 and scene[found].tolist() == [4, 4]
    write_labelled(path, tmp_path / "b.csv", np.array([7, 8]), columns=columns)
    first = (tmp_path / "b.csv").read_text().splitlines()[0]
    assert first.startswith(names[:5]) and "class" in first
    assert labels_in(read_columns(tmp_path / "b.csv")).tolist() == [7, 8]


def test_a_copy_leaves_lines_as_they_are(tmp_path):
    text = "# made by hand\r\n# x y z n\r\n1.10 2.0 3e0 1\r\n\r\n4 5 6 2\r\n"
    write_labelled(write(tmp_path / "a.txt", text), tmp_path / "b.txt", np.array([7, 8]))
    new = "# made by hand\r\n# x y z n class\r\n1.10 2.0 3e0 1 7\r\n\r\n4 5 6 2 8\r\n"
    assert (tmp_path / "b.txt").read_bytes().decode() == new


def test_a_copy_without_names_gets_them(tmp_path):
    write_labelled(
        write(tmp_path / "a.csv", "1,2,3\n4,5,6\n"), tmp_path / "b.csv", np.array([7, 8])
    )
    assert (tmp_path / "b.csv").read_text() == "x,y,z,class\n1,2,3,7\n4,5,6,8\n"
    write_labelled(
        write(tmp_path / "a.xyz", "1 2 3\n4 5 6\n"), tmp_path / "b.xyz", np.array([7, 8])
    )
    assert (tmp_path / "b.xyz").read_text() == "# x y z class\n1 2 3 7\n4 5 6 8\n"


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("x,y,z,r,g,b\n1,2,3,9,9,9\n", "x,y,z,r,g,b,class\n1,2,3,255,0,51,0\n"),
        ("x,y,z,red,green,blue,n\n1,2,3,.5,.5,.5,8\n", "x,y,z,red,green,blue,n,class\n1,2,3,1.0,0.0,0.2,8,0\n"),
        ("x,y,z\n1,2,3\n", "x,y,z,red,green,blue,class\n1,2,3,255,0,51,0\n"),
    ],
)  # fmt: skip
def test_colours_replace_colours(tmp_path, text, new):
    colors = np.array([[255, 0, 51]], np.uint8)
    write_labelled(
        write(tmp_path / "a.csv", text), tmp_path / "b.csv", np.array([0]), colors=colors
    )
    assert (tmp_path / "b.csv").read_text() == new
    assert read_cloud(tmp_path / "b.csv")["color"].tolist() == [[255, 0, 51]]


def test_bytes_that_are_no_text_are_carried_along(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"# caf\xe9\n1 2 3\n")
    write_labelled(tmp_path / "a.txt", tmp_path / "b.txt", np.array([1]))
    assert (tmp_path / "b.txt").read_bytes().startswith(b"# caf\xe9\n")


@pytest.mark.parametrize("text", ["", "\n\n", "# x y z\n", "x,y,z\n"])
def test_no_points(tmp_path, text):
    assert len(read_cloud(write(tmp_path / "a.csv", text))) == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("x y\n1 2 3\n", "line 1 names 2"),
        ("x y y\n1 2 3\n", "twice"),
        ("dear reader\nthis is a letter\n1 2 3", "line 2"),
        ("1 2\n3 4\n", "x, y and z"),
        ("1 2 3\n4 5\n", "row 2"),
        ("1 2 3\n4 five 6\n", "five"),
        ("1.234,5;2,5;3,5\n", "1.234,5"),
        ("a b c\n1 2 3\n", "x, y and z"),
        ("1" * 200_000, "line 1"),
    ],
)
def test_what_is_no_cloud_is_refused(tmp_path, text, named):
    with pytest.raises(CloudFileError, match=rf"a\.txt.*{named}"):
        read_cloud(write(tmp_path / "a.txt", text))
