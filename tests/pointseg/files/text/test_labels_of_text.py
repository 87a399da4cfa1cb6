"""Semantic3D's labels in a file next to a cloud of text."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.files import CloudFileError, read_cloud, read_scaled, write_labelled


@pytest.mark.parametrize("name", ["a.txt", "a.xyz"])
def test_labels_of_semantic3d_stand_next_to_the_text(tmp_path, name):
    (tmp_path / name).write_text("1 2 3 -5 9 8 7\n4 5 6 20 1 2 3\n")
    (tmp_path / "a.labels").write_text("0\n8\n")
    scene = read_cloud(tmp_path / name)
    assert scene["segment"].tolist() == scene["label"].tolist() == [0, 8]
    write_labelled(tmp_path / name, tmp_path / f"b{name}", np.array([3, 4]))
    assert read_cloud(tmp_path / f"b{name}")["segment"].tolist() == [3, 4]
    for wrong in ("0\n", "0\n8\n1\n", "0\nx\n", "0\n1.5\n"):
        (tmp_path / "a.labels").write_text(wrong)
        with pytest.raises(CloudFileError, match=r"a\.labels: "):
            read_cloud(tmp_path / name)


def test_text_with_labels_of_its_own_keeps_them(tmp_path):
    (tmp_path / "a.txt").write_text("x y z class\n1 2 3 7\n")
    (tmp_path / "a.labels").write_text("0\n")
    scene, scales = read_scaled(tmp_path / "a.txt")
    assert scene["segment"].tolist() == [7] and "a.labels was not read" in scales.notes["coord"][0]
