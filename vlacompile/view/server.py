"""The page of a bundle on this machine's own address, with what its recording says now. It answers GET and nothing
else, to programs of this machine alone, and changes nothing."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from urllib.parse import unquote, urlsplit

from vlacompile.view.live import Live
from vlacompile.view.png import png

ADDRESS = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost", "[::1]")
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
STATE, CAMERA = "/state.json", "/camera/"


def panel() -> str:
    """The part of the page that shows what runs now."""
    return files("vlacompile.view").joinpath("live.html").read_text(encoding="utf-8")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, page: str, live: Live | None):
        self.page, self.live, self.turn = page.encode(), live, threading.Lock()
        scripts = (b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in SCRIPT.findall(page))
        self.policy = ("default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; script-src "
                       + (" ".join(f"'sha256-{s}'" for s in scripts) or "'none'"))
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "vlacompile", ""

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in HOSTS:  # a page of elsewhere whose name was made to lead here
            return self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for this machine\n")
        path = unquote(urlsplit(self.path).path)
        live = self.server.live
        if path == "/":
            return self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
        if live is not None and path == STATE:
            with self.server.turn:
                document = live.read()
            return self._answer(HTTPStatus.OK, "application/json", json.dumps(document, allow_nan=False).encode())
        if live is not None and path.startswith(CAMERA):
            with self.server.turn:
                picture = live.picture(path.removeprefix(CAMERA))
            if picture is not None:
                return self._answer(HTTPStatus.OK, "image/png", png(picture))
        return self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"not here\n")

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
                            ("Content-Security-Policy", self.server.policy), ("X-Content-Type-Options", "nosniff"),
                            ("Referrer-Policy", "no-referrer")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(page: str, live: Live | None, port: int = 0) -> Iterator[_Server]:
    """A server that answers in threads of its own; port 0: any free one. Raises OSError where the port is taken."""
    server = _Server(port, page, live)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
