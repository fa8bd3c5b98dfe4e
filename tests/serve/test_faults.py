"""Faults that single requests do not show: many half-open connections, floods of nonsense, a session that dies, a queue
that is full over gRPC; what a server holds afterwards is what it held before."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vlacompile as vc
from tests.samples import policies
from tests.serve.serving import episode_of, in_process, websocket_server
from vlart.serve.observations import Intake
from vlart.serve.refusal import Refusal

pytest.importorskip("msgpack", reason="the server needs it: pip install 'vlacompile[serve]'")
pytest.importorskip("websockets", reason="the server needs it: pip install 'vlacompile[serve]'")

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from vlart.serve.messages import pack, unpack
from vlart.serve.websocket import OPENING


@pytest.fixture(scope="module")
def bundle(late_fusion_bundle) -> vc.Bundle:
    return late_fusion_bundle


@pytest.fixture(scope="module")
def observation() -> dict[str, np.ndarray]:
    return episode_of(policies.late_fusion(), 1)[0]


def url(place, path: str) -> str:
    return f"http://127.0.0.1:{place[1]}{path}"


def answered(place, observation) -> np.ndarray:
    with connect(f"ws://127.0.0.1:{place[1]}", compression=None, max_size=None) as socket_:
        socket_.recv()
        socket_.send(pack(observation))
        return unpack(socket_.recv(20))["actions"]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def settles(condition, seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_hundred_half_open_connections_do_not_keep_a_robot_out(bundle, observation):
    """None of them ever finishes its opening; they count as no clients and are closed in time."""
    want = in_process(bundle, [observation])[0]
    beginnings = (b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHost")
    with websocket_server(bundle, limits={"clients": 2, "handshake_s": 1.0}) as running:
        before = descriptors()
        with contextlib.ExitStack() as stack:
            for i in range(100):
                silent = stack.enter_context(socket.create_connection(running.place))
                silent.sendall(beginnings[i % 4])
            assert np.array_equal(answered(running.place, observation), want)
            assert settles(lambda: descriptors() <= before + 105)  # the server's ends are closed, ours are still open
        assert settles(lambda: descriptors() <= before + 2)
        assert running.host.healthy() and running.host.metrics.value("clients") == 0


def test_half_open_connections_are_as_many_as_may(bundle, observation):
    """More than may be open at a time, for as long as one likes: the oldest end, and a robot always finds room."""
    with websocket_server(bundle, limits={"handshake_s": 60.0}) as running, contextlib.ExitStack() as stack:
        before = descriptors()
        for _ in range(2 * OPENING):
            stack.enter_context(socket.create_connection(running.place))
        answered(running.place, observation)
        assert settles(lambda: descriptors() <= before + 3 * OPENING + 5), "ours, and the server's half of them"
        assert running.host.healthy()
        for _ in range(3 * OPENING):  # those that open and are refused, or are done, are none of them
            urllib.request.urlopen(url(running.place, "/healthz")).close()
        assert np.array_equal(answered(running.place, observation), in_process(bundle, [observation])[0])


def test_what_a_server_holds_after_a_flood_of_nonsense(bundle, observation):
    """Malformed, oversize and cut-off connections, in turn: no descriptor, thread or client stays."""
    want, good = in_process(bundle, [observation])[0], pack(observation)
    with websocket_server(bundle) as running:
        answered(running.place, observation)
        descriptors_before, threads_before = descriptors(), threading.active_count()
        for i in range(60):
            with (contextlib.suppress(ConnectionClosed, ConnectionError),
                  connect(f"ws://127.0.0.1:{running.place[1]}", compression=None, max_size=None) as socket_):
                socket_.recv()
                socket_.send((b"\xc1" * 50, bytes(5_000_000), good[:-5], "text")[i % 4])
                if i % 8 < 4:
                    socket_.recv(10)
                else:
                    socket_.socket.close()  # without a word
        assert settles(lambda: running.host.metrics.value("clients") == 0)
        assert settles(lambda: descriptors() <= descriptors_before + 3), "descriptors are left"
        assert settles(lambda: threading.active_count() <= threads_before + 1), "threads are left"
        assert np.array_equal(answered(running.place, observation), want)
        assert running.host.metrics.value("requests", "malformed") >= 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_session_that_dies_is_told_to_everybody(bundle, observation, monkeypatch):
    """A mistake of ours in the session's thread: who waits is refused, who asks is refused, health says 503."""
    with websocket_server(bundle) as running, contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(connect(f"ws://127.0.0.1:{running.place[1]}", compression=None,
                                                     max_size=None))
                         for _ in range(2))
        first.recv(), second.recv()
        entered, release = threading.Event(), threading.Event()

        def broken(session):
            entered.set()
            assert release.wait(20)
            raise ZeroDivisionError("a mistake")

        monkeypatch.setattr(vc.Session, "step", broken)
        first.send(pack(observation))
        assert entered.wait(10)
        second.send(pack(observation))
        assert settles(lambda: running.host.metrics.value("queue") == 1)
        release.set()
        assert "the server is stopping" in first.recv(10) and "its session failed" in second.recv(10)
        assert settles(lambda: not running.host.healthy())
        with pytest.raises(urllib.error.HTTPError, match="503") as unwell:
            urllib.request.urlopen(url(running.place, "/healthz"))
        unwell.value.close()
        second.send(pack(observation))
        assert "the server is stopping" in second.recv(10)


