"""Clients of the websocket server: openpi's own, and one that says anything."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

import vlacompile as vc

msgpack = pytest.importorskip("msgpack", reason="the server needs it: pip install 'vlacompile[serve]'")
pytest.importorskip("websockets", reason="the server needs it: pip install 'vlacompile[serve]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:openpi_client")

from websockets.sync.client import connect

from vlart.serve.messages import unpack


@contextlib.contextmanager
def openpi(place, **options):
    """The real client, from the package openpi-client."""
    package = pytest.importorskip("openpi_client.websocket_client_policy",
                                  reason="openpi's client: pip install --no-deps openpi-client==0.1.2")
    client = package.WebsocketClientPolicy(*place, **options)
    try:
        yield client
    finally:
        client._ws.close()  # it has no way of its own


@contextlib.contextmanager
def raw(place, **options):
    """A websocket whose first message was read."""
    with connect(f"ws://127.0.0.1:{place[1]}", compression=None, max_size=None, **options) as socket_:
        socket_.metadata = unpack(socket_.recv())
        yield socket_


def url(place, path: str) -> str:
    return f"http://127.0.0.1:{place[1]}{path}"


def wait_for(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@contextlib.contextmanager
def held():
    """Every session waits inside its step until the block ends."""
    release, entered, step = threading.Event(), threading.Event(), vc.Session.step

    def slow(session):
        entered.set()
        assert release.wait(20)
        step(session)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vc.Session, "step", slow)
        try:
            yield entered, release
        finally:
            release.set()


def handshaken(place) -> socket.socket:
    """A websocket by hand, whose client never answers a ping and never reads."""
    raw_socket = socket.socket()
    raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw_socket.connect(tuple(place))
    raw_socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    assert raw_socket.recv(12) == b"HTTP/1.1 101"
    return raw_socket
