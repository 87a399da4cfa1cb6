"""The viewer's answers: what is served to whom, and that scan and mask lie on one grid."""

import hashlib
import json
import os
import re
import shutil
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, unquote

import nibabel as nib
import numpy as np
import pytest

from dinomed3d.cli.main import main
from dinomed3d.inference.case import Case, CaseError, Scan
from dinomed3d.inference.cohort.outputs.describe import describe_inputs, describe_reading
from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.io.image import Grid, Volume
from dinomed3d.inference.report.html_report import with_viewer
from dinomed3d.inference.viewer import display
from dinomed3d.inference.viewer.answers import Answers
from dinomed3d.inference.viewer.display import Display, as_nifti, shown_labels
from dinomed3d.inference.viewer.recorded_case import recorded_case
from dinomed3d.inference.viewer.server import ViewerServer
from dinomed3d.inference.viewer.viewed_run import ViewedRun
from dinomed3d.runtime.commands.browser import can_open_browser
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.viewer.viewed_runs import (
    finish_another,
    put_mask,
    record_of,
    spec_of,
    write_run,
)

HOST = "127.0.0.1:8000"
OBLIQUE, SERIES = "Meier _b_", "ward/CT"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def hidden(out, tmp_path_factory):
    """The same results, reported again without names."""
    again = tmp_path_factory.mktemp("hidden") / "out"
    shutil.copytree(out, again)
    predict(spec_of(out.parent, out=again, anonymous=True), lambda event: None)
    return again


@pytest.fixture
def answers(out):
    return Answers(ViewedRun(out))


def get(answers, path, host=HOST):
    return answers.get(f"/{answers.secret}/{path}", host)


def content(answer):
    assert answer.status == HTTPStatus.OK, answer
    return b"".join(bytes(part) for part in answer.parts)


def number_of(answers, name):
    found = answers.run.find(name)
    assert found is not None
    return found


def volume(answers, path):
    return nib.Nifti1Image.from_bytes(content(get(answers, path)))


@pytest.mark.parametrize("case", [OBLIQUE, SERIES])
def test_scan_and_mask_lie_on_the_grid_of_the_file(out, answers, case):
    mask = put_mask(out, case)
    stored = nib.load(out / record_of(out, case)["mask"]["file"])
    number = number_of(answers, case)
    scan, shown = (volume(answers, f"case/{number}/{part}.nii") for part in ("scan-0", "mask"))
    np.testing.assert_array_equal(scan.affine, shown.affine)
    np.testing.assert_allclose(shown.affine, stored.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asanyarray(shown.dataobj), mask.T)
    assert (np.asanyarray(scan.dataobj)[mask.T == 2] >= np.asanyarray(scan.dataobj).mean()).all()
    sent = json.loads(content(get(answers, f"case/{number}.json")))
    assert [(one["name"], one["rgb"]) for one in sent["labels"]] == [
        ("a", [230, 159, 0]),  # the colours of previews and tables
        ("b", [86, 180, 233]),
    ]
    expected_ml = np.count_nonzero(mask) * abs(np.linalg.det(stored.affine)) / 1000
    assert sent["labels"][1]["ml"] == pytest.approx(expected_ml, rel=1e-5)
    assert "has changed since it was predicted" in sent["notes"][0]
    voxel = np.array(sent["to_voxel"]) @ [*sent["centre_mm"], 1]
    np.testing.assert_allclose(voxel, np.rint(voxel), atol=1e-6)
    assert mask.T[tuple(np.rint(voxel).astype(int))] == 2


def test_each_case_is_shown_with_its_own_scan(answers):
    """One after the other from one server, which keeps the last one."""
    numbers = [number_of(answers, case) for case in (OBLIQUE, SERIES, OBLIQUE)]
    shapes = [volume(answers, f"case/{number}/scan-0.nii").shape for number in numbers]
    assert shapes == [(26, 22, 18), (24, 20, 6), (26, 22, 18)]


