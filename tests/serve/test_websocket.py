"""openpi's own client, and clients that misbehave, against the websocket server; all on the loopback interface."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

import vlacompile as vc
from tests.samples import policies
from tests.serve.serving import KEY, certify, episode_of, in_process, sampling, websocket_server
from vlart.errors import ConfigError
from vlart.serve.access import decide_access

msgpack = pytest.importorskip("msgpack", reason="the server needs it: pip install 'vlacompile[serve]'")
pytest.importorskip("websockets", reason="the server needs it: pip install 'vlacompile[serve]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:openpi_client")

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from tests.serve.websocket_clients import openpi, raw, url, wait_for
from vlart.serve.messages import pack, unpack


def test_the_real_client_gets_the_actions_of_a_session_of_ones_own(late_fusion_bundle):
    episode = episode_of(policies.late_fusion())
    want = in_process(late_fusion_bundle, episode)
    with websocket_server(late_fusion_bundle) as running, openpi(running.place) as client:
        metadata = client.get_server_metadata()
        assert metadata["action_horizon"] == 10 and metadata["action_dim"] == 7
        got = [client.infer(observation) for observation in episode]
        assert all(np.array_equal(g["actions"], w) for g, w in zip(got, want, strict=True))
        assert not np.array_equal(got[0]["actions"], got[1]["actions"])  # the episode does say something
        assert got[0]["server_timing"]["infer_ms"] > 0


def test_recorded_frames_through_the_real_client(sampling_bundle):
    """The bundle's golden frames, noise and all."""
    from vlart.bundle.directory import GOLDEN_FILE
    from vlart.verify.frames import read_frames

    frames = read_frames(sampling_bundle.path / GOLDEN_FILE)
    want = in_process(sampling_bundle, [f.writes for f in frames])
    with websocket_server(sampling_bundle) as running, openpi(running.place) as client:
        for frame, chunk in zip(frames, want, strict=True):
            assert np.array_equal(client.infer(frame.writes)["actions"], chunk)


def test_names_batches_and_dtypes_of_a_client(late_fusion_bundle):
    """Nested keys, slashes, no leading 1, f64 states, the instruction once: the same actions."""
    episode = episode_of(policies.late_fusion())
    want = in_process(late_fusion_bundle, episode)
    names = {"observation/image": "observation.images.base", "images/wrist": "observation.images.wrist"}
    server = websocket_server(late_fusion_bundle, names=names, ignored=["prompt"])
    with server as running, raw(running.place) as socket_:
        for i, (o, chunk) in enumerate(zip(episode, want, strict=True)):
            message = {"observation/image": o["observation.images.base"][0], "prompt": "pick it up",
                       "images": {"wrist": o["observation.images.wrist"]},
                       "observation/state": o["observation.state"][0].astype(np.float64)}
            if i == 0:
                message |= {k: o[k] for k in o if "language" in k}
            socket_.send(pack(message))
            assert np.array_equal(unpack(socket_.recv())["actions"], chunk)


def test_interleaved_clients_do_not_see_each_other(late_fusion_bundle):
    seeds = range(4)
    episodes = [episode_of(policies.late_fusion(), 8, seed) for seed in seeds]
    for i, episode in enumerate(episodes):
        for observation in episode:
            observation["observation.language.tokens"] = (observation["observation.language.tokens"] + i) % 50
    want = [in_process(late_fusion_bundle, e) for e in episodes]
    got: dict[int, list] = {}

    def drive(seed: int, place) -> None:
        with raw(place) as socket_:
            chunks = []
            for observation in episodes[seed]:
                socket_.send(pack(observation))
                chunks.append(unpack(socket_.recv())["actions"])
            got[seed] = chunks

    with websocket_server(late_fusion_bundle) as running:
        threads = [threading.Thread(target=drive, args=(s, running.place)) for s in seeds]
        [t.start() for t in threads]
        [t.join(20) for t in threads]
    assert all(np.array_equal(g, w) for s in seeds for g, w in zip(got[s], want[s], strict=True))


