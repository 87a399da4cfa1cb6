"""Report and viewer in a real browser: the mask is drawn where it belongs, nothing is asked of other computers."""

import threading

import nibabel as nib
import numpy as np
import pytest

from dinomed3d.inference.viewer.server import ViewerServer
from dinomed3d.inference.viewer.viewed_run import ViewedRun
from tests.chromium import Page, browser, needs_chromium
from tests.dinomed3d.inference.viewer.viewed_runs import finish_another, put_mask, write_run

OBLIQUE, SERIES = "Meier _b_", "ward/CT"
SHOWN = "document.body && document.body.dataset.state === 'shown'"
SLICES_ALONE = """
viewer.opts.multiplanarShowRender = niivue.SHOW_RENDER.NEVER;
viewer.opts.crosshairWidth = 0;
viewer.opts.isOrientationTextVisible = false;
viewer.drawScene();
"""
POSITION = "element('position').textContent"
YELLOW = (255, 217, 77)
"""The colour of the letters."""
BLUE = (86, 180, 233)
"""The colour of label 2."""


@pytest.fixture
def out(tmp_path):
    path = write_run(tmp_path)
    put_mask(path, OBLIQUE)
    put_mask(path, SERIES)
    return path


def drawn(page: Page, opacity: float) -> np.ndarray:
    """The canvas, (Y, X, 3), with this opacity of the mask."""
    page.run(
        f"element('opacity').value = {opacity}; element('opacity').dispatchEvent(new Event('input'))"
    )
    left, top, width, height = page.run(
        "(({x, y, width, height}) => [x, y, width, height].map(Math.round))(canvas.getBoundingClientRect())"
    )
    return page.picture()[top : top + height, left : left + width].astype(int)


def coloured(picture: np.ndarray) -> np.ndarray:
    return np.abs(picture - BLUE).max(-1) < 30


def overlap(page: Page) -> float:
    """How well what the mask colours covers what is bright in the scan: intersection over union."""
    bright, blue = drawn(page, 0).min(-1) > 150, coloured(drawn(page, 1))
    return float((bright & blue).sum() / (bright | blue).sum())


def press(page: Page, key: str) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key)