def test_large_volumes_are_thinned_in_place(monkeypatch):
    monkeypatch.setattr(display, "MOST_VOXELS", 400)
    affine = nib.affines.from_matvec([[0, -2, 0], [1, 0, 0.1], [0, 0, 3]], [5, 6, 7])
    grid = Grid(
        shape_zyx=(8, 10, 12),
        spacing_mm=(3.0, 2.0, 1.0),
        affine=tuple(map(tuple, affine)),
        stored_shape=(12, 10, 8),
        ending=".nii.gz",
    )
    values = np.arange(960).reshape(8, 10, 12)
    mask = (values % 251).astype(np.uint8)
    shown = Display.of(Volume(channels=[values.astype(np.float32)], grid=grid), mask)
    assert shown.mask.size <= 400 and max(shown.steps) > 1
    image = nib.Nifti1Image.from_bytes(
        b"".join(map(bytes, as_nifti(shown.channels[0], shown.affine)))
    )
    for place in ((0, 0, 0), (1, 2, 3), (3, 1, 2)):
        x, y, z = np.multiply(place, shown.steps)
        assert image.dataobj[place] == values[z, y, x]
        np.testing.assert_allclose(
            nib.affines.apply_affine(image.affine, place),
            nib.affines.apply_affine(affine, (x, y, z)),
        )
    assert sum(shown.volumes_ml.values()) == pytest.approx(960 * 6 / 1000)  # of all voxels


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (np.array([0, 255], np.uint16), np.uint8),
        (np.array([-5, 300], np.int32), np.int16),
        (np.array([-5, 100], np.int32), np.int16),
        (np.array([0, 40000], np.uint16), np.float32),
        (np.array([0.5, 2.25], np.float32), np.float32),
    ],
)
def test_values_are_kept_exactly(values, kept):
    parts = as_nifti(values.reshape(1, 1, 2), np.diag([1.0, 1, 1, 1]))
    image = nib.Nifti1Image.from_bytes(b"".join(map(bytes, parts)))
    assert image.get_data_dtype() == kept
    np.testing.assert_array_equal(np.asanyarray(image.dataobj).ravel(), values)


@pytest.mark.parametrize(
    ("shape", "ending", "is_flat", "has_directions"),
    [((1, 4, 5), ".nii.gz", True, True), ((4, 5, 1), ".png", False, False)],
)
def test_single_slices_and_pictures_are_known(shape, ending, is_flat, has_directions):
    grid = Grid(
        shape_zyx=shape, spacing_mm=(1.0, 1.0, 1.0), affine=tuple(map(tuple, np.eye(4))),
        stored_shape=shape[::-1], ending=ending,
    )  # fmt: skip
    shown = Display.of(
        Volume(channels=[np.zeros(shape, np.float32)], grid=grid), np.zeros(shape, np.uint8)
    )
    assert (shown.is_flat, shown.has_directions) == (is_flat, has_directions)


def test_values_of_overlapping_regions_have_names():
    labels = {"whole": {"value": [1, 2]}, "core": {"value": 2}}
    found = shown_labels(labels, {0: 9.0, 1: 1.0, 2: 2.0, 7: 3.0, 8: 0.0})
    assert [(one["value"], one["name"], one["ml"]) for one in found] == [
        (1, "part of whole", 1.0),
        (2, "core", 2.0),
        (7, "value 7", 3.0),
    ]


def test_a_case_is_read_as_it_was_for_the_prediction(tmp_path):
    for name in ("a.zip", "b.dcm", "c.tif", "c.json"):
        (tmp_path / name).write_bytes(b"x")
    scans = (
        Scan(files=("in/1", "in/2"), ending=".dcm", archive=str(tmp_path / "a.zip"), uid="1.2"),
        Scan(files=(str(tmp_path / "b.dcm"),), ending=".dcm", series="s", frames=(3, 1, 2)),
        Scan(
            files=tuple(str(tmp_path / f"c.{e}") for e in ("tif", "json")),
            ending=".tif",
            reader="Tiff3DIO",
        ),
    )
    case, channels = Case(id="c", scans=scans), ("T1, late", "T2", "PET")
    record = {
        "case": "c",
        "inputs": describe_inputs(case, channels),
        "read_as": describe_reading(case, channels),
    }
    record = json.loads(json.dumps(record))
    assert recorded_case(record) == (case, channels)
    with pytest.raises(CaseError, match="--overwrite"):
        recorded_case({**record, "read_as": None})
    (tmp_path / "c.json").unlink()
    with pytest.raises(CaseError, match=re.escape(str(tmp_path / "c.json"))):
        recorded_case(record)