def test_a_policy_that_remembers_serves_one_client_and_begins_anew_with_the_next(tmp_path):
    bundle = vc.build(policies.remember(), out=tmp_path / "remember.vlab")
    episode = episode_of(policies.remember())
    want = in_process(bundle, episode)
    with websocket_server(bundle) as running:
        for _ in range(2):  # the second episode begins as the first
            with raw(running.place) as socket_:
                for observation, chunk in zip(episode, want, strict=True):
                    socket_.send(pack(observation))
                    assert np.array_equal(unpack(socket_.recv())["actions"], chunk)
                with connect(f"ws://127.0.0.1:{running.place[1]}") as second, pytest.raises(ConnectionClosed) as closed:
                    second.recv()
                assert closed.value.rcvd.code == 1013 and "in use" in closed.value.rcvd.reason
            wait_for(lambda: running.host.metrics.value("clients") == 0)
    assert not np.array_equal(want[0], want[1])


def test_noise_is_drawn_where_the_operator_says_so(sampling_bundle):
    observation = episode_of(sampling(), 1)[0]
    del observation["noise"]
    with websocket_server(sampling_bundle) as running, raw(running.place) as socket_:
        socket_.send(pack(observation))
        assert '"noise" is missing' in socket_.recv()
    drawn = []
    for _ in range(2):
        with websocket_server(sampling_bundle, noise="normal", seed=3) as running, raw(running.place) as socket_:
            for _ in range(2):
                socket_.send(pack(observation))
                drawn.append(unpack(socket_.recv())["actions"])
    noise = np.random.default_rng(3).standard_normal((1, 10, 7)).astype(np.float32)
    assert np.array_equal(drawn[0], in_process(sampling_bundle, [{**observation, "noise": noise}])[0])
    assert np.array_equal(drawn[0], drawn[2]) and not np.array_equal(drawn[0], drawn[1])


