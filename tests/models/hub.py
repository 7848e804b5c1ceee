"""A small hub on loopback: repositories are folders, `root/{models,datasets}/ORG/NAME/BRANCH/files`."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

_API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)(/revision/(?P<revision>.+))?")
_LIST = re.compile(r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)/(tree|paths-info)/(?P<revision>[^/]+)(/.*)?")
_FILE = re.compile(r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


class Hub(ThreadingHTTPServer):
    """Serves what lies in `root`; a branch's commit is a checksum of its contents.

    Attributes:
        asked: every request, as "GET /path".
        fault: from a request to what is done instead of an answer: a status, "silent", "drop", or ("cut", bytes).
        access: "private" or "gated", by repository.
    """

    daemon_threads = True

    def __init__(self, root: Path):
        self.root, self.asked = root, list[str]()
        self.fault: Callable[[str], Any] = lambda _request: None
        self.access: dict[str, str] = {}
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str, branch: str = "main", kind: str = "models") -> str:
        folder = self.root / kind / name / branch
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return hashlib.sha1(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()

    def find(self, kind: str, name: str, revision: str) -> Path | None:
        branches = (path for path in (self.root / kind / name).iterdir())
        return next((b for b in branches if revision in (b.name, self.commit(name, b.name, kind))), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        self.fault = self.server.fault(self.server.asked[-1])
        if self.fault == "silent":
            time.sleep(60)
        if self.fault in ("silent", "drop"):
            self.close_connection = True
        elif isinstance(self.fault, int):
            self.answer(self.fault, b"{}")
        elif asked := _API.fullmatch(path) or _FILE.fullmatch(path):
            self.repository(**asked.groupdict())
        elif asked := _LIST.fullmatch(path):
            paths = parse_qs(body.decode()).get("paths") or json.loads(body or b"{}").get("paths")
            self.listing(**asked.groupdict(), below=(asked[5] or "").strip("/"), paths=paths)
        else:
            self.answer(404, b"{}")

    do_HEAD = do_GET

    def repository(self, kind: str | None, name: str, revision: str | None, file: str = "") -> None:
        kind = (kind or "models").rstrip("/")
        access = self.server.access.get(name)
        if access == "private" or not (self.server.root / kind / name).is_dir():
            return self.answer(401, b"{}", **{"X-Error-Code": "RepoNotFound"})
        if access == "gated" and file:
            return self.answer(403, b"{}", **{"X-Error-Code": "GatedRepo"})
        if (folder := self.server.find(kind, name, revision or "main")) is None:
            return self.answer(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        commit = self.server.commit(name, folder.name, kind)
        if not file:
            files = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
            about = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
            return self.answer(200, json.dumps(about | {"private": False, "downloads": 0, "tags": []}).encode())
        if not (folder / file).is_file():
            return self.answer(404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        body = (folder / file).read_bytes()
        return self.answer(200, body, **{"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'})

    def listing(self, kind: str, name: str, revision: str, below: str, paths: Any) -> None:
        """The files below a folder, or those that are asked for, and the folders above them."""
        folder = self.server.find(kind, name, revision)
        assert folder is not None
        found = []
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if (name in paths) if paths else name.startswith(below):
                about = {"type": "directory", "size": 0, "oid": "0" * 40}
                if path.is_file():
                    about = {"type": "file", "size": path.stat().st_size, "oid": "0" * 40}
                found.append({"path": name} | about)
        self.answer(200, json.dumps(found).encode())

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for header, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            cut = self.fault[1] if isinstance(self.fault, tuple) else None
            self.close_connection = cut is not None
            self.wfile.write(body[:cut])

    def log_message(self, *_args: object) -> None:
        """No lines among the tests' own."""


@contextmanager
def serving(root: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """A hub on loopback that `huggingface_hub` asks, with an empty cache."""
    hub = Hub(root)
    Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    constants = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(cache),
    }
    for name, value in constants.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