def test_only_what_the_run_wrote_is_served(out, answers, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (out / "notes.txt").write_text("somebody's")
    assert content(get(answers, "files/ward/CT.json")) == (out / "ward" / "CT.json").read_bytes()
    for name in ("Meier _b_.nii.gz", "Meier _b_.png", "run.json", "labels.ctbl"):
        assert content(get(answers, f"files/{quote(name)}")) == (out / name).read_bytes()
    saved = get(answers, "files/Meier%20_b_.nii.gz").headers  # not shown: it could be a page
    assert saved["Content-Disposition"] == "attachment"
    assert b'class="served"' in content(get(answers, "files/report.html"))
    beyond = os.path.relpath(tmp_path / "secret.txt", out)
    for path in (
        *("files/notes.txt", "files/", "files", "nothing", "files/ward", "files/pseudonyms.csv"),
        *(f"files/{beyond}", f"files/{quote(beyond, safe='')}", f"files/{tmp_path / 'secret.txt'}"),
        *("files/%00", "case/2.json", "case/0/scan-1.nii", "case/0/mask.nii.gz", "viewer.py"),
        *("files/..%2Fin%2FMeier%20%3Cb%3E.nii.gz", "../report.html", "files/./run.json"),
    ):
        assert get(answers, path).status == HTTPStatus.NOT_FOUND, path
    (out / "run.json").rename(out / "kept")
    (out / "run.json").symlink_to(tmp_path / "secret.txt")
    try:
        assert get(answers, "files/run.json").status == HTTPStatus.NOT_FOUND
    finally:
        (out / "kept").replace(out / "run.json")
    for target in ("/", "/view", f"/{answers.secret[:-1]}/view", "//view", "", "*", "/open/"):
        assert answers.get(target, HOST).status == HTTPStatus.NOT_FOUND, target


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost:8000 x"],
)
def test_another_host_name_is_refused(answers, host):
    assert get(answers, "view", host).status == HTTPStatus.FORBIDDEN
    assert answers.get(answers.first_address, host).status == HTTPStatus.FORBIDDEN
    assert get(answers, "view", "localhost:9000").status == HTTPStatus.OK  # through a tunnel


def test_the_address_for_the_browser_leads_in_once(answers):
    first = answers.first_address
    assert answers.get(first, HOST).headers["Location"] == answers.address
    assert answers.get(first, HOST).status == HTTPStatus.NOT_FOUND
    assert answers.secret not in first


def test_every_answer_has_its_policy(answers):
    paths = (
        "view",
        "viewer.js",
        "files/report.html",
        "files/ward/CT.json",
        "case/0.json",
        "absent",
    )
    for path in paths:
        headers = get(answers, path).all_headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
        scripts = re.findall(r"script-src ([^;]*)", policy)
        assert not any("unsafe" in one or "http" in one or "data:" in one for one in scripts)
        assert (
            headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
        )
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        expected = {"view": ["'self'"], "viewer.js": ["'self'"], "files/report.html": ["'sha256"]}
        assert [one.partition("-")[0] for one in scripts] == expected.get(path, [])
    page = content(get(answers, "view")).decode()
    assert "http" not in page and not re.search(r"<script(?! src=)| style=| on[a-z]+=", page)


def test_links_of_the_report_open_their_case(out, answers):
    links = re.findall(r'href="\.\./(view\?case=[^"]+)"', (out / "report.html").read_text("utf-8"))
    places = [get(answers, link).headers["Location"].split("#")[1] for link in links]
    assert sorted(places) == ["1", "2"]
    assert [
        answers.run.case(int(place) - 1).id in unquote(link)
        for place, link in zip(places, links, strict=True)
    ] == [True, True]
    assert get(answers, "view?case=nobody").status == HTTPStatus.NOT_FOUND


