"""Metashape's cameras: its formula by hand, chunk and components, what is left out, and what is unsafe."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from pointseg.images.readers.camera_files import read_cameras
from pointseg.images.readers.frame import ImagesError
from pointseg.images.readers.image_files import ImageFile
from pointseg.images.readers.plain_xml import MOST_DEPTH

LENS = (
    "<f>100</f><cx>2</cx><cy>-3</cy><b1>4</b1><b2>5</b2><k1>0.1</k1><k2>0.2</k2><k3>0.3</k3><k4>0.4</k4>"
    "<p1>0.01</p1><p2>0.02</p2>"
)
INITIAL = '<calibration type="frame" class="initial"><f>7</f></calibration>'
# A quarter turn about z: the camera's x axis is the chunk's y axis; it stands at 1, 2, 3 of the chunk.
TURNED = "0 -1 0 1 1 0 0 2 0 0 1 3 0 0 0 1"
PLACED = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"
WORLD = (
    "<transform><rotation>0 -1 0 1 0 0 0 0 1</rotation><translation>10 20 30</translation>"
    "<scale>2</scale></transform>"
)


def sensor(number: int = 0, lens: str = LENS, kind: str = "frame") -> str:
    size = '<resolution width="60" height="40"/>'
    return (
        f'<sensor id="{number}" type="{kind}">{size}<bands><band label="Red"/></bands>{INITIAL}'
        f'<calibration type="{kind}" class="adjusted">{size}{lens}</calibration></sensor>'
    )


def camera(label: str, pose: str = PLACED, more: str = "") -> str:
    return (
        f'<camera id="1" sensor_id="0" component_id="0" label="{label}" {more}>'
        f"<transform>{pose}</transform><orientation>1</orientation></camera>"
    )


def write(root: Path, cameras: str, *, sensors: str | None = None, rest: str = WORLD) -> Path:
    path = root / "cameras.xml"
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?><document version="2.0.0"><chunk label="Chunk 1">'
        f"<sensors>{sensor() if sensors is None else sensors}</sensors><cameras>{cameras}</cameras>"
        f'<reference>LOCAL_CS["Local"]</reference>{rest}</chunk></document>',
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("kind", ["frame", "fisheye"])
def test_the_formula_by_hand(tmp_path: Path, kind: str) -> None:
    (frame,) = read_cameras(write(tmp_path, camera("a"), sensors=sensor(kind=kind), rest=""))
    x, y = 0.3, -0.4
    uv, _ = frame.camera.project(torch.tensor([[x * 2, y * 2, 2]], dtype=torch.float64))
    if kind == "fisheye":
        x, y = (each * math.atan(0.5) / 0.5 for each in (x, y))
    q = x * x + y * y
    radial = 1 + 0.1 * q + 0.2 * q**2 + 0.3 * q**3 + 0.4 * q**4
    bent_x = x * radial + 0.01 * (q + 2 * x * x) + 2 * 0.02 * x * y
    bent_y = y * radial + 0.02 * (q + 2 * y * y) + 2 * 0.01 * x * y
    expected = [60 / 2 + 2 + bent_x * (100 + 4) + bent_y * 5, 40 / 2 - 3 + bent_y * 100]
    assert uv[0].tolist() == pytest.approx(expected, abs=1e-9)


def test_a_camera_of_the_chunk_in_the_world(tmp_path: Path) -> None:
    """The chunk's (1, 2, 3) is 2 (-2, 1, 3) + (10, 20, 30); its y axis is -x of the world."""
    component = f'<components><component id="0">{WORLD}</component></components>'
    for rest in (WORLD, component, f"{component}<transform></transform>"):
        (frame,) = read_cameras(write(tmp_path, camera("a", TURNED), rest=rest))
        assert frame.camera.centre.tolist() == pytest.approx([6, 22, 36])
        right, down, ahead = frame.camera.world_to_camera[:3, :3].tolist()
        assert right == pytest.approx([-1, 0, 0]) and down == pytest.approx([0, -1, 0])
        assert ahead == pytest.approx([0, 0, 1])


