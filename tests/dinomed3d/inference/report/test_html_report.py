"""Reports: everything in them, nothing foreign in them taken for ours."""

import base64
import csv
import html
import io
import json
import re
from html.parser import HTMLParser

import pytest

from dinomed3d.inference.report import html_report
from dinomed3d.inference.report.case_counts import CaseCounts, total_ml, total_seconds
from dinomed3d.inference.report.legend import FLAGS
from dinomed3d.inference.report.run_report import write_report

NASTY = "<script>alert('1')</script> \"x\" & y"
PNG = b"\x89PNG not really"
RUN = {
    "model": {
        "source": "/m",
        "hub": "hf:us/liver@0123",
        "name": "Dataset007_Liver",
        "hash": "0123456789abcdef" * 4,
        "trainer": "SomeTrainer",
        "configuration": "3d_fullres",
        "folds": ["0", "3"],
    },
    "spec": {"step_size": 0.5},
    "started": "2025-01-02T03:04:05+0100",
    "seconds": 3725.0,
    "ignored": {"hidden file": 3},
    "missing": ["late"],
}


def label(value=1, ml=1.5, **more):
    entry = {"value": value, "voxels": 10, "volume_ml": ml, "components": 1}
    return {**entry, "touches_border": False, **more}


def done(case, **more):
    return {
        "case": case,
        "status": "done",
        "reason": None,
        "labels": {"liver": label()},
        "certainty": 0.9,
        "flags": [],
        "notes": [],
        "result_notes": [],
        "seconds": {"read": 1.0, "network": 2.5},
        "peak_memory_gib": 1.25,
        **more,
    }


def failed(case, reason="cut short"):
    return {"case": case, "status": "failed", "reason": reason, "seconds": {}}


