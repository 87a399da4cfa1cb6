"""A real Chromium without a window, spoken to in its debugging protocol over two pipes."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def needs_chromium() -> str:
    """Its path; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None or os.name != "posix":
        pytest.skip(f"no Chromium to open pages with (looked for {', '.join(NAMES)})")
    return found


class NavigatedError(Exception):
    """Another page took the place of the one that was asked, before it answered."""


class Page:
    """One tab, what its console says and which addresses it asks for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._number, self._rest, self._session = 0, b"", None
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "navigated" in answer.get("error", {}).get("message", ""):
                    raise NavigatedError(answer)
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            block = os.read(self._from, 1 << 20)
            assert block, "the browser has ended"
            self._rest += block
        first, _, self._rest = self._rest.partition(b"\0")
        answer = json.loads(first)
        event = answer.get("params", {})
        match answer.get("method"):
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "warning", "assert"):
                said = [str(part.get("value", part.get("description"))) for part in event["args"]]
                self.errors.append(" ".join(said))
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(event["exceptionDetails"]))
            case "Log.entryAdded" if _is_trouble(event["entry"]):
                self.errors.append(event["entry"]["text"] + " " + event["entry"].get("url", ""))
            case "Network.requestWillBeSent":
                self.requests.append(event["request"]["url"])
        return answer

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        ran = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in ran, ran["exceptionDetails"]
        return ran["result"].get("value")

    def wait(self, script: str, *, seconds: float = 40) -> Any:
        """The value of an expression once it is true, on whatever page is there by then."""
        end = time.monotonic() + seconds
        while not (value := self._run_if_it_stays(script)):
            assert time.monotonic() < end, (
                script,
                self.errors,
                self.run("document.body.innerText"),
            )
            time.sleep(0.05)
        return value

    def _run_if_it_stays(self, script: str) -> Any:
        try:
            return self.run(script)
        except NavigatedError:
            return None

    def click(self, x: float, y: float) -> None:
        """Press and release the left button at a place of the picture, as a hand would."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=float(x), y=float(y), **button)

    def picture(self) -> np.ndarray:
        """The page as it is drawn: (Y, X, 3)."""
        shot = self.call("Page.captureScreenshot", format="png")["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB"))


def _is_trouble(entry: dict[str, Any]) -> bool:
    """Errors and warnings, but not that drawing without a graphics card is slow."""
    return entry["level"] in ("error", "warning") and "GL Driver Message" not in entry["text"]


@contextmanager
def browser(path: str, profile: Path, *, size: tuple[int, int] = (1000, 700)) -> Iterator[Page]:
    """Start the browser with a fresh profile, and end it."""
    options = (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"),
        *("--no-first-run", "--disable-background-networking", "--disable-extensions"),
        *(f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}"),
        *("--remote-debugging-pipe", "--disable-dev-shm-usage"),
    )
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()

    def as_third_and_fourth() -> None:
        os.dup2(in_read, 3)
        os.dup2(out_write, 4)

    # the browser reads from its descriptor 3 and writes to 4; they must not be those that are moved there
    ends = [os.dup(end) if end in (3, 4) else end for end in (in_read, out_write)]
    in_read, out_write = ends
    ran = subprocess.Popen(
        [path, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=as_third_and_fourth,  # noqa: PLW1509
        pass_fds=(3, 4),
    )
    os.close(in_read)
    os.close(out_write)
    try:
        yield Page(in_write, out_read)
    finally:
        os.close(in_write)
        ran.terminate()
        try:
            ran.wait(10)
        except subprocess.TimeoutExpired:
            ran.kill()
            ran.wait()
        os.close(out_read)