def test_report_and_viewer(out, tmp_path):
    path = needs_chromium()
    with (
        ViewerServer(ViewedRun(out)) as server,
        browser(path, tmp_path / "profile", size=(720, 480)) as page,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            the_report_leads_to_the_viewer(page, server, out)
            the_mask_is_over_its_object(page, out)
            other_cases_and_labels(page)
            what_was_chosen_last_is_shown(page)
            a_moved_mask_is_elsewhere(page, out)
            what_is_written_later_is_announced(page, out)
        finally:
            server.shutdown()
    assert page.errors == []
    ours = (server.url("/"), "data:", "blob:", "file:")
    assert [address for address in page.requests if not address.startswith(ours)] == []


def test_a_page_that_goes_away_before_it_answers_is_waited_for(monkeypatch):
    page, said = (
        object.__new__(Page),
        [{"error": {"message": "Inspected target navigated or closed"}}],
    )
    page._session, page._number, page._to = None, 0, None
    said.append({"result": {"result": {"value": 7}}})
    monkeypatch.setattr("tests.chromium.os.write", lambda *_: None)
    monkeypatch.setattr(page, "_read", lambda: {"id": page._number} | said.pop(0))
    assert page.wait("7") == 7


def the_report_leads_to_the_viewer(page, server, out):
    links = "[...document.querySelectorAll('.view a')].map((link) => link.checkVisibility())"
    page.open((out / "report.html").as_uri())  # from disk no link leads to nowhere
    page.wait("document.readyState === 'complete' && !!document.querySelector('.results')")
    assert page.run(links) == [False, False]
    assert f'dinomed3d view "{out}"' in page.run("document.body.innerText")
    page.open(server.url(f"/{server.answers.secret}/files/report.html"))
    page.wait("location.protocol === 'http:' && !!document.querySelector('.results')")
    assert page.run(links) == [True, True]
    assert "dinomed3d view" not in page.run("document.body.innerText")
    page.run("document.querySelector('.view a').click()")
    page.wait(SHOWN)
    assert page.run("document.title") == f"{OBLIQUE} – masks over scans"
    assert page.run("element('report').checkVisibility()")


def letters_lie_within_their_slice(page):
    page.run(
        "viewer.opts.crosshairWidth = 0; "
        "element('planes').value = 0; element('planes').dispatchEvent(new Event('change'))"
    )
    picture = drawn(page, 0)
    letters = np.nonzero(np.abs(picture - YELLOW).max(-1) < 70)
    for at, side in zip(letters, picture.shape[:2], strict=True):
        assert 3 <= at.min() < side / 5 and side * 4 / 5 < at.max() < side - 3
    page.run("element('planes').value = 3; element('planes').dispatchEvent(new Event('change'))")


def the_mask_is_over_its_object(page, out):
    assert page.run(POSITION).endswith("intensity 600   label: b")
    letters_lie_within_their_slice(page)
    page.run(SLICES_ALONE)
    assert overlap(page) > 0.8  # at edges both are interpolated
    page.run("element('planes').value = 0; element('planes').dispatchEvent(new Event('change'))")
    scan = nib.load(out.parent / "in" / "Meier <b>.nii.gz")
    middle = nib.affines.apply_affine(scan.affine, np.array(scan.shape) / 2 - 0.5)
    voxels = np.argwhere(np.asanyarray(scan.dataobj) == 600)
    x, y, _ = nib.affines.apply_affine(scan.affine, voxels.mean(0)) - middle
    blue = coloured(drawn(page, 1))
    rows, columns = np.nonzero(blue)
    assert np.sign(columns.mean() - blue.shape[1] / 2) == -np.sign(x)  # the right is on the left
    assert np.sign(rows.mean() - blue.shape[0] / 2) == -np.sign(y)  # anterior is up
    page.run("element('planes').value = 3; element('planes').dispatchEvent(new Event('change'))")


def other_cases_and_labels(page):
    press(page, "n")
    page.wait(f"{SHOWN} && document.title.startsWith('{SERIES}')")
    assert page.run(POSITION).endswith("label: b")
    seen = coloured(drawn(page, 1)).sum()
    press(page, "m")
    assert seen > 500 and coloured(drawn(page, 1)).sum() == 0
    press(page, "m")
    page.run("document.querySelectorAll('#labels input')[1].click()")
    assert coloured(drawn(page, 1)).sum() == 0
    before = page.run("voxel()")
    page.run("canvas.focus()")
    for key in ("ArrowLeft", "ArrowUp", "PageDown"):
        press(page, key)
    assert (np.subtract(page.run("voxel()"), before) == (1, 1, -1)).all()


LATE_CHANNEL = """
window.late = [];
window.reallyFetch = window.fetch;
window.fetch = async (address, options) => {
  if (address.includes('scan-1')) await new Promise((answer) => late.push(answer));
  return reallyFetch(address.replace(/scan-[12]/, 'scan-0'));
};
shown.windows = [[0, 500], [10, 510], [20, 520]];
element('channels').append(new Option('1', 1), new Option('2', 2));
"""
"""Two more channels, of which number 1 is not answered before it is told to."""
ANSWER = "late.splice(0).forEach((answer) => answer()); new Promise((go) => setTimeout(go, 300))"


def choose_channel(page, number):
    page.run(
        f"element('channels').value = {number}; element('channels').dispatchEvent(new Event('change'))"
    )


def what_was_chosen_last_is_shown(page):
    """A channel that is answered late takes the place of nothing that was chosen after it."""
    page.run(LATE_CHANNEL)
    choose_channel(page, 1)
    choose_channel(page, 2)
    page.wait("viewer.volumes.length === 2 && viewer.volumes[0].cal_min === 20")
    page.run(ANSWER)
    assert page.run("viewer.volumes.map((one) => one.cal_min)[0]") == 20
    assert page.run("Number(element('black').value)") == 20
    choose_channel(page, 1)
    press(page, "p")
    page.wait(f"{SHOWN} && document.title.startsWith('{OBLIQUE}')")
    page.run("moveToVoxel([1, 2, 3])")
    page.run(ANSWER)
    assert page.run("voxel()") == [1, 2, 3] and page.run("element('message').hidden")
    page.run("window.fetch = reallyFetch")
    press(page, "n")
    page.wait(f"{SHOWN} && document.title.startsWith('{SERIES}')")


def a_moved_mask_is_elsewhere(page, out):
    put_mask(out, OBLIQUE, moved=5)
    press(page, "p")
    page.wait(f"{SHOWN} && document.title.startsWith('{OBLIQUE}')")
    assert overlap(page) < 0.6


NEWS = "element('news').innerText.trim()"
"""What the page says, with the word on the button."""


def what_is_written_later_is_announced(page, out):
    """A run goes on behind the open page, which says so and moves nothing before its user wants it."""
    place = "JSON.stringify(canvas.getBoundingClientRect())"
    page.run("moveToVoxel([3, 5, 7]); window.before = shown; betweenQuestions = 20")
    before = page.run(place)
    assert page.run(NEWS) == ""
    page.run("document.dispatchEvent(new Event('visibilitychange'))")  # asks at once
    page.wait(f"{NEWS} === 'this one has changed show'")  # the page before it was loaded
    finish_another(out, OBLIQUE, "Zoe")
    put_mask(out, SERIES)
    page.wait(f"{NEWS} === '1 new case, 2 changed, this one too show'")
    page.run("betweenQuestions = 60000")
    assert page.run("shown === before && cases.length === 2")
    assert page.run("voxel()") == [3, 5, 7] and page.run(place) == before
    page.run("document.querySelector('#news button').click()")
    page.wait(f"{SHOWN} && shown !== before")
    assert page.run("voxel()") == [3, 5, 7]
    assert page.run(NEWS) == "" and page.run("document.title").startswith(OBLIQUE)
    names = page.run("[...element('cases').options].map((one) => one.text)")
    assert [name.removesuffix(" ⚑") for name in names] == [OBLIQUE, "Zoe", SERIES]
    put_mask(out, SERIES, moved=1)
    page.run("window.before = shown; askForNews()")
    assert page.run(NEWS) == "1 changed show"
    page.run("showNews()")
    assert page.run("shown === before") and page.run(NEWS) == ""  # another case has changed
    put_mask(out, OBLIQUE, moved=1)
    page.run("showNews()")  # before the page has asked for news again
    page.wait(f"{SHOWN} && shown !== before")