class Page(HTMLParser):
    """Which elements a page has, with what text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text += data


def written(out, *records, run=RUN):
    write_report(out, records, run)
    return (out / "report.html").read_text(encoding="utf-8")


def rows(out):
    text = (out / "report.csv").read_bytes().decode()  # line ends as they are
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_page_shows_everything(tmp_path):
    (tmp_path / "b.png").write_bytes(PNG)
    text = written(
        tmp_path,
        done("b", flags=["empty mask"], notes=["series 3 taken"], result_notes=["two segments"]),
        done("a", labels={"liver": label(components=4, touches_border=True)}),
        failed("broken", "channel T2 is missing"),
        {"case": "half", "status": "begun"},
    )
    page = Page(text)
    for words in (
        "Research software, not a medical device",
        *("2 done", "1 failed", "2 not yet done", "1 flagged"),
        *(
            "Dataset007_Liver",
            "hf:us/liver@0123",
            "SomeTrainer",
            "3d_fullres",
            "0, 3",
            "0123456789ab",
            "1 h 2 min",
            "3 × hidden file",
        ),
        *("2025-01-02T03:04:05+0100", "late", "half", "channel T2 is missing"),
        *(
            "empty mask",
            "series 3 taken",
            "two segments",
            "4 components, at the border",
            "0.90",
            "3.5",
        ),
    ):
        assert words in page.text, words
    assert "0123456789abc" not in page.text
    assert page.text.index("channel T2 is missing") < page.text.index("Results (2)")
    assert page.text.index("Results") < page.text.index("empty mask")
    assert base64.b64encode(PNG).decode() in text and "no preview" in page.text


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    text = written(tmp_path, done("a"), failed("b"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert Page(text).tags.count("script") == 1 and "link" not in Page(text).tags
    assert "default-src 'none'" in html.unescape(text)


def test_hostile_names_and_reasons_are_escaped(tmp_path):
    record = done(
        NASTY,
        labels={NASTY: label(), f"{NASTY} 2": label(2, voxels=0)},
        **{key: [NASTY] for key in ("flags", "notes", "result_notes")},
        seconds={NASTY: 1.0},
    )
    run = {
        **RUN,
        "model": dict.fromkeys(("hash", "trainer", "configuration"), NASTY) | {"folds": [NASTY]},
        "started": NASTY,
        "ignored": {NASTY: 1},
        "missing": [NASTY],
    }
    plain = written(tmp_path, done("a", flags=["x"], notes=["x"]), failed("b"))
    text = written(tmp_path, record, failed(NASTY, NASTY), run=run)
    page = Page(text)
    assert page.tags.count("script") == 1 and set(page.tags) <= {*Page(plain).tags, "p"}
    assert page.text.count(NASTY) >= 10 and NASTY not in text
    assert NASTY.replace("<", "&lt;").split(">")[0] in text
    assert not any(name.startswith("on") for _, name, _ in page.attributes)


def test_previews_beyond_the_limit_are_linked(tmp_path, monkeypatch):
    monkeypatch.setattr(html_report, "MOST_EMBEDDED", 1)
    names = ["a", 'sub/b #1?"<ä>.nii', "javascript:alert(1)"]
    (tmp_path / "a.png").write_bytes(PNG)
    text = written(tmp_path, *(done(name) for name in names))
    sources = [value for tag, name, value in Page(text).attributes if (tag, name) == ("img", "src")]
    assert sources[0].startswith("data:image/png;base64,")
    assert sources[1:] == [
        "./javascript%3Aalert%281%29.png",
        "./sub/b%20%231%3F%22%3C%C3%A4%3E.nii.png",
    ]
    assert "Previews of the first 1 cases" in text


def test_masks_are_linked_where_their_names_may_be_seen(tmp_path):
    record = done(
        'sub/b #1?"<ä>',
        mask={"file": 'sub/b #1?"<ä>.nii.gz', "sha256": ""},
        files=['sub/b #1?"<ä>.b2nd', 'sub/b #1?"<ä>.png'],
    )
    page = Page(written(tmp_path, record))
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    stem = "./sub/b%20%231%3F%22%3C%C3%A4%3E"
    viewer = "../view?case=sub%2Fb%20%231%3F%22%3C%C3%A4%3E"
    assert links == [viewer, f"{stem}.nii.gz", f"{stem}.b2nd", f"{stem}.json"]
    assert "mask, probabilities, record" in page.text
    hidden = {**record, "case": "case-x", "stored_as": record["case"]}
    page = Page(written(tmp_path, hidden, run={**RUN, "anonymous": True}))
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert links == ["../view?case=case-x"]


def test_each_column_and_each_kind_of_flag_is_explained(tmp_path):
    page = Page(written(tmp_path, done("a")))
    heads = page.tags.count("th") - 1  # the row's own
    titles = [value for tag, name, value in page.attributes if (tag, name) == ("th", "title")]
    assert len(titles) == heads and all(text.endswith(".") for text in titles)
    assert all(page.text.count(text) == 1 for text in [*titles, *FLAGS.values()])


def test_many_labels_are_collapsed_and_absent_ones_named(tmp_path):
    labels = {f"organ {v}": label(v, float(v), voxels=v % 3) for v in range(1, 12)}
    text = written(tmp_path, done("a", labels=labels))
    assert "8 of 11 labels" in text and "Not found: organ 3, organ 6, organ 9" in text
    few = written(tmp_path, done("a", labels={"liver": label(8)}))
    assert "1 of 1 labels" not in few
    assert '<i class="c0">' in few and ".c0 { background: #e69f00; }" in few


def test_sorting_keys(tmp_path):
    text = written(tmp_path, done("a", flags=["x", "y"]), done("b", certainty=None, seconds={}))
    keys = [v for _, name, v in Page(text).attributes if name == "data-key"]
    assert keys == ["1.5", "2", "0.9", "3.5", "1.5", "0", "", ""]


def test_totals_by_hand():
    assert total_ml({}) == 0
    assert total_ml({"a": label(1, 2.0), "b": label(2, 3.0)}) == 5
    assert total_ml({"whole": label([1, 2], 5.0), "core": label(2, 3.0)}) == 5
    assert (
        total_seconds({}) is None and total_seconds({"seconds": {"read": 1.5, "write": 2}}) == 3.5
    )


def test_case_counts():
    records = [done("b"), failed("c"), {"case": "d", "status": "begun"}, done("a", flags=["x"])]
    cases = CaseCounts.of(records, {"missing": ["d", "e"]})
    assert [r["case"] for r in cases.done] == ["a", "b"] and cases.missing == ("d", "e")
    assert cases.counts == {"done": 2, "failed": 1, "missing": 2, "flagged": 1}


def test_table(tmp_path):
    written(
        tmp_path,
        done("ü/b", flags=["one", "two"], labels={"liver": label(ml=1234.5678)}),
        failed("a", 'not, "this"\nnor that'),
        done("c", labels={"spleen": label(ml=float("nan"))}, certainty=None),
    )
    first, second, third = rows(tmp_path)
    assert list(first) == [
        *("case", "status", "reason", "flags", "certainty", "seconds_total", "peak_memory_gib"),
        *("spleen_ml", "liver_ml"),
    ]
    assert (first["status"], first["reason"]) == ("failed", 'not, "this"\nnor that')
    assert first["seconds_total"] == first["liver_ml"] == ""
    assert (second["case"], second["spleen_ml"], second["certainty"]) == ("c", "", "")
    assert third == {
        "case": "ü/b",
        "status": "done",
        "reason": "",
        "flags": "one; two",
        "certainty": "0.9",
        "seconds_total": "3.5",
        "peak_memory_gib": "1.25",
        "spleen_ml": "",
        "liver_ml": "1234.57",
    }


@pytest.mark.parametrize("start", list("=+-@\t\r\n"))
def test_no_text_is_taken_for_a_formula(tmp_path, start):
    text = f"{start}cmd|' /C calc'!A0"
    written(tmp_path, done(text, flags=[text], labels={text: label(ml=-1.0)}), failed("z", text))
    row, other = rows(tmp_path)
    assert row["case"] == row["flags"] == other["reason"] == f"'{text}"
    assert row[f"'{text}_ml"] == "-1"  # a number stays one


def test_summary(tmp_path):
    written(tmp_path, done("a", flags=["x"]), failed("b"), {"case": "c", "status": "begun"})
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert content["counts"] == {"done": 1, "failed": 1, "missing": 2, "flagged": 1}
    assert content["failed"] == [{"case": "b", "reason": "cut short"}]
    assert content["flagged"] == ["a"] and content["missing"] == ["c", "late"]
    assert content["model"] == RUN["model"] and content["spec"] == RUN["spec"]


def test_names_that_are_no_text(tmp_path):
    name = "scan\udcff"  # how Python shows a byte that is no UTF-8
    text = written(tmp_path, done(name), failed("b", f"{name} is cut short"))
    assert "scan\\udcff" in text
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["failed"]
    assert rows(tmp_path)[1]["case"] == "scan\\udcff"


def test_nothing_at_all(tmp_path):
    text = written(tmp_path, run={})
    assert "<b>0</b> done" in text and "<table" not in text
    assert rows(tmp_path) == []


def test_many_cases_with_many_labels(tmp_path):
    labels = {f"organ {v}": label(v, v * 1.25, components=3) for v in range(1, 118)}
    text = written(tmp_path, *(done(f"case {n:04d}", labels=labels) for n in range(500)))
    assert text.count("no preview") + text.count("<img") == 500 and len(text) < 10_000_000
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["report.csv", "report.html", "run.json"]
