"""What the viewer's server answers: a fixed list of addresses below a secret, and nothing else."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, quote, unquote

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.report.html_report import policy, with_viewer
from dinomed3d.inference.viewer.display import as_nifti
from dinomed3d.inference.viewer.viewed_run import ViewedRun
from dinomed3d.runtime.errors import UserError

_HERE = Path(__file__).parent
_HTML, _SCRIPT, _JSON = "text/html; charset=utf-8", "text/javascript", "application/json"
_PAGE = {
    "view": (_HERE / "page" / "viewer.html", _HTML),
    "viewer.js": (_HERE / "page" / "viewer.js", _SCRIPT),
    "viewer.css": (_HERE / "page" / "viewer.css", "text/css"),
    "niivue.js": (_HERE / "niivue" / "niivue.umd.js", _SCRIPT),
}
"""Address of each part of the page -> its file and type."""
_TYPES = {
    ".html": _HTML,
    ".png": "image/png",
    ".json": _JSON,
    ".csv": "text/plain; charset=utf-8",
}
"""Endings of results that a browser shows -> their type; others are saved."""
_OF_CASE = re.compile(r"case/(\d{1,9})(?:\.json|/(mask|scan-(\d{1,4}))\.nii)", re.ASCII)
_OF_LISTING = re.compile(r"look=(\d{1,9})", re.ASCII)
_HOSTS = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?", re.ASCII)
"""Names under which a browser may ask; with another one a foreign page was made to lead here (DNS rebinding)."""
_FRAMES = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; {_FRAMES}",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer; pages have policies of their own."""
_VIEWER_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    f"connect-src 'self' data: blob:; {_FRAMES}"
)

