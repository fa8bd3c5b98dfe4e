"""What a recording says now is what the session did, while it does it; the page is for this machine and reads alone."""

from __future__ import annotations

import http.client
import io
import itertools
import json
import re
import socket
import struct
import threading
import time

import numpy as np
import pytest

import vlacompile as vc
from tests.samples import recorded_robot as robot
from vlacompile.view.live import Live
from vlacompile.view.png import png
from vlacompile.view.server import ADDRESS, MOST_CLIENTS, panel, serving
from vlart.bundle.directory import PLAN_FILE, read_bundle
from vlart.recording.growing import PROBES
from vlart.runtime.recorder import Recorder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return read_bundle(robot.built(tmp_path_factory.mktemp("view")))


@pytest.fixture
def log(tmp_path):
    return tmp_path / "run.vlog"


def recorded(bundle, log, replans: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the last chunk, all executed actions, the last picture) of a session that is recorded."""
    recorder, rng, executed = Recorder(log, flush_ms=1), np.random.default_rng(seed), []
    with vc.Session(bundle.path, record=recorder) as session:
        session.write(robot.TOKENS, robot.tokens(1))
        for _ in range(replans):
            seen = robot.observation(rng)
            for name, array in seen.items():
                session.write(name, array)
            session.step()
            executed += [session.pop() for _ in range(robot.EXECUTE)]
        chunk = session.read("action").copy()
    recorder.close()
    return chunk.reshape(robot.H, robot.DIM), np.stack(executed), seen[robot.CAMERA][0]


def test_it_says_what_the_session_did(bundle, log):
    chunk, executed, picture = recorded(bundle, log, 5)
    live = Live(log, bundle)
    state = live.read()
    assert state["problem"] == "" and state["replans"] == 5 and state["status"] == "OK" and state["lost"] == 0
    np.testing.assert_array_equal(np.float32(state["chunk"]["values"]), chunk)
    np.testing.assert_array_equal(np.float32(state["executed"]["values"]), executed)
    assert [s["stage"] for s in state["stages"]] == [s.name for s in bundle.plan.stages]
    runs = {s["stage"]: (s["runs"], s["ran"]) for s in state["stages"]}
    assert (1, False) in runs.values() and (5, True) in runs.values()  # of the instruction's stage, and of others
    assert state["queue"] == {"remaining": robot.EXECUTE, "chunks": 5, "steps": robot.H, "execute": robot.EXECUTE}
    np.testing.assert_array_equal(live.picture(robot.CAMERA), picture)
    assert live.picture("nobody") is None and list(state["cameras"]) == [robot.CAMERA]
    json.dumps(state, allow_nan=False)


def test_it_follows_while_the_recording_is_written(bundle, log):
    live, recorder, rng = Live(log, bundle), Recorder(log, flush_ms=1), np.random.default_rng(0)
    assert "waiting" in live.read()["problem"]
    with vc.Session(bundle.path, record=recorder) as session:
        session.write(robot.TOKENS, robot.tokens(1))
        found = []
        for _ in range(3):
            for name, array in robot.observation(rng).items():
                session.write(name, array)
            session.step()
            found.append(_until(live, len(found) + 1))
    recorder.close()
    assert [s["queue"]["chunks"] for s in found] == [1, 2, 3]
    assert found[0]["cameras"][robot.CAMERA] < found[2]["cameras"][robot.CAMERA]


def _until(live: Live, replans: int) -> dict:
    until = time.monotonic() + 20
    while (state := live.read())["replans"] != replans:
        assert time.monotonic() < until, state
        time.sleep(0.02)
    return state


def test_another_recording_at_the_same_place_begins_anew(bundle, log):
    recorded(bundle, log, 4)
    live = Live(log, bundle)
    assert live.read()["replans"] == 4
    log.unlink()
    chunk, _, _ = recorded(bundle, log, 2, seed=1)
    state = _until(live, 2)
    np.testing.assert_array_equal(np.float32(state["chunk"]["values"]), chunk)


def test_a_recording_of_another_bundle_and_what_is_none_are_told(bundle, log, tmp_path):
    other = read_bundle(robot.built(tmp_path, gain=2.0))
    recorded(other, log, 1)
    state = Live(log, bundle).read()
    assert "another bundle" in state["problem"] and state["replans"] == 0
    log.unlink()
    log.write_bytes(b"no recording" * 1000)
    assert Live(log, bundle).read()["problem"]


# The page

def _get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


@pytest.fixture
def served(bundle, log):
    recorded(bundle, log, 2)
    with serving(f"<html>{panel()}</html>", Live(log, bundle)) as server:
        yield server.server_address[1]


def test_page_state_and_cameras_are_served(served):
    status, headers, body = _get(served, "/")
    assert status == 200 and b'id="live"' in body and headers["cache-control"] == "no-store"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "'sha256-" in policy
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", body.decode())  # it asks nobody else
    status, _, body = _get(served, "/state.json")
    assert status == 200 and json.loads(body)["replans"] == 2
    status, headers, body = _get(served, f"/camera/{robot.CAMERA}")
    assert status == 200 and headers["content-type"] == "image/png" and body.startswith(b"\x89PNG")


@pytest.mark.parametrize("path", ["/camera/none", "/camera/../../etc/passwd", "/etc/passwd", "/state", "/%2e%2e/x",
                                  "/camera/%ff%00", "/%zz", "*"])
def test_nothing_else_is_there(served, path):
    assert _get(served, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_only_reads(served, method):
    assert _get(served, "/", method)[0] == 501


@pytest.mark.parametrize("host", ["example.com", "example.com:80", "127.0.0.1.example.com", "", "localhost:evil.com",
                                  "evil@localhost", "localhost.", "localhost:1:2", "0.0.0.0", "[::1", " "])
def test_a_page_of_elsewhere_is_refused(served, host):
    assert _get(served, "/state.json", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1234", "[::1]:80", "[::1]", "LOCALHOST:8799"])
def test_this_machines_names_are_taken(served, host):
    assert _get(served, "/state.json", Host=host)[0] == 200


def _raw(port: int, request: bytes) -> bytes:
    with socket.create_connection((ADDRESS, port), timeout=20) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("path", [b"http://[/", b"http://example.com/state.json", b"http://localhost/state.json"])
def test_an_address_with_a_host_is_not_there(served, path):
    """A proxy's way to ask; the host's name in it is looked at by nobody."""
    assert b" 404 " in _raw(served, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_two_hosts_are_none(served):
    assert b" 403 " in _raw(served, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: example.com\r\n\r\n")


def test_many_clients_are_bounded():
    """One too many is told so, and the page is there again when they have gone."""
    ask = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving("<html></html>", None, patience_s=60) as server:
        port, threads = server.server_address[1], threading.active_count()
        waiting = [socket.create_connection((ADDRESS, port)) for _ in range(MOST_CLIENTS)]
        assert b" 503 " in _raw(port, ask) and threading.active_count() <= threads + MOST_CLIENTS
        for client in waiting:
            client.close()
        until = time.monotonic() + 60
        while b" 200 " not in (answer := _raw(port, ask)):
            assert b" 503 " in answer and time.monotonic() < until
            time.sleep(0.1)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: local"])
def test_a_client_that_says_nothing_more_is_dropped(said):
    with serving("<html></html>", None, patience_s=0.2) as server:
        assert _raw(server.server_address[1], said) == b""


def test_clients_that_leave_cost_no_traceback(served, capfd):
    reset = struct.pack("ii", 1, 0)  # no goodbye
    for request in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HT", b"\x16\x03\x01" * 9, b""):
        for _ in range(5):
            client = socket.create_connection((ADDRESS, served))
            client.sendall(request)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            client.close()
    assert _get(served, "/state.json")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_recording_that_vanishes_is_said_and_what_was_read_stays(bundle, log):
    recorded(bundle, log, 3)
    live = Live(log, bundle)
    assert live.read()["problem"] == ""
    log.rename(log.with_suffix(".gone"))
    state = _when(live, lambda s: s["problem"] != "")
    assert state["problem"] == f"waiting for {log}" and state["replans"] == 3
    log.mkdir()
    assert _when(live, lambda s: "recording" in s["problem"] or "read" in s["problem"])["replans"] == 3
    log.rmdir()
    whole = log.with_suffix(".gone").read_bytes()
    log.write_bytes(whole[: len(whole) // 3])  # cut off
    _when(live, lambda s: not s["problem"].startswith("waiting"))


def test_only_what_is_new_is_read(bundle, log):
    """However much was recorded before: a look at which nothing is new reads a few hundred bytes of the file."""
    passed = itertools.count(step=10)  # so much time that every look may read
    live, rng = Live(log, bundle, clock=lambda: float(next(passed))), np.random.default_rng(0)
    recorder = Recorder(log, flush_ms=1, mib=1)
    with vc.Session(bundle.path, record=recorder) as session:
        session.write(robot.TOKENS, robot.tokens(1))
        for replans in range(1, 41):
            for name, array in robot.observation(rng).items():
                session.write(name, array)
            session.step()
            _until(live, replans)
    recorder.close()
    for _ in range(2):
        live.read()
    written, head = recorder.info().blocks * 4096, len((bundle.path / PLAN_FILE).read_bytes()) + 4096
    looks, before = 20, live.read_bytes
    assert before < 3 * (written + head) + 200 * (2048 + 80 * PROBES)
    for _ in range(looks):
        live.read()
    assert live.read_bytes - before < looks * 2048


@pytest.mark.parametrize("jump_s", [-3600, 3600, -50 * 365 * 86400])
def test_a_wall_clock_that_jumps_makes_nothing_old_or_new(bundle, log, monkeypatch, jump_s):
    """The page says how old the newest event is by what it has seen come, not by a clock that somebody sets."""
    idle_s, wall, rng = [0.0], time.time_ns, np.random.default_rng(0)
    live = Live(log, bundle, clock=lambda: time.monotonic() + idle_s[0])
    with vc.Session(bundle.path, record=Recorder(log, flush_ms=1)) as session:
        session.write(robot.TOKENS, robot.tokens(1))
        for replans in (1, 2):
            for name, array in robot.observation(rng).items():
                session.write(name, array)
            session.step()
            assert _until(live, replans)["age_s"] < 20
            monkeypatch.setattr(time, "time_ns", lambda: wall() + jump_s * 10**9)
        idle_s[0] = 100.0  # nothing came for so long
        assert 100 <= live.read()["age_s"] < 120
        session.recorder.close()


def test_a_recording_that_is_cut_off_is_told(bundle, log):
    recorded(bundle, log, 2)
    whole = log.read_bytes()
    log.write_bytes(whole[:-5000])
    state = Live(log, bundle).read()
    assert "cut off: 5000 bytes" in state["problem"] and state["replans"] == 2


def _when(live: Live, true) -> dict:
    until = time.monotonic() + 20
    while not true(state := live.read()):
        assert time.monotonic() < until, state
        time.sleep(0.02)
    return state


def test_whatever_a_recording_holds_the_page_says_something(bundle, log):
    recorded(bundle, log, 3)
    whole, rng = log.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, damaged.size, 20)] = rng.integers(0, 256, 20)
        log.write_bytes(damaged.tobytes())
        json.dumps(Live(log, bundle).read(), allow_nan=False)


def test_without_a_recording_there_is_a_page_alone():
    with serving("<html></html>", None) as server:
        port = server.server_address[1]
        assert _get(port, "/")[0] == 200 and _get(port, "/state.json")[0] == 404


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (128, 96)])
def test_pictures_come_back(size):
    image = pytest.importorskip("PIL.Image", reason="pip install 'vlacompile[dataset]'")
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    np.testing.assert_array_equal(np.array(image.open(io.BytesIO(png(picture)))), picture)