def test_everybody_has_a_place_in_the_queue_over_grpc(bundle, monkeypatch):
    pytest.importorskip("grpc", reason="the server needs it: pip install 'vlacompile[serve]'")
    from tests.serve.grpc_running import grpc_server
    from tests.serve.test_grpc_service import as_robot, episode, robot

    known = vc.build(_without_instruction(), out=bundle.path.with_name("known.vlab"))
    frame = episode(1)[0]
    with grpc_server(known) as running, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(robot(running)) for _ in range(3)]
        for client in clients:
            client.ready()
            client.send(as_robot(frame))
        entered, release, step = threading.Event(), threading.Event(), vc.Session.step

        def slow(session):
            entered.set()
            assert release.wait(20)
            step(session)

        monkeypatch.setattr(vc.Session, "step", slow)
        got: list = []
        threads = []
        for number, client in enumerate(clients):
            threads.append(threading.Thread(target=lambda c=client: got.append(c.get())))
            threads[-1].start()
            assert entered.wait(10)
            assert settles(lambda n=number: running.host.metrics.value("queue") == n)
        release.set()
        [t.join(20) for t in threads]
        assert len(got) == 3 and all(len(actions) == 10 for actions in got)
        clients[2].send(as_robot(frame))
        clients[2].send(as_robot(frame))  # of two, the newest is asked for
        assert len(clients[2].get()) == 10
        assert running.host.metrics.value("requests", "superseded") == 1


def _without_instruction() -> vc.Policy:
    whole = policies.late_fusion()
    sources = {n: vc.Source("static") if "language" in n else s for n, s in whole.sources.items()}
    return vc.Policy("late_fusion", whole.observe, sources, whole.example_inputs)