_OWN_IMAGES = "'self' data:"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status, headers and content of an answer."""

    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    """In addition to those of every answer, some of which they replace."""
    parts: tuple[bytes | memoryview, ...] = ()
    """The content, in pieces."""

    @property
    def all_headers(self) -> dict[str, str]:
        """Every header, with the length of the content."""
        length = sum(len(part) for part in self.parts)
        return {**_HEADERS, **self.headers, "Content-Length": str(length)}


class Answers:
    """What a browser gets of one run, below a secret that only its user knows."""

    def __init__(self, run: ViewedRun) -> None:
        """Make the secrets."""
        self.run = run
        self.secret = secrets.token_urlsafe(18)
        """First part of each address."""
        self._ticket: str | None = secrets.token_urlsafe(18)

    @property
    def address(self) -> str:
        """Where the viewer is, without the host."""
        return f"/{self.secret}/view"

    @property
    def first_address(self) -> str:
        """An address that leads to the viewer once: others can read it in the list of processes of a browser."""
        return f"/open/{self._ticket}"

    def get(self, target: str, host: str | None) -> Answer:
        """Answer a request.

        Args:
            target: path and query, as the browser sent them.
            host: of the header `Host`.
        """
        if host is None or not _HOSTS.fullmatch(host):
            return _error(HTTPStatus.FORBIDDEN, "ask at 127.0.0.1 or localhost")
        path, _, query = target.partition("?")
        first, _, rest = path.removeprefix("/").partition("/")
        name = unquote(rest, errors="surrogateescape")
        if first == "open" and self._ticket is not None and _same(name, self._ticket):
            self._ticket = None
            return _redirect(self.address)
        if target == "/favicon.ico":  # browsers ask for it at each page
            return Answer(status=HTTPStatus.NO_CONTENT)
        if not _same(first, self.secret):
            return _error(HTTPStatus.NOT_FOUND, "no such address; copy the whole line")
        return self._below_secret(name, query)

    def _below_secret(self, name: str, query: str) -> Answer:
        if name == "":
            return _redirect(self.address)
        if name == "view" and query:
            return self._view_of(query)
        if name in _PAGE:
            part, kind = _PAGE[name]
            headers = {"Content-Type": kind, "Content-Security-Policy": _VIEWER_POLICY}
            return Answer(headers=headers, parts=(part.read_bytes(),))
        if name == "cases.json":
            return self._cases()
        listing = _OF_LISTING.fullmatch(query)
        if name == "news.json" and listing is not None:
            return _json(asdict(self.run.news(int(listing[1]))))
        of_case = _OF_CASE.fullmatch(name)
        if of_case is not None:
            number, volume, channel = of_case.groups()
            return self._of_case(int(number), volume, int(channel or 0))
        folder, _, file = name.partition("/")
        if folder == "files":
            return self._file(file)
        return _error(HTTPStatus.NOT_FOUND, "no such address")

    def _view_of(self, query: str) -> Answer:
        """The viewer at a case that a link of the report names."""
        names = parse_qs(query, errors="surrogateescape").get("case", [])
        number = self.run.find(names[0]) if names else None
        if number is None and names:  # perhaps finished since the last look
            with suppress(UserError):
                self.run.refresh()
            number = self.run.find(names[0])
        if number is None:
            return _error(HTTPStatus.NOT_FOUND, "this folder holds no finished case of that name")
        return _redirect(f"{self.address}#{number + 1}")

    def _cases(self) -> Answer:
        """Everything that is finished by now: the page asks for it when it is loaded, or its user wants news."""
        try:
            self.run.refresh()
        except UserError as err:
            return _error(HTTPStatus.NOT_FOUND, str(err))
        # Read before the cases: if they are listed again in between, news then repeats some, and misses none.
        look = self.run.look
        cases = [
            {"number": one.number, "name": one.name, "flagged": one.is_flagged}
            for one in self.run.cases
        ]
        return _json({"cases": cases, "look": look, "report": "report.html" in self.run.files})

    def _of_case(self, number: int, volume: str | None, channel: int) -> Answer:
        if self.run.case(number) is None:
            return _error(HTTPStatus.NOT_FOUND, "no such case")
        try:
            if volume is None:
                content = self.run.describe(number)
                return _json(content | {"mask": _file_address(content["mask"])})
            shown = self.run.display(number)
        except CaseError as err:
            return _error(HTTPStatus.UNPROCESSABLE_ENTITY, str(err))
        if volume != "mask" and channel >= len(shown.channels):
            return _error(HTTPStatus.NOT_FOUND, "no such channel")
        voxels = shown.mask if volume == "mask" else shown.channels[channel]
        headers = {"Content-Type": "application/octet-stream"}
        return Answer(headers=headers, parts=as_nifti(voxels, shown.affine))

    def _file(self, name: str) -> Answer:
        try:
            if name == "report.html" and name not in self.run.files:
                with suppress(UserError):  # a run writes it at its end
                    self.run.refresh()
            content = self.run.open_file(name)
        except OSError:
            content = None
        if content is None:
            return _error(HTTPStatus.NOT_FOUND, "no such file of this run")
        kind = _TYPES.get(PurePosixPath(name).suffix)
        if kind is None:
            saved = {
                "Content-Disposition": "attachment",
                "Content-Type": "application/octet-stream",
            }
            return Answer(headers=saved, parts=(content,))
        headers = {"Content-Type": kind}
        if name == "report.html":
            headers["Content-Security-Policy"] = f"{policy(images=_OWN_IMAGES)}; {_FRAMES}"
            content = with_viewer(content)
        return Answer(headers=headers, parts=(content,))


def _same(given: str, secret: str) -> bool:
    """Whether they are equal; takes as long if they nearly are."""
    return secrets.compare_digest(given.encode("utf-8", "surrogateescape"), secret.encode("ascii"))


def _file_address(name: str | None) -> str | None:
    return None if name is None else f"files/{quote(name, errors='surrogateescape')}"


def _json(content: object) -> Answer:
    return Answer(headers={"Content-Type": _JSON}, parts=(json.dumps(content).encode("ascii"),))


def _redirect(address: str) -> Answer:
    return Answer(status=HTTPStatus.FOUND, headers={"Location": address})


def _error(status: HTTPStatus, text: str) -> Answer:
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    return Answer(status=status, headers=headers, parts=(f"{text}\n".encode("utf-8", "replace"),))
