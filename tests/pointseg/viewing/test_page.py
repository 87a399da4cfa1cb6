"""The page: served to this machine alone, drawn in a real browser without an error, and as a file."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import numpy as np
import pytest

from pointseg.cli.view import main
from pointseg.files import write_cloud
from pointseg.scene import Scene
from pointseg.viewing.clouds import ViewedCloud
from pointseg.viewing.palette import Palette
from pointseg.viewing.server import address, close_server, open_server
from pointseg.viewing.viewer import Viewer
from tests.chromium import browser, needs_chromium

PURPLE, TEAL = (160, 20, 190), (0, 150, 140)
NAME = "<img src=x>"
"""A name that a file gave: text, never a part of the page."""


@pytest.fixture
def server():
    found = open_server()
    yield found
    close_server(found)


def palette():
    return Palette(["table", NAME], [PURPLE, TEAL])


def clouds():
    random = np.random.default_rng(0)
    coord = random.uniform(0, 4, (4000, 3)).astype(np.float32) * np.float32([1, 1, 0.1])
    labels = (coord[:, 0] > 2).astype(np.int32)
    origin = np.array([500_000.0, 5_000_000.0, 0])
    return [ViewedCloud(NAME, Scene(coord=coord, origin=origin), 4000, labels, labels)]


def test_what_is_switched_off_is_hidden_and_colours_change(server):
    (cloud,) = clouds()
    viewer = Viewer(server, [cloud], palette(), color_by="class", about=[NAME])
    assert [len(handle.points) for handle in viewer._handles] == [
        (cloud.labels == 0).sum(),
        (cloud.labels == 1).sum(),
    ]
    assert viewer._handles[0].points.dtype == np.float32
    assert (viewer._handles[1].colors == TEAL).all()
    viewer.paint("errors")
    assert (viewer._handles[1].colors == (205, 208, 212)).all()
    boxes = {h.label: h for h in server.gui._gui_input_handle_from_uuid.values()}
    boxes["table"].value = False
    assert [handle.visible for handle in viewer._handles] == [False, True]
    assert viewer.describe(0, 0)[1].startswith("50000") and "class" in viewer.describe(0, 0)[2]
    assert NAME not in viewer.legend() + viewer.whole_legend()
    second = cloud.scene.coord[cloud.labels == 1]
    x, y, z = second[second[:, 2].argmax()].tolist()  # nothing is drawn above it
    viewer._pick(SimpleNamespace(ray_origin=(x, y, z + 3), ray_direction=(0, 0, -2)))
    assert f"{500_000 + x:.3f} {5_000_000 + y:.3f} {z:.3f}" in viewer._picked.content
    assert "class: &lt;img" in viewer._picked.content
    x, y, z = second[second[:, 0].argmax()].tolist()
    x += 0.9 * viewer._size  # viser draws discs whose radius is the size of points
    viewer._pick(SimpleNamespace(ray_origin=(x, y, z + 3), ray_direction=(0, 0, -2)))
    assert "class: &lt;img" in viewer._picked.content
    viewer._pick(SimpleNamespace(ray_origin=(x, y, z + 3), ray_direction=(0, 0, 2)))
    assert "No point" in viewer._picked.content  # a click that hits no point is answered, too


def test_a_port_that_is_taken_is_refused(capsys, tmp_path):
    write_cloud(tmp_path / "a.ply", clouds()[0].scene)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main([str(tmp_path / "a.ply"), "--port", str(port), "--no-browser"]) == 2
    said = capsys.readouterr()
    assert f"--port {port}" in said.err and said.err.count("\n") == 1 and not said.out


def test_pages_of_other_sites_get_nothing(server, monkeypatch):
    import viser
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    url = address(server).replace("http", "ws")
    assert url.startswith("ws://127.0.0.1:")
    version = [Subprotocol(f"viser-v{viser.__version__}")]
    with connect(url, origin=Origin("http://evil.test"), subprotocols=version) as other:
        with pytest.raises(ConnectionClosed):
            other.recv(timeout=10)
    with connect(url, origin=Origin(address(server)), subprotocols=version) as ours:
        assert ours.recv(timeout=10)
    monkeypatch.setattr(viser.ViserServer, "request_share_url", lambda *_, **__: "https://a.test")
    assert server.request_share_url() is None  # viser's own is not asked
    assert server.get_host() == "127.0.0.1"


def test_a_page_in_a_file(tmp_path, capsys):
    (cloud,) = clouds()
    write_cloud(tmp_path / "a&b.ply", cloud.scene.with_fields(segment=cloud.labels))
    record = {"class_names": ["table", NAME], "class_colors": [PURPLE, TEAL]}
    (tmp_path / "a&b.ply.json").write_text(json.dumps(record), encoding="utf-8")
    words = [str(tmp_path / "a&b.ply"), "--max-points", "3000", "--html", str(tmp_path / "a.html")]
    assert main(words) == 0
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "__VISER_EMBED_DATA__" in page and "table</div>" in page and NAME not in page
    assert "3,000 of 4,000 points, at random" in page
    assert "a&amp;b" in page.partition("<title>")[2].partition("</title>")[0]
    printed = capsys.readouterr()
    assert "3,000 of 4,000 points, at random" in printed.out and printed.err == "[1/1] a&b.ply\n"
    assert main(words) == 2, "it exists"
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "FILES, --dataset"),
        (["a.ply", "--dataset", "synthetic"], "FILES"),
        (["a.ply", "--root", "b"], "--root"),
        (["--dataset", "synthetic", "--cameras", "c.json"], "--cameras"),
        (["a.ply", "--html", "a.png"], "--html"),
    ],
)
def test_options_that_do_not_go_together(words, named, capsys):
    assert main(words) == 2
    assert named in capsys.readouterr().err


def test_chromium_draws_the_classes_without_an_error(server, tmp_path):
    path = needs_chromium()
    viewer = Viewer(server, clouds(), palette(), color_by="class", about=[NAME])
    with browser(path, tmp_path / "profile", size=(520, 360)) as page:
        page.open(address(server))
        page.wait("document.body?.innerText.includes('<img src=x>')")
        for _ in range(100):
            picture = page.picture().astype(int)
            found = [(np.abs(picture - color).max(2) < 12).sum() for color in (PURPLE, TEAL)]
            if min(found) > 500:
                break
        assert min(found) > 500, found
        page.click(*np.median(np.argwhere(np.abs(picture - PURPLE).max(2) < 12), 0)[::-1])
        page.wait("document.body.innerText.includes('reference: table')")
        assert viewer._picked.order < min(
            handle.order
            for handle in server.gui._gui_input_handle_from_uuid.values()
            if handle.label == "table"
        ), "what a click tells stands above the classes, which may fill the window"
        assert not [
            line for line in page.errors if "GL Driver" not in line and "THREE." not in line
        ]
        others = [url for url in page.requests if not url.startswith(("data:", "blob:"))]
        assert {url.rstrip("/") for url in others} == {address(server)}
