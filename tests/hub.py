"""A stand-in for the Hugging Face hub on this machine: the few addresses that huggingface_hub asks."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest

TOKEN = "hf_stand_in"
LARGE = (".zip", ".pt")
"""Endings of files that are kept as large ones, named by their sha256."""


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], *, branch: str = "main") -> str:
        before = self.commits.get(self.branches.get(branch, ""), {})
        name = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[name] = {**before, **files}
        self.branches[branch] = name
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        name = self.branches.get(revision, revision)
        return (name, self.commits[name]) if name in self.commits else None


class Hub:
    """Repositories in memory, what was asked, and how answers are spoiled."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.uploaded: dict[str, bytes] = {}
        self.cut: int | None = None
        """Bytes after which contents end, as on a lost connection."""
        self.status: int | None = None
        """What everything is answered with."""
        self.claimed_size: int | None = None
        hub = self

        class Handler(_Handler):
            owner = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, name: str, files: dict[str, bytes], **settings: Any) -> str:
        repository = self.repositories.setdefault(name, Repository(**settings))
        return repository.commit(files)

    def files(self, name: str) -> dict[str, bytes]:
        found = self.repositories[name].at("main")
        return {} if found is None else found[1]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.get()

    def do_GET(self) -> None:
        self.get()

    def get(self) -> None:
        if self.spoiled():
            return
        path = urlsplit(self.path).path
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            self.about("/".join(parts[2:4]), parts[4:])
        elif parts[2:3] == ["resolve"]:
            self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.refuse(404, "EntryNotFound")

    def spoiled(self) -> bool:
        self.owner.asked.append(f"{self.command} {self.path}")
        if self.owner.status is not None:
            self.refuse(self.owner.status)
        return self.owner.status is not None

    def repository(self, name: str, *, content: bool) -> Repository | None:
        """The repository, if who asks may have it."""
        found = self.owner.repositories.get(name)
        known = self.headers.get("authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not known):
            self.refuse(404 if known else 401, "RepoNotFound")
            return None
        if found.gated and content:
            self.refuse(403, "GatedRepo")
            return None
        return found

    def about(self, name: str, rest: list[str]) -> None:
        found = self.repository(name, content=False)
        if found is None:
            return
        revision = rest[1] if rest[:1] in (["revision"], ["tree"]) else "main"
        commit, files = found.at(revision) or ("0" * 40, {})
        if rest[:1] == ["tree"]:
            self.answer(
                [{"type": "file", "path": f, "size": len(c), "oid": "0"} for f, c in files.items()]
            )
        else:
            siblings = [{"rfilename": file} for file in files]
            self.answer(
                {
                    "id": name,
                    "sha": commit,
                    "private": found.private,
                    "siblings": siblings,
                    "tags": [],
                }
            )

    def file(self, name: str, revision: str, file: str) -> None:
        found = self.repository(name, content=True)
        if found is None:
            return
        version = found.at(revision)
        if version is None:
            self.refuse(404, "RevisionNotFound")
            return
        commit, files = version
        if file not in files:
            self.refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
            return
        content = files[file]
        tag = hashlib.sha256(content).hexdigest()
        if not file.endswith(LARGE):
            tag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{tag}"')
        size = self.owner.claimed_size or len(content)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: self.owner.cut])

    def do_POST(self) -> None:
        body = self.body()
        if self.spoiled():
            return
        path = urlsplit(self.path).path
        parts = path.strip("/").split("/")
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            self.refuse(401)
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.owner.address}/put/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self.commit("/".join(parts[2:4]), body)
        else:
            self.refuse(404)

    def do_PUT(self) -> None:
        content = self.body()
        if not self.spoiled():
            self.owner.uploaded[self.path.rsplit("/", 1)[1]] = content
            self.answer({})

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.owner.repositories:
            self.answer({"url": f"{self.owner.address}/{name}"}, 409)
            return
        if asked["organization"] != "us":
            self.refuse(403)
            return
        self.owner.repositories[name] = Repository(
            private=asked.get("private") or asked.get("visibility") == "private"
        )
        self.owner.repositories[name].commit({".gitattributes": b""})
        self.answer({"url": f"{self.owner.address}/{name}"})

    def commit(self, name: str, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.owner.uploaded[value["oid"]]
        commit = self.owner.repositories[name].commit(files)
        address = f"{self.owner.address}/{name}/commit/{commit}"
        self.answer({"success": True, "commitOid": commit, "commitUrl": address})

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, an empty cache, and nobody who is logged in."""
    made = Hub()
    constants = huggingface_hub.constants
    form = "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": made.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": made.address + form,
        "HF_HUB_CACHE": str(tmp_path / "hub_cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no_token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.stop()
