"""What the websocket server refuses, ends and waits for: too many clients, a full queue, clients that leave or hang."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vlacompile as vc
from tests.samples import policies
from tests.serve.serving import KEY, episode_of, in_process, sampling, websocket_server

msgpack = pytest.importorskip("msgpack", reason="the server needs it: pip install 'vlacompile[serve]'")
pytest.importorskip("websockets", reason="the server needs it: pip install 'vlacompile[serve]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:openpi_client")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.serve.websocket_clients import handshaken, held, raw, wait_for
from vlart.serve.messages import pack, unpack


def test_too_many_clients(late_fusion_bundle):
    with websocket_server(late_fusion_bundle, limits={"clients": 2}) as running:
        with raw(running.place), raw(running.place):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://127.0.0.1:{running.place[1]}")
            assert refused.value.response.status_code == 503
        wait_for(lambda: running.host.metrics.value("clients") == 0)
        with raw(running.place) as socket_:
            assert socket_.metadata["policy"] == "late_fusion"


def test_everybody_has_a_place_in_the_queue(late_fusion_bundle):
    observations = episode_of(policies.late_fusion(), 6)
    want = in_process(late_fusion_bundle, observations)
    with websocket_server(late_fusion_bundle) as running, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(raw(running.place)) for _ in range(6)]
        with held() as (entered, _):
            sockets[0].send(pack(observations[0]))
            assert entered.wait(10)
            for i in range(1, 6):
                sockets[i].send(pack(observations[i]))
                wait_for(lambda n=i: running.host.metrics.value("queue") == n)
        for socket_, chunk in zip(sockets, want, strict=True):
            assert np.array_equal(unpack(socket_.recv(10))["actions"], chunk)
        assert running.host.metrics.value("requests", "superseded") == 0


def test_a_newer_observation_takes_the_turn_of_the_one_that_waits(late_fusion_bundle):
    """Each is answered, in order: the one that is computed, those that were superseded, and the newest."""
    observations = episode_of(policies.late_fusion(), 5)
    want = in_process(late_fusion_bundle, observations)
    with websocket_server(late_fusion_bundle) as running, raw(running.place) as robot, raw(running.place) as other:
        submit, submitted = running.host.submit, []
        running.host.submit = lambda *given, **named: (submit(*given, **named), submitted.append(1))[0]
        with held() as (entered, _):
            robot.send(pack(observations[0] | {"observation_id": 0}))
            assert entered.wait(10)
            other.send(pack(observations[4]))
            wait_for(lambda: running.host.metrics.value("queue") == 1)
            for i in (1, 2, 3):
                # the instruction comes with one that is superseded, and holds for the next
                robot.send(pack({n: a for n, a in observations[i].items() if i == 1 or "language" not in n}
                                | {"observation_id": i}))
            wait_for(lambda: running.host.metrics.value("queue") == 2)
            wait_for(lambda: len(submitted) == 5)  # all that was sent is in the queue, or has left it for a newer one
        first = unpack(robot.recv(10))
        assert first["observation_id"] == 0 and np.array_equal(first["actions"], want[0])
        for _ in (1, 2):
            assert "superseded" in robot.recv(10)
        last = unpack(robot.recv(10))
        assert last["observation_id"] == 3 and np.array_equal(last["actions"], want[3])
        assert np.array_equal(unpack(other.recv(10))["actions"], want[4])
        assert running.host.metrics.value("requests", "superseded") == 2
        assert running.host.metrics.value("requests", "ok") == 3


def test_ending_answers_what_is_being_answered(late_fusion_bundle):
    observation = episode_of(policies.late_fusion(), 1)[0]
    with websocket_server(late_fusion_bundle) as running, raw(running.place) as busy, raw(running.place) as idle:
        with held() as (entered, release):
            busy.send(pack(observation))
            assert entered.wait(10)
            closing = running.loop.start(running.server.close())
            with pytest.raises(ConnectionClosed) as closed:
                idle.recv(10)
            assert closed.value.rcvd.code == 1001 and not closing.done()
            with pytest.raises(OSError):
                connect(f"ws://127.0.0.1:{running.place[1]}", open_timeout=2)
            release.set()
        assert np.array_equal(unpack(busy.recv(10))["actions"], in_process(late_fusion_bundle, [observation])[0])
        with pytest.raises(ConnectionClosed):
            busy.recv(10)
        closing.result(10)
        assert running.host.stop(10) and not running.host.healthy()
        running.ended = True


def test_a_client_that_leaves_while_it_waits(late_fusion_bundle):
    observation = pack(episode_of(policies.late_fusion(), 1)[0])
    with websocket_server(late_fusion_bundle) as running, raw(running.place) as stays:
        with held() as (entered, _):
            with raw(running.place) as leaves:
                leaves.send(observation)
                assert entered.wait(10)
            stays.send(observation)
        assert unpack(stays.recv(10))["actions"].shape == (10, 7)
        wait_for(lambda: running.host.metrics.value("clients") == 1)


def test_idle_and_half_open_connections_are_closed(late_fusion_bundle):
    limits = {"idle_s": 0.3, "handshake_s": 0.3, "ping_s": 0.2, "send_s": 0.3}
    with websocket_server(late_fusion_bundle, limits=limits) as running:
        with raw(running.place) as idle, pytest.raises(ConnectionClosed) as closed:
            idle.recv(10)
        assert closed.value.rcvd.code == 1001 and "no message" in closed.value.rcvd.reason
        with socket.create_connection(running.place) as silent:  # never asks for anything
            silent.settimeout(10)
            while silent.recv(1000):  # an answer, or none; then the end
                pass
        with handshaken(running.place) as dead:  # opened, then as if its cable were cut: no answer to a ping
            wait_for(lambda: running.host.metrics.value("clients") == 0)
            dead.settimeout(10)
            while dead.recv(65536):
                pass
        with handshaken(running.place) as half:  # the header of a frame, then nothing
            half.sendall(b"\x82\xff" + struct.pack("!Q", 1000) + b"mask" + b"0" * 10)
            wait_for(lambda: running.host.metrics.value("clients") == 1)
            wait_for(lambda: running.host.metrics.value("clients") == 0)
        assert running.host.healthy()


def test_a_client_that_does_not_read_is_cut_off_and_others_are_served(tmp_path):
    bundle = vc.build(sampling(steps=20_000), out=tmp_path / "long.vlab")  # answers of half a megabyte
    observation = pack({"state": np.zeros((1, 9), np.float32)})
    frame = b"\x82\xfe" + struct.pack("!H", len(observation)) + bytes(4) + observation  # a mask of zeros
    with websocket_server(bundle, noise="normal", limits={"send_s": 0.3}) as running, raw(running.place) as other:
        with handshaken(running.place) as slow:
            with contextlib.suppress(ConnectionError):  # cut off while it sends
                for _ in range(100):
                    slow.sendall(frame)
            wait_for(lambda: running.host.metrics.value("connections", "slow") == 1)
            other.send(observation)
            assert unpack(other.recv(10))["actions"].shape == (20_000, 7)
        wait_for(lambda: running.host.metrics.value("clients") == 1)


def test_a_client_that_pings_and_never_reads_is_cut_off(late_fusion_bundle):
    """Pings are answered by themselves: the answers must not pile up for a client that does not read them."""
    pings = (b"\x89\xfd" + bytes(4) + bytes(125)) * 1000
    observation = pack(episode_of(policies.late_fusion(), 1)[0])
    with websocket_server(late_fusion_bundle) as running, raw(running.place) as other:
        with handshaken(running.place) as flood:
            sent = 0
            flood.settimeout(10)
            with pytest.raises(ConnectionError):
                while sent < 1 << 26:
                    flood.sendall(pings)
                    sent += len(pings)
            assert sent < 1 << 24  # what the system keeps of a socket, and a megabyte
        wait_for(lambda: running.host.metrics.value("connections", "slow") == 1)
        wait_for(lambda: running.host.metrics.value("clients") == 1)
        other.send(observation)
        assert unpack(other.recv(10))["actions"].shape == (10, 7)


def test_a_client_that_pings_and_reads_is_answered(late_fusion_bundle):
    with websocket_server(late_fusion_bundle) as running, raw(running.place) as client:
        for _ in range(20_000):
            waiter = client.ping()
        assert waiter.wait(20)
        assert running.host.metrics.value("connections", "slow") == 0


def test_the_verb_serves_says_where_and_ends_on_a_signal(late_fusion_bundle, tmp_path):
    (tmp_path / "key").write_text(KEY)
    process = subprocess.Popen(
        [sys.executable, "-m", "vlacompile.cli.main", "serve", late_fusion_bundle.path, "--port", "0", "--json",
         "--threads", "1", "--api-key-file", tmp_path / "key"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = json.loads(process.stdout.readline())
        assert said["policy"] == "late_fusion" and said["protocol"] == "openpi"
        place = ("127.0.0.1", int(said["url"].rsplit(":", 1)[1]))
        assert KEY not in " ".join(Path(f"/proc/{process.pid}/cmdline").read_text().split("\0"))
        with raw(place, additional_headers={"Authorization": f"Api-Key {KEY}"}) as socket_:
            observation = episode_of(policies.late_fusion(), 1)[0]
            socket_.send(pack(observation))
            assert np.array_equal(unpack(socket_.recv())["actions"], in_process(late_fusion_bundle, [observation])[0])
            process.terminate()
            with pytest.raises(ConnectionClosed) as closed:
                socket_.recv(10)
            assert closed.value.rcvd.code == 1001
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0 and "stopped" in err and KEY not in out + err
    finally:
        process.kill()
        process.communicate()