def test_images_by_label(tmp_path: Path) -> None:
    for name in (
        "photos/one.JPG",
        "photos/sub/two.tif",
        "photos/x/three.jpg",
        "photos/y/three.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    labels = ("one", "sub/two.tif", "two", "lost.jpg")
    path = write(tmp_path, "".join(map(camera, labels)))
    found = [frame.image for frame in read_cameras(path, tmp_path / "photos")]
    names = ("one.JPG", "sub/two.tif", "sub/two.tif", "lost.jpg")
    assert found == [ImageFile(tmp_path / "photos" / name) for name in names]
    with pytest.raises(ImagesError, match="camera 'three': .*three.jpg are both there"):
        read_cameras(write(tmp_path, camera("three")), tmp_path / "photos")
    with pytest.raises(ImagesError, match="camera 'one': two cameras have this label"):
        read_cameras(write(tmp_path, 2 * camera("one")), tmp_path / "photos")


def test_what_is_left_out_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unaligned = camera("u").replace(f"<transform>{PLACED}</transform>", "")
    off = camera("off", more='enabled="false"')
    group = f'<group id="0" label="flight">{camera("a")}{off}</group>'
    spherical = camera("s").replace('sensor_id="0"', 'sensor_id="1"')
    bent = camera("b").replace('sensor_id="0"', 'sensor_id="2"')
    other = sensor() + sensor(1, kind="spherical") + sensor(2, LENS + "<p3>0.1</p3>")
    path = write(
        tmp_path,
        unaligned + group + spherical + bent + unaligned.replace('"u"', '"v"'),
        sensors=other,
    )
    assert [frame.name for frame in read_cameras(path)] == ["a"]
    assert "5 of 6 cameras are left out" in caplog.text
    for why in ("2 are not aligned", "1 is disabled", "type 'spherical'", "p3 and p4"):
        assert why in caplog.text
    with pytest.raises(ImagesError, match="1 of 1 cameras are left out: 1 is not aligned"):
        read_cameras(write(tmp_path, unaligned))
    georeferenced = (
        write(tmp_path, camera("a"))
        .read_text(encoding="utf-8")
        .replace('LOCAL_CS["Local"]', 'PROJCS["UTM 32", 1]')
    )
    path.write_text(georeferenced, encoding="utf-8")
    read_cameras(path)
    assert "geocentric" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (PLACED, PLACED[2:], "camera 'a': 'transform' must be 16 finite numbers"),
        (PLACED, "nan" + PLACED[1:], "'transform' must be 16 finite numbers"),
        (PLACED, "2" + PLACED[1:], "camera 'a': .*not a rigid transform"),
        ("<f>100", "<f>x", "sensor 0: 'f' must be 1 finite numbers"),
        ('width="60"', 'width="-60"', "sensor 0: lacks its resolution"),
        ('width="60"', 'width="999999"', "1 to 131072 pixels"),
        ("0 -1 0 1 0 0 0 0 1", "1 0 0 0 1 0 0 0 2", "transform of the chunk: must be a rotation"),
        ("<scale>2", "<scale>0", "transform of the chunk: must be a rotation"),
        ("<f>100</f>", "", "1 is of sensor 0, which has no calibration"),
        ('id="0" type', 'id="7" type', "1 is of sensor 0, which is not in the file"),
        ("document", "project", "has none of the elements|cannot be read"),
        ("</chunk>", "", "cannot be read as XML"),
        ("</chunk>", f"</chunk><chunk><cameras>{camera('b')}</cameras></chunk>", "has 2 chunks"),
        ("<document", '<!DOCTYPE d [<!ENTITY a "b">]><document', "declares a document type"),
        ("<document", '<!DOCTYPE d SYSTEM "file:///etc/passwd"><document', "declares a document type"),
        ("<sensors>", "<a>" * (MOST_DEPTH + 1), "deep"),
        ("UTF-8", "UTF-99", "cannot be read as XML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, camera("a"))
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ImagesError, match=message):
        read_cameras(path)