def test_a_grpc_port_takes_no_nonsense(bundle):
    """Bytes of another protocol, half a preface and silence: a robot is served beside them."""
    pytest.importorskip("grpc", reason="the server needs it: pip install 'vlacompile[serve]'")
    from tests.serve.grpc_running import grpc_server
    from tests.serve.test_grpc_service import as_robot, episode, robot

    known = vc.build(_without_instruction(), out=bundle.path.with_name("known2.vlab"))
    with grpc_server(known) as running, contextlib.ExitStack() as stack:
        place = ("127.0.0.1", running.place[1])
        for beginning in (b"", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\n\r\n", os.urandom(2000)) * 5:
            silent = stack.enter_context(socket.create_connection(place))
            with contextlib.suppress(ConnectionError):
                silent.sendall(beginning)
        with robot(running) as client:
            client.ready()
            client.send(as_robot(episode(1)[0]))
            assert len(client.get()) == 10 and running.host.healthy()


def test_health_and_metrics_beside_grpc(bundle, tmp_path):
    """The verb's --http-port: health for everybody, metrics for those with the key, no websocket."""
    import json
    import subprocess
    import sys

    pytest.importorskip("grpc", reason="the server needs it: pip install 'vlacompile[serve]'")
    (tmp_path / "key").write_text("a-key-of-some-length")
    command = [sys.executable, "-m", "vlacompile.cli.main", "serve", bundle.path, "--protocol", "lerobot",
               "--port", "0",
               "--http-port", "0", "--api-key-file", tmp_path / "key", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        base = json.loads(process.stdout.readline())["http_url"]
        assert urllib.request.urlopen(f"{base}/healthz").read() == b"ok\n"
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(f"{base}/metrics")
        refused.value.close()
        keyed = {"Authorization": "Bearer a-key-of-some-length"}
        text = urllib.request.urlopen(urllib.request.Request(f"{base}/metrics", headers=keyed)).read().decode()
        assert "vlacompile_sessions 1" in text and 'outcome="wrong_key"} 1' in text
        with pytest.raises(urllib.error.HTTPError, match="404") as absent:
            urllib.request.urlopen(urllib.request.Request(f"{base}/", headers=keyed))
        absent.value.close()
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stdout.close()


leaves = (st.none() | st.booleans() | st.integers(-2**63, 2**63) | st.floats() | st.text(max_size=20)
          | st.binary(max_size=40))
plain = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
    st.text(max_size=8) | st.integers(), inner, max_size=4), max_leaves=12)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data):
    try:
        unpack(data)
    except Refusal as refusal:
        assert refusal.kind == "malformed"


@pytest.mark.parametrize("container", [b"\x90", b"\x80", b"\xdc\0\0", b"\xdf\0\0\0\0"])
def test_a_message_does_not_grow_in_memory(container):
    """Four million empty containers in as many bytes: 60 and more bytes each in memory, were they all made."""
    some = b"\xdd" + struct.pack(">I", 40_000) + container * 40_000
    assert len(unpack(some)) == 40_000
    message = b"\xdd" + struct.pack(">I", 100) + some * 100
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="250000 lists and dictionaries"):
            unpack(message)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(st.lists(plain, max_size=4), st.binary(max_size=70_000))
def test_all_values_of_a_message_are_counted(values, content):
    """One more than may be is refused, wherever it is; as many as may be are not."""
    import msgpack

    def count(value) -> int:
        if isinstance(value, dict):
            return 1 + sum(count(k) + count(v) for k, v in value.items())
        return 1 + sum(map(count, value)) if isinstance(value, list) else 1

    message = {"a": values, "b": content, "c": msgpack.ExtType(5, content[:300]), "d": "x" * len(content)}
    try:
        data = msgpack.packb(message)
    except OverflowError:
        return  # MessagePack has no such number
    with mock.patch("vlart.serve.messages.MAX_VALUES", count(message)):
        try:
            unpack(data)
        except Refusal as refusal:
            assert "more than" not in refusal.why
    with (mock.patch("vlart.serve.messages.MAX_VALUES", count(message) - 1),
          pytest.raises(Refusal, match="more than")):
        unpack(data)


@pytest.fixture(scope="module")
def intake(bundle) -> Intake:
    return Intake(bundle.plan)


@pytest.mark.parametrize("key", ["observation.state", "observation.images.base", "observation.language.tokens", "else"])
def test_any_value_is_an_array_of_the_plan_or_refused(intake, key):
    """Whatever a message holds: either exactly the dtype and shape that the session takes, finite, or a refusal."""

    @settings(max_examples=150, deadline=None)
    @given(plain | st.builds(np.zeros, st.lists(st.integers(0, 4), max_size=4).map(tuple),
                             st.sampled_from(["f4", "f8", "u1", "i8", "?", "f2", "M8[s]", "U3", "c8"])))
    def check(value):
        try:
            found = intake.read({key: value})
        except Refusal:
            return
        for name, array in found.items():
            source = intake.inputs[name]
            assert array.shape == source.dims and array.flags.c_contiguous
            assert array.dtype.kind not in "fc" or np.isfinite(array).all()

    check()