def test_cases_that_are_finished_later_appear_when_the_page_is_loaded(out, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    first = copy / "Meier _b_.json"
    first.rename(copy / "kept")
    (copy / "report.html").rename(copy / "kept.html")
    answers = Answers(ViewedRun(copy))

    def listed():
        sent = json.loads(content(get(answers, "cases.json")))
        return [(one["number"], one["name"]) for one in sent["cases"]], sent["report"]

    assert listed() == ([(0, SERIES)], False)
    assert get(answers, "files/report.html").status == HTTPStatus.NOT_FOUND
    (copy / "kept").rename(first)
    (copy / "kept.html").rename(copy / "report.html")
    link = get(answers, f"view?case={quote(OBLIQUE)}")
    assert link.headers["Location"].endswith("#2")
    # the list is in the order of names, and numbers in addresses stay
    assert listed() == ([(1, OBLIQUE), (0, SERIES)], True)
    for number, name in ((0, SERIES), (1, OBLIQUE)):
        assert json.loads(content(get(answers, f"case/{number}.json")))["name"] == name
    assert b"served" in content(get(answers, "files/report.html"))
    record = record_of(copy, OBLIQUE) | {"flags": []}
    for flags in ([], ["empty mask"]):
        first.write_text(json.dumps(record | {"flags": flags}), encoding="utf-8")
        sent = json.loads(content(get(answers, "cases.json")))["cases"]
        assert sent[0]["flagged"] == bool(flags)  # it was predicted again
    first.unlink()
    assert listed()[0] == [(0, SERIES)]
    assert get(answers, "case/1.json").status == HTTPStatus.NOT_FOUND


def test_news_since_a_listing(out, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    (copy / "report.html").rename(copy / "kept.html")
    answers = Answers(ViewedRun(copy))

    def listing():
        sent = json.loads(content(get(answers, "cases.json")))
        return sent["look"], {one["name"]: one["number"] for one in sent["cases"]}

    def news(look):
        sent = json.loads(content(get(answers, f"news.json?look={look}")))
        return sent["new"], sent["changed"], sent["has_report"]

    first, numbers = listing()
    assert news(first) == (0, [], False)
    number = numbers[OBLIQUE]
    before = content(get(answers, f"case/{number}/mask.nii"))
    put_mask(copy, OBLIQUE, moved=2)
    finish_another(copy, OBLIQUE, "Zoe")
    (copy / "kept.html").rename(copy / "report.html")
    for _ in range(2):  # the same until the cases are listed again
        assert news(first) == (1, [number], True)
    assert content(get(answers, f"case/{number}/mask.nii")) == before
    assert get(answers, "case/2.json").status == HTTPStatus.NOT_FOUND
    second, numbers = listing()
    assert news(second) == (0, [], True) and news(first) == (1, [number], True)  # another page
    assert content(get(answers, f"case/{number}/mask.nii")) != before
    (copy / "Zoe.json").rename(copy / "away")
    assert news(second) == (0, [numbers["Zoe"]], True) and news(first)[0] == 0
    (copy / "away").rename(copy / "Zoe.json")
    # finished again: what a page shows of it is old
    assert news(second) == (0, [numbers["Zoe"]], True)
    assert news(first)[0] == 1  # for a page that has never listed it
    for query in ("", "?look=", "?look=-1", "?look=x", "?look=1&look=2", f"?look={10**9}"):
        assert get(answers, f"news.json{query}").status == HTTPStatus.NOT_FOUND


def test_a_case_that_was_begun_is_new_once_it_is_finished(out, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    finish_another(copy, OBLIQUE, "Ada")
    record = copy / "Ada.json"
    finished = record.read_text(encoding="utf-8")
    record.write_text(finished.replace('"status": "done"', '"status": "begun"'), encoding="utf-8")
    answers = Answers(ViewedRun(copy))
    sent = json.loads(content(get(answers, "cases.json")))
    assert "Ada" not in [one["name"] for one in sent["cases"]]
    record.write_text(finished, encoding="utf-8")
    news = json.loads(content(get(answers, f"news.json?look={sent['look']}")))
    assert (news["new"], news["changed"]) == (1, [])


def test_a_mask_that_is_corrected_later_is_read_when_the_page_is_loaded(out, answers):
    number = number_of(answers, OBLIQUE)
    put_mask(out, OBLIQUE)
    before = content(get(answers, f"case/{number}/mask.nii"))
    put_mask(out, OBLIQUE, moved=3)
    assert content(get(answers, f"case/{number}/mask.nii")) == before  # scan and mask of one look
    get(answers, "cases.json")
    assert content(get(answers, f"case/{number}/mask.nii")) != before


def test_a_report_of_another_version_says_that_it_is_not_sorted(out):
    page = (out / "report.html").read_bytes()
    other = page.replace(b"aria-sort", b"data-sort")
    assert page != other
    assert b"another version" in with_viewer(other) and b"another version" not in with_viewer(page)


def test_an_anonymous_run_names_nobody(hidden):
    record = record_of(hidden, OBLIQUE)
    record["flags"] = ["Meier's mask is odd"]
    (hidden / f"{OBLIQUE}.json").write_text(json.dumps(record), encoding="utf-8")
    answers = Answers(ViewedRun(hidden))
    names = [one.name for one in answers.run.cases]
    assert names == sorted(names)  # no order that tells who they are
    pages = ["cases.json", "view", "files/report.html", "files/run.json"]
    pages += [f"case/{number}.json" for number in range(2)]
    texts = [content(get(answers, page)).decode() for page in pages]
    assert texts[0].count("case-") == 2
    (hidden / "ward" / "CT.nii.gz").unlink()
    texts += [
        b"".join(get(Answers(ViewedRun(hidden)), f"case/{n}.json").parts).decode() for n in range(2)
    ]
    assert any("without --anonymous" in text for text in texts)
    for text in texts:
        assert not re.search(r"meier|ward|\bCT\b|nii\.gz", text, re.I), text
    for name in ("ward/CT.json", "Meier%20_b_.png", "pseudonyms.csv", ".pseudonym-key"):
        assert get(answers, f"files/{name}").status == HTTPStatus.NOT_FOUND
    (hidden / "run.json").rename(hidden / "kept")
    assert ViewedRun(hidden).anonymous  # by its key, where the last run was killed
    (hidden / "kept").rename(hidden / "run.json")
    links = re.findall(r"\.\./(view\?case=[^\"]+)\"", texts[2])
    assert len(links) == 2 and all(get(answers, link).status == HTTPStatus.FOUND for link in links)


def test_a_case_that_cannot_be_shown_says_why(out, answers, tmp_path):
    number = number_of(answers, OBLIQUE)
    scan = Path(record_of(out, OBLIQUE)["inputs"][0]["files"][0])
    scan.rename(tmp_path / "away")
    try:
        answer = get(answers, f"case/{number}/scan-0.nii")
    finally:
        (tmp_path / "away").rename(scan)
    assert answer.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert str(scan).encode() in answer.parts[0]
    mask = out / record_of(out, OBLIQUE)["mask"]["file"]
    kept, image = mask.read_bytes(), nib.load(mask)
    moved = nib.affines.from_matvec(np.eye(3), [5, 0, 0]) @ image.affine
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), moved), mask)
    try:
        answer = get(answers, f"case/{number}/mask.nii")
    finally:
        mask.write_bytes(kept)
    assert answer.status == HTTPStatus.UNPROCESSABLE_ENTITY  # a mask of another grid
    assert mask.name.encode() in answer.parts[0]
    assert get(answers, f"case/{number}/scan-0.nii").status == HTTPStatus.OK


