"""The page of a bundle on this machine's own address, with what its recording says now. It answers GET and nothing
else, to programs of this machine alone, and changes nothing."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from vlacompile.view.live import Live
from vlacompile.view.png import png

ADDRESS = "127.0.0.1"
HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]*)?", re.IGNORECASE)  # and its port
PATIENCE_S = 10  # that a client may keep its thread waiting
MOST_CLIENTS = 32  # at a time
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
STATE, CAMERA = "/state.json", "/camera/"


def panel() -> str:
    """The part of the page that shows what runs now."""
    return files("vlacompile.view").joinpath("live.html").read_text(encoding="utf-8")


class _Server(ThreadingHTTPServer):
    """Answers in threads, of as many clients at a time as there may be; one too many is told so."""

    daemon_threads = True

    def __init__(self, port: int, page: str, live: Live | None, patience_s: float):
        self.patience_s = patience_s
        self.page, self.live, self.turn = page.encode(), live, threading.Lock()
        scripts = (b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in SCRIPT.findall(page))
        self.policy = ("default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; script-src "
                       + (" ".join(f"'sha256-{s}'" for s in scripts) or "'none'"))
        self._room = threading.BoundedSemaphore(MOST_CLIENTS)
        super().__init__((ADDRESS, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.setblocking(False)
            request.send(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\n\r\ntoo many clients\n")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or waits too long, is nobody's fault here."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "vlacompile", ""

    def setup(self) -> None:
        self.timeout = self.server.patience_s
        super().setup()

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):  # a page of elsewhere whose name was made to lead here
            return self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for this machine\n")
        path = unquote(self.path.partition("?")[0])
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
def serving(page: str, live: Live | None, port: int = 0, patience_s: float = PATIENCE_S) -> Iterator[_Server]:
    """A server that answers in threads of its own; port 0: any free one. patience_s: that a client may keep one for.
    Raises OSError where the port is taken."""
    server = _Server(port, page, live, patience_s)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
