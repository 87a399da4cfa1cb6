"""pointseg-predict: what it prints, how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pointseg.cli.predict import _parser, main
from pointseg.files import read_cloud, write_cloud
from pointseg.prediction import predict as engine
from tests import ROOT
from tests.documented_keys import read_json
from tests.pointseg.evaluation.answers import ByColor, colored, trained


@pytest.fixture(autouse=True)
def model(monkeypatch):
    made = ByColor()
    monkeypatch.setattr(engine, "load_model", lambda path, device, **_: (made, trained()))
    return made


def run(tmp_path, *arguments):
    return main(["-m", str(tmp_path / "best.pt"), *map(str, arguments)])


def test_files_and_folders_and_a_bad_one(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    write_cloud(folder / "room.ply", colored([0, 1]))
    write_cloud(tmp_path / "hall.pcd", colored([2]))
    (folder / "broken.ply").write_bytes(b"ply\nformat binary")
    assert (
        run(tmp_path, folder, tmp_path / "hall.pcd", "-o", tmp_path / "out", "--no-pictures") == 1
    )
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].split() == ["file", "points", "seconds", "classes"]
    assert [line.split()[0] for line in lines[1:4]] == ["broken.ply", "room.ply", "hall.pcd"]
    assert "thing 100 %" in lines[3] and "failed" in lines[1]
    assert lines[4].startswith(f"failed: {folder / 'broken.ply'}: ")
    assert lines[4].count("broken.ply") == 1
    assert lines[5] == f"2 of 3 done; results in {tmp_path / 'out'}"
    assert printed.err.splitlines() == ["[1/3] broken.ply", "[2/3] room.ply", "[3/3] hall.pcd"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [file["status"] for file in summary["files"]] == ["failed", "done", "done"]
    more = ("-o", tmp_path / "out", "--no-pictures", "--json")
    assert run(tmp_path, folder, tmp_path / "hall.pcd", *more) == 1
    files = read_json(capsys.readouterr().out)["files"]
    assert [file["status"] for file in files] == ["failed", "kept", "kept"]
    assert files[2]["classes"] == {"thing": 400}


def test_views_ask_for_the_whole_protocol(tmp_path, model):
    write_cloud(tmp_path / "room.ply", colored([0, 1]))
    assert run(tmp_path, tmp_path / "room.ply", "-o", tmp_path / "out", "--tta", "s3dis") == 0
    assert model.asked >= 10
    np.testing.assert_array_equal(
        read_cloud(tmp_path / "out" / "room.ply")["class"], np.resize([0, 1], 400)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("lost.ply", "-o", "out"), "lost.ply"),
        (("{room}", "-o", "out", "--max-points", "0"), "'max_points'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, capsys, options, message):
    write_cloud(tmp_path / "room.ply", colored([0]))
    places = {"room": tmp_path / "room.ply", "folder": tmp_path}
    assert run(tmp_path, *(option.format(**places) for option in options)) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert printed.err.startswith("pointseg-predict: ")


SLOW = """
import sys, time
from pointseg.prediction import predict
from tests.pointseg.evaluation.answers import ByColor, trained
class Slow(ByColor):
    def forward(self, cloud):
        print("working", file=sys.stderr, flush=True)
        time.sleep(60)
predict.load_model = lambda path, device, **_: (Slow(), trained())
from pointseg.cli.predict import _parser, main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_at_once_and_leaves_no_halves(tmp_path, number):
    write_cloud(tmp_path / "room.ply", colored([0, 1]))
    command = ["room.ply", "-o", "out", "-m", "best.pt"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *command],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, encoding="utf-8",
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            while "working" not in process.stderr.readline():
                assert process.poll() is None
            began = time.monotonic()
            process.send_signal(number)
            rest = process.communicate(timeout=20)[1]
        finally:
            process.kill()
    assert process.returncode == 130 and time.monotonic() - began < 10
    assert rest.startswith("pointseg-predict: interrupted; ") and "same command" in rest
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_codes_of_several_classes_after_one_flag(tmp_path, capsys):
    words = ["a.las", "-m", "best.pt", "-o", "out", "--class-code", "a=5", "b=6", "--colors"]
    found = _parser().parse_args([*words, "--class-code", "c=d=9"])
    assert found.class_code == [("a", 5), ("b", 6), ("c=d", 9)]
    with pytest.raises(SystemExit):
        run(tmp_path, "-o", tmp_path, "--class-code", "a=5", "a.las")
    assert "--class-code" in (message := capsys.readouterr().err) and "FILES" in message