REFUSED = {
    "unknown key": ({"observation.images.bsae": np.zeros(1, np.uint8)}, "did you mean"),
    "wrong shape": ({"observation.state": np.zeros((1, 8), np.float32)}, "it is [1, 8], the policy expects f32[1,9]"),
    "other size": ({"observation.images.base": np.zeros((48, 64, 3), np.uint8)}, "resize the frame to 32 x 32"),
    "channels first": ({"observation.images.base": np.zeros((3, 32, 32), np.uint8)}, "channels last"),
    "float frame": ({"observation.images.base": np.zeros((32, 32, 3), np.float32)}, "before any scaling"),
    "wrong dtype": ({"observation.language.tokens": np.zeros((1, 6), np.float32)}, "it is float32"),
    "nan": ({"observation.state": np.full((1, 9), np.nan, np.float32)}, "9 of 9 numbers are not finite"),
    "infinity": ({"observation.state": np.full((1, 9), 1e300)}, "too large for float32"),
    "text": ({"prompt": "pick it up"}, "this server accepts no text"),
    "twice": ({"observation/state": np.zeros((1, 9), np.float32)}, "was sent twice"),
    "no array": ({"observation.state": None}, "it is a NoneType"),
    "missing": (None, '"observation.images.base" is missing'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_and_the_client_may_go_on(late_fusion_bundle, case):
    changed, words = REFUSED[case]
    good = episode_of(policies.late_fusion(), 1)[0]
    bad = {**good, **changed} if changed is not None else {k: v for k, v in good.items() if "base" not in k}
    with websocket_server(late_fusion_bundle) as running, raw(running.place) as socket_:
        socket_.send(pack(bad))
        answer = socket_.recv()
        assert isinstance(answer, str) and words in answer
        assert [line.split(":")[0].strip() for line in answer.splitlines()[1:]] == ["where", "why", "fix"]
        socket_.send(pack(good))
        assert np.array_equal(unpack(socket_.recv())["actions"], in_process(late_fusion_bundle, [good])[0])
        assert running.host.metrics.value("requests", "refused") == 1


ARRAY = {b"__ndarray__": True, b"data": bytes(36), b"dtype": "<f4", b"shape": [1, 9]}
MALFORMED = {
    "no messagepack": b"\xc1\xc1\xc1",
    "half a message": msgpack.packb({"a": bytes(100)})[:50],
    "more than one": msgpack.packb({}) * 2,
    "no dictionary": msgpack.packb([1, 2]),
    "a list that is not there": b"\xdd\xff\xff\xff\xff",
    "nested deeply": b"\x81\xa1a" * 500 + b"\xc0",
    "pickled objects": msgpack.packb({"a": {**ARRAY, b"dtype": "|O8"}}),
    "a record dtype": msgpack.packb({"a": {**ARRAY, b"dtype": [["x", "<f4"]]}}),
    "bytes that are too few": msgpack.packb({"a": {**ARRAY, b"shape": [1, 10]}}),
    "a huge shape": msgpack.packb({"a": {**ARRAY, b"shape": [2**40, 2**40]}}),
    "a negative shape": msgpack.packb({"a": {**ARRAY, b"shape": [-1, 9]}}),
    "half a number": msgpack.packb({"a": {b"__npgeneric__": True, b"dtype": "<f4"}}),
    "text": '{"observation.state": 1}',
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_message_ends_the_connection(late_fusion_bundle, case):
    with websocket_server(late_fusion_bundle) as running, raw(running.place) as socket_:
        socket_.send(MALFORMED[case])
        assert "where:" in socket_.recv()
        with pytest.raises(ConnectionClosed) as closed:
            socket_.recv()
        assert closed.value.rcvd.code == (1003 if case == "text" else 1007)
        assert running.host.metrics.value("requests", "malformed") == 1 and running.host.healthy()


def test_an_oversize_message_ends_the_connection(late_fusion_bundle):
    with websocket_server(late_fusion_bundle) as running:
        with raw(running.place) as socket_, pytest.raises(ConnectionClosed) as closed:
            socket_.send(bytes(20_000_000))
            socket_.recv()
        assert closed.value.rcvd.code == 1009
        wait_for(lambda: running.host.metrics.value("requests", "oversize") == 1)


def test_keys(late_fusion_bundle, key_access):
    with websocket_server(late_fusion_bundle, access=key_access) as running:
        for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": f"Basic {KEY}"},
                        {"Authorization": "Api-Key " + KEY[:-1]}):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://127.0.0.1:{running.place[1]}", additional_headers=headers)
            assert refused.value.response.status_code == 401 and KEY not in str(refused.value.response.body)
        with raw(running.place, additional_headers={"Authorization": f"Bearer {KEY}"}) as socket_:
            assert socket_.metadata["policy"] == "late_fusion"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url(running.place, "/metrics"))
        assert urllib.request.urlopen(url(running.place, "/healthz")).read() == b"ok\n"
        assert running.host.metrics.value("connections", "wrong_key") == 5
        assert KEY not in repr(key_access) and KEY not in running.host.metrics.text()


def test_a_file_without_end_is_no_key():
    with pytest.raises(ConfigError, match="it is no regular file"):
        decide_access("127.0.0.1", "/dev/zero", False, None, None)


def test_the_real_client_with_its_key(late_fusion_bundle, key_access):
    observation = episode_of(policies.late_fusion(), 1)[0]
    with websocket_server(late_fusion_bundle, access=key_access) as running:
        with pytest.raises(InvalidStatus), openpi(running.place, api_key="wrong"):
            pass
        with openpi(running.place, api_key=KEY) as client:
            got = client.infer(observation)
    assert np.array_equal(got["actions"], in_process(late_fusion_bundle, [observation])[0])


def test_tls(late_fusion_bundle, tmp_path):
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certify(certificate, key)
    access = decide_access("127.0.0.1", None, False, str(certificate), str(key))
    with websocket_server(late_fusion_bundle, access=access) as running:
        trust = ssl.create_default_context(cafile=certificate)
        with connect(f"wss://127.0.0.1:{running.place[1]}", ssl=trust) as socket_:
            assert unpack(socket_.recv())["policy"] == "late_fusion"
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(f"wss://127.0.0.1:{running.place[1]}", ssl=ssl.create_default_context())
        with pytest.raises((OSError, InvalidHandshake)) as plain:
            connect(f"ws://127.0.0.1:{running.place[1]}", open_timeout=5)
        assert not isinstance(plain.value, InvalidStatus)  # no HTTP at all


def test_a_web_page_cannot_connect(late_fusion_bundle):
    with websocket_server(late_fusion_bundle) as running, pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{running.place[1]}", origin="http://localhost")
    assert refused.value.response.status_code == 403


def test_health_and_metrics(late_fusion_bundle):
    with websocket_server(late_fusion_bundle) as running:
        with raw(running.place) as socket_:
            socket_.send(pack(episode_of(policies.late_fusion(), 1)[0]))
            socket_.recv()
            answer = urllib.request.urlopen(url(running.place, "/metrics"))
            text = answer.read().decode()
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert urllib.request.urlopen(url(running.place, "/healthz")).status == 200
        with pytest.raises(urllib.error.HTTPError, match="426"):
            urllib.request.urlopen(url(running.place, "/"))
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['vlacompile_requests_total{outcome="ok"}'] == "1" and lines["vlacompile_clients"] == "1"
    assert lines['vlacompile_infer_seconds_bucket{le="+Inf"}'] == lines["vlacompile_infer_seconds_count"] == "1"
    assert lines['vlacompile_stage_runs_total{stage="fusion"}'] == "1"
    assert float(lines["vlacompile_resident_memory_bytes"]) > 1e6


def asked(socket_, number: float | None, **more):
    message = {} if number is None else {"state": np.full((1, 2), number, np.float32)}
    socket_.send(pack(message | more))
    answer = socket_.recv()
    return unpack(answer) if isinstance(answer, bytes) else answer


TOKEN = {"tokens": np.zeros((1, 1), np.int64)}


def test_the_next_client_is_not_averaged_with_the_last(averaged):
    with websocket_server(averaged) as running:
        for number in (1.0, 50.0):
            with raw(running.place) as socket_:
                assert [asked(socket_, number + k, **TOKEN)["actions"][0, 0] for k in (0, 2)] == [number, number + 1]
            wait_for(lambda: running.host.metrics.value("clients") == 0)


def test_an_episode_on_the_same_connection(averaged):
    """With the first observation of it, or alone; a refused observation begins none."""
    with websocket_server(averaged) as running, raw(running.place) as socket_:
        assert asked(socket_, 1.0, **TOKEN)["episode"] == 0
        assert asked(socket_, 3.0)["actions"][0, 0] == 2.0
        assert "wrong shape" in asked(socket_, None, reset=True, state=np.zeros((1, 3), np.float32))
        assert "neither true nor false" in asked(socket_, 5.0, reset="yes")
        assert asked(socket_, 5.0, reset=False)["actions"][0, 0] == 3.0  # of the same episode still
        answer = asked(socket_, 7.0, reset=True)
        assert answer["actions"][0, 0] == 7.0 and answer["episode"] == 1
        assert asked(socket_, None, reset=True) == {"episode": 2}
        assert asked(socket_, 9.0)["actions"][0, 0] == 9.0  # the instruction stays


def test_another_instruction_is_not_averaged_with_the_last(averaged):
    with websocket_server(averaged) as running, raw(running.place) as socket_:
        asked(socket_, 1.0, **TOKEN)
        assert asked(socket_, 3.0, tokens=np.full((1, 1), 2))["actions"][0, 0] == 2003.0


def test_an_answer_names_its_observation(averaged):
    with websocket_server(averaged) as running, raw(running.place) as socket_:
        assert [asked(socket_, 1.0, **TOKEN)["observation_id"] for _ in range(2)] == [0, 1]
        for name in (1234567890123, 12.5, "left-17", np.int64(7)):
            assert asked(socket_, 1.0, observation_id=name)["observation_id"] == name
        for name in (True, [1], "x" * 65, np.zeros(2)):
            assert "names nothing" in asked(socket_, 1.0, observation_id=name)


def test_a_refused_observation_does_not_change_the_instruction(averaged):
    with websocket_server(averaged) as running, raw(running.place) as socket_:
        asked(socket_, 1.0, **TOKEN)
        assert '"state" is missing' in asked(socket_, None, tokens=np.full((1, 1), 3))
        assert "NaN" in asked(socket_, float("nan"), tokens=np.full((1, 1), 3))
        assert asked(socket_, 1.0)["actions"][0, 0] == 1.0


def test_what_the_session_refuses_does_not_change_the_instruction(late_fusion_bundle):
    """Token ids beyond the table: libvlart refuses the whole observation."""
    episode = episode_of(policies.late_fusion(), 2)
    want = in_process(late_fusion_bundle, episode)
    wrong = {"observation.language.tokens": np.full((1, 6), -1)}
    with websocket_server(late_fusion_bundle) as running, raw(running.place) as socket_:
        socket_.send(pack(episode[0]))
        assert np.array_equal(unpack(socket_.recv())["actions"], want[0])
        socket_.send(pack(episode[1] | wrong))
        assert "a token id is 0 to 49" in socket_.recv()
        socket_.send(pack({k: v for k, v in episode[1].items() if "language" not in k}))
        assert np.array_equal(unpack(socket_.recv())["actions"], want[1])