def test_the_command_prints_the_address_and_ends_with_one_line(out, capsys, monkeypatch):
    def interrupt(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewerServer, "serve_forever", interrupt)
    assert main(["view", str(out), "--no-browser"]) == 0
    printed = capsys.readouterr()
    assert re.match(r"2 cases: http://127\.0\.0\.1:\d+/[\w-]{24}/view\n", printed.out)
    assert "ssh -L" in printed.out and printed.err == "dinomed3d view: ended\n"
    with ViewerServer(ViewedRun(out)) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert main(["view", str(out), "--port", str(server.port)]) == 2
    assert "--port" in capsys.readouterr().err


def test_no_browser_opens_in_a_terminal_or_elsewhere(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SSH_CONNECTION", "1 2 3 4")
    assert not can_open_browser()
    monkeypatch.delenv("SSH_CONNECTION")
    assert can_open_browser()


def test_a_case_that_failed_is_not_listed(out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    record = {**record_of(out, SERIES), "status": "failed"}
    (tmp_path / "out" / f"{SERIES}.json").write_text(json.dumps(record), encoding="utf-8")
    assert [one.id for one in ViewedRun(tmp_path / "out").cases] == [OBLIQUE]


def test_folders_without_a_run_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="OUT"):
            ViewedRun(folder)


def test_the_viewer_in_the_package_is_the_published_one():
    folder = Path(display.__file__).parent / "niivue"
    digest = hashlib.sha256((folder / "niivue.umd.js").read_bytes()).hexdigest()
    assert f"`{digest}`" in (folder / "README.md").read_text(encoding="utf-8")
    assert "BSD 2-Clause" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert (folder / "THIRD_PARTY_LICENSES").stat().st_size > 5000
