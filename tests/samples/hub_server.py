"""A server of the Hugging Face Hub's protocol, as far as huggingface_hub downloads by it, with the faults of real ones.

Repositories are made of dicts of files; each `commit` is a new one, and branches move. Must not know vlacompile.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = ".safetensors"  # files of this kind are stored apart, under their SHA-256


@dataclass
class Repository:
    """commits: {40 hex digits: {file: bytes}}. branches: {name: commit}. token: who gives it may read; None: everybody.
    gated: those who may read the listing may not read files without a token that is in `accepted`."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False
    accepted: set[str] = field(default_factory=set)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    """repositories: {"org/name": Repository}. cuts: {file: bytes after which a response of it ends, per response};
    instead: {file: what is sent instead of its content}. status: of every answer, if not None. served: (method, path,
    first byte) of every request."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    instead: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None
    served: list[tuple[str, str, int]] = field(default_factory=list)
    endpoint: str = ""

    def repository(self, name: str, files: dict[str, bytes], **options) -> Repository:
        self.repositories[name] = Repository(**options)
        self.repositories[name].commit(files)
        return self.repositories[name]

    def downloads(self) -> list[str]:
        """Names of the files of which content was asked for, in order."""
        return [path.split("/resolve/")[1].partition("/")[2] for method, path, _ in self.served
                if method == "GET" and "/resolve/" in path]


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A Hub on a free port of this machine, until the context ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def asked(monkeypatch, folder: Path) -> Iterator[Hub]:
    """The same, asked by this process's huggingface_hub: without a token, online, with its cache in the folder."""
    from huggingface_hub import constants, file_download

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between huggingface_hub's attempts
    with serving() as hub:
        for name, value in {
            "ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(folder / "cache"),
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_TOKEN_PATH": str(folder / "token"), "HF_STORED_TOKENS_PATH": str(folder / "tokens"),
        }.items():
            monkeypatch.setattr(constants, name, value)
            if hasattr(file_download, name):  # before huggingface_hub 1.0
                monkeypatch.setattr(file_download, name, value)
        yield hub


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        """Nothing: the tests read `served`."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        first = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        self.hub.served.append((self.command, path, first))
        if self.hub.status is not None:
            self._refuse(self.hub.status)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            self._listing(found[1], found[2] or "revision", found[3] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40}|[^/]+)/(.+)", path):
            self._file(found[1], found[2], found[3], first)
        else:
            self._refuse(404)

    def _allowed(self, name: str, file: bool) -> Repository | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        repository = self.hub.repositories.get(name)
        if repository is None or repository.token not in (None, token):
            self._refuse(404 if token else 401, "RepoNotFound")
            return None
        if file and repository.gated and token not in repository.accepted:
            self._refuse(403 if token else 401, "GatedRepo")
            return None
        return repository

    def _listing(self, name: str, kind: str, revision: str) -> None:
        repository = self._allowed(name, False)
        if repository is None:
            return
        sha = repository.find(revision)
        if sha is None:
            self._refuse(404, "RevisionNotFound")
            return
        rows = []
        for file, content in repository.commits[sha].items():
            row = {"rfilename": file, "size": len(content), "blobId": _git_sha1(content)}
            if kind == "tree":
                row = {"type": "file", "path": file, "size": len(content), "oid": _git_sha1(content)}
            if file.endswith(LARGE):
                digest = hashlib.sha256(content).hexdigest()
                row["lfs"] = {("oid" if kind == "tree" else "sha256"): digest, "size": len(content), "pointerSize": 134}
            rows.append(row)
        self._send(200, json.dumps(rows if kind == "tree" else {"id": name, "sha": sha, "siblings": rows}).encode(),
                   {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str, first: int) -> None:
        repository = self._allowed(name, True)
        sha = repository and repository.find(revision)
        if not sha or repository is None:
            if repository is not None:
                self._refuse(404, "RevisionNotFound")
            return
        content = repository.commits[sha].get(file)
        if content is None:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": sha})
            return
        etag = hashlib.sha256(content).hexdigest() if file.endswith(LARGE) else _git_sha1(content)
        content = self.hub.instead.get(file, content)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        cuts = self.hub.cuts.get(file, []) if self.command == "GET" else []
        self._send(206 if first else 200, content[first:], headers, cuts.pop(0) if cuts else None)

    def _refuse(self, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"} | (headers or {}))

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        """cut: bytes of the body after which the connection ends."""
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
