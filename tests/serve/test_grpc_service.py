"""LeRobot's protocol without LeRobot: a client of the same messages, well-behaved and not. The real client is in
tests/environments/lerobot/test_serve_client.py."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import vlacompile as vc
from tests.samples import policies
from tests.serve.lerobot_messages import RemotePolicyConfig, Robot, TimedObservation, pickled
from tests.serve.serving import KEY, Running, certify, episode_of, in_process
from vlart.serve.access import decide_access

grpc = pytest.importorskip("grpc", reason="the server needs it: pip install 'vlacompile[serve]'")

from tests.serve.grpc_running import grpc_server
from vlart.serve.grpc_service import SERVICE, GrpcLimits
from vlart.serve.transport_messages import Empty, Observation, PolicySetup

JOINTS = [f"joint_{i}.pos" for i in range(9)]
FEATURES = {"observation.state": {"dtype": "float32", "shape": (9,), "names": JOINTS},
            **{f"observation.images.{camera}": {"dtype": "image", "shape": (32, 32, 3), "names": list("hwc")}
               for camera in ("base", "wrist")}}
INSTRUCTIONS = RemotePolicyConfig("act", "somewhere", FEATURES, 10)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> vc.Bundle:
    """Two cameras and a state, the instruction known."""
    whole = policies.late_fusion()
    sources = {n: vc.Source("static") if "language" in n else s for n, s in whole.sources.items()}
    policy = vc.Policy("late_fusion", whole.observe, sources, whole.example_inputs)
    return vc.build(policy, out=tmp_path_factory.mktemp("serve") / "late_fusion.vlab")


@contextlib.contextmanager
def robot(running: Running, **options) -> Iterator[Robot]:
    """A connection of its own: channels of one process to one address share one otherwise, and with it their name."""
    with grpc.insecure_channel(f"127.0.0.1:{running.place[1]}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Robot(channel, INSTRUCTIONS, **options)


def as_robot(observation: dict[str, np.ndarray]) -> dict:
    """What a robot's get_observation gives: numbers by name, pictures by camera, and the client's task."""
    state = observation["observation.state"][0]
    return {**{n: float(x) for n, x in zip(JOINTS, state, strict=True)},
            **{c: observation[f"observation.images.{c}"][0] for c in ("base", "wrist")}, "task": "pick it up"}


def episode(length: int = 4, seed: int = 0) -> list[dict[str, np.ndarray]]:
    whole = episode_of(policies.late_fusion(), length, seed)
    return [{k: v for k, v in o.items() if "language" not in k} for o in whole]


def refused(call, code, words: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert error.value.code() == code and words in error.value.details(), error.value


INVALID, BEFORE, FULL = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INVALID_ARGUMENT,
                         grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_an_episode_gives_the_actions_of_a_session_of_ones_own(bundle):
    want = in_process(bundle, episode())
    with grpc_server(bundle) as running, robot(running) as client:
        client.ready()
        for step, (observation, chunk) in enumerate(zip(episode(), want, strict=True)):
            client.send(as_robot(observation), step)
            actions = client.get()
            assert [a.timestep for a in actions] == list(range(step, step + 10)) and actions[0].timestamp == 100.0
            assert np.array_equal(torch.stack([a.action for a in actions]).numpy(), chunk)
        assert client.get() is None  # nothing new
    assert not np.array_equal(want[0], want[1])


def test_the_newest_observation_is_answered_and_as_many_actions_as_asked_for(bundle):
    observations = episode()
    with grpc_server(bundle) as running, robot(running) as client:
        client.ready(RemotePolicyConfig("act", "x", FEATURES, 3))
        for step, observation in enumerate(observations):
            client.send(as_robot(observation), step)
        actions = client.get()
    want = in_process(bundle, observations[-1:])[0][:3]
    assert actions[0].timestep == 3 and np.array_equal(torch.stack([a.action for a in actions]).numpy(), want)


class Mean(nn.Module):
    """Every action is the state."""

    def forward(self, **inputs):
        return {"action": inputs["observation.state"][:, None, :].repeat(1, 4, 1)}


def test_ready_begins_an_episode_and_actions_name_their_observation(tmp_path):
    """Of an ensemble: what comes after Ready is averaged with nothing before it, on the same connection or another."""
    (tmp_path / "r.toml").write_text('name = "r"\ndescription = "r"\n[action]\nconsume = "ensemble"\ndecay = 0.0\n')
    policy = vc.Policy("mean", Mean().eval(), {"observation.state": vc.Source("observation")},
                       {"observation.state": torch.zeros(1, 2)})
    averaged = vc.build(policy, recipe=str(tmp_path / "r.toml"), out=tmp_path / "m.vlab")
    features = {"observation.state": {"dtype": "float32", "shape": (2,), "names": ["a.pos", "b.pos"]}}
    config = RemotePolicyConfig("act", "x", features, 1)
    with grpc_server(averaged) as running, robot(running) as client:
        for first in (10.0, 50.0):
            client.ready(config)
            for step, (state, mean) in enumerate(((first, first), (first + 2, first + 1))):
                client.send({"a.pos": state, "b.pos": state, "task": ""}, step)
                action = client.get()[0]
                assert action.action.tolist() == [mean, mean]
                assert (action.observation_timestamp, action.observation_timestep) == (100.0, step)


class Told(nn.Module):
    """Every action is the state, and a thousand times the instruction."""

    def forward(self, **inputs):
        told = inputs["observation.state"] + 1000.0 * inputs["tokens"].float()
        return {"action": told[:, None, :].repeat(1, 4, 1)}


def test_an_instruction_of_an_observation_that_nobody_asked_for_holds(tmp_path):
    policy = vc.Policy("told", Told().eval(),
                       {"tokens": vc.Source("task"), "observation.state": vc.Source("observation")},
                       {"tokens": torch.zeros(1, 1, dtype=torch.int64), "observation.state": torch.zeros(1, 2)})
    features = {"observation.state": {"dtype": "float32", "shape": (2,), "names": ["a.pos", "b.pos"]}}
    read = lambda text: {"tokens": np.array([[int(text)]])}
    with grpc_server(vc.build(policy, out=tmp_path / "t.vlab"), instructions=read) as running, \
            robot(running) as client:
        client.ready(RemotePolicyConfig("act", "x", features, 1))
        for texts, want in ((["1"], 1000), (["2", None], 2000), (["3", "4", None, None], 4000), (["5", "6"], 6000)):
            for step, told in enumerate(texts):
                client.send({"a.pos": 7.0, "b.pos": 7.0} | ({} if told is None else {"task": told}), step)
            assert client.get()[0].action.tolist() == [want + 7.0, want + 7.0]


def test_two_robots_do_not_see_each_other(bundle):
    episodes = [episode(seed=1), episode(seed=2)]
    want = [in_process(bundle, e) for e in episodes]
    with grpc_server(bundle) as running, robot(running) as a, robot(running) as b:
        a.ready(), b.ready()
        for step in range(4):
            for client, e in ((a, episodes[0]), (b, episodes[1])):
                client.send(as_robot(e[step]), step)
            for client, w in ((b, want[1]), (a, want[0])):
                assert np.array_equal(torch.stack([x.action for x in client.get()]).numpy(), w[step])


def test_a_larger_picture_is_resized_as_lerobots_server_does(bundle):
    """torch's bilinear interpolation of bytes, not antialiased: the call in LeRobot's helpers.py."""
    observation = episode(1)[0]
    large = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    planes = torch.from_numpy(large).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(planes, size=(32, 32), mode="bilinear", align_corners=False)
    small = small[0].permute(1, 2, 0).numpy()
    with grpc_server(bundle) as running, robot(running) as client:
        client.ready()
        client.send(as_robot(observation) | {"base": large})
        got = torch.stack([a.action for a in client.get()]).numpy()
    assert np.array_equal(got, in_process(bundle, [{**observation, "observation.images.base": small[None]}])[0])


def test_what_does_not_fit_is_refused_and_the_robot_may_go_on(bundle):
    good = as_robot(episode(1)[0])
    with grpc_server(bundle) as running, robot(running) as client:
        refused(lambda: client.send(good), INVALID, "Ready must be called first")
        client.ready_call(Empty())
        refused(lambda: client.send(good), INVALID, "SendPolicyInstructions must be called first")
        few = {k: v for k, v in FEATURES.items() if "wrist" not in k}
        refused(lambda: client.ready(RemotePolicyConfig("act", "x", few, 10)), INVALID,
                'the robot has no "observation.images.wrist"')
        other = {**FEATURES, "observation.images.top": FEATURES["observation.images.base"]}
        refused(lambda: client.ready(RemotePolicyConfig("act", "x", other, 10)), INVALID, "did you mean")
        client.ready()
        refused(lambda: client.send({k: v for k, v in good.items() if k != "joint_3.pos"}), INVALID, "joint_3.pos")
        refused(lambda: client.send({**good, "joint_3.pos": float("nan")}), INVALID, "not finite")
        refused(lambda: client.send({**good, "base": good["base"].astype(np.float32)}), INVALID, "it is float32")
        refused(lambda: client.send({**good, "base": good["base"][..., 0]}), INVALID, "wrong shape")
        refused(lambda: client.send(pickled(INSTRUCTIONS)), INVALID, "is not a TimedObservation")
        refused(lambda: client.send(b"no pickle"), INVALID, "cannot be read as data")
        client.send(good)
        assert len(client.get()) == 10 and running.host.healthy()


def test_a_camera_that_the_policy_does_not_take_is_ignored_where_the_operator_says_so(bundle):
    extra = {**FEATURES, "observation.images.side": FEATURES["observation.images.wrist"]}
    want = in_process(bundle, episode(1))[0]
    with grpc_server(bundle, ignored=["observation.images.side"]) as running, robot(running) as client:
        client.instructions = RemotePolicyConfig("act", "somewhere", extra, 10)
        client.ready()
        client.send(as_robot(episode(1)[0]) | {"side": np.zeros((32, 32, 3), np.uint8)}, 0)
        assert np.array_equal(torch.stack([a.action for a in client.get()]).numpy(), want)


def test_two_values_of_a_robot_are_not_one_input(bundle):
    """The last would win, and nobody would know."""
    two = {**FEATURES, "observation.other": {"dtype": "float32", "shape": (9,), "names": JOINTS[::-1]}}
    with grpc_server(bundle) as running, robot(running) as client:
        client.instructions = RemotePolicyConfig("act", "somewhere", two, 10,
                                                 rename_map={"observation.other": "observation.state"})
        refused(client.ready, INVALID, 'two of the robot\'s values are "observation.state"')


def test_one_robot_cannot_hold_what_others_need(bundle):
    """More calls at a time than the server has clients times their share, from one connection and from many."""
    want = in_process(bundle, episode(1))[0]
    with contextlib.ExitStack() as stack, grpc_server(bundle, limits=GrpcLimits(send_s=30)) as running:
        held = threading.Event()

        def endless():
            yield Observation(transfer_state=1, data=b"x")
            held.wait(30)

        greedy = [stack.enter_context(robot(running)) for _ in range(20)]
        greedy[0].ready()
        waiting = [greedy[i % 20 if i > 100 else 0].send_call.future(endless(), timeout=30) for i in range(300)]
        time.sleep(0.5)
        with robot(running) as other:
            other.ready()
            other.send(as_robot(episode(1)[0]))
            assert np.array_equal(torch.stack([a.action for a in other.get()]).numpy(), want)
        assert sum(not call.done() for call in waiting) > 0
        for call in waiting:
            call.cancel()
        held.set()


def test_calls_without_their_message_are_let_go(bundle):
    """Each would be one of the calls that the server takes at a time; none of them says Ready."""
    with contextlib.ExitStack() as stack, grpc_server(bundle, limits=GrpcLimits(send_s=1, clients=1)) as running:
        held = threading.Event()

        def silent():
            held.wait(60)
            yield from ()

        waiting = []
        for number in range(18):  # of four calls each: more than the 64 of one client
            channel = stack.enter_context(grpc.insecure_channel(
                f"127.0.0.1:{running.place[1]}", [("grpc.use_local_subchannel_pool", 1), ("number", number)]))
            waiting += [channel.stream_unary(f"/{SERVICE}/{name}").future(silent(), timeout=60)
                        for name in ("Ready", "GetActions", "SendPolicyInstructions", "SendObservations")]
        codes = {call.code() for call in waiting}
        assert grpc.StatusCode.INVALID_ARGUMENT in codes and codes <= {INVALID, FULL}, codes
        with robot(running) as other:
            other.ready()
            other.send(as_robot(episode(1)[0]))
            assert len(other.get()) == 10
        held.set()


@pytest.mark.parametrize("name", ["Ready", "SendPolicyInstructions", "SendObservations", "GetActions"])
def test_what_is_no_protocol_buffer_is_refused_as_that(bundle, name):
    with grpc_server(bundle) as running, robot(running) as client:
        client.ready()
        with grpc.insecure_channel(f"127.0.0.1:{running.place[1]}") as channel:
            channel.unary_unary(f"/{SERVICE}/Ready")(b"")
            channel.unary_unary(f"/{SERVICE}/SendPolicyInstructions")(PolicySetup(
                data=pickled(INSTRUCTIONS)).SerializeToString())
            refused(lambda: channel.stream_unary(f"/{SERVICE}/{name}")(iter([b"\xff" * 30])), INVALID,
                    "are no protocol buffer")
            if name != "SendObservations":
                refused(lambda: channel.stream_unary(f"/{SERVICE}/{name}")(iter([])), INVALID, "has no message")
        assert running.host.healthy()


def test_half_open_connections_end(bundle):
    with grpc_server(bundle, limits=GrpcLimits(send_s=1)) as running:
        for beginning in (b"", b"PRI * HTTP/2.0\r\n"):
            with socket.create_connection(("127.0.0.1", running.place[1])) as silent:
                silent.sendall(beginning)
                silent.settimeout(30)
                while silent.recv(1000):
                    pass


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.just(10**400) | st.floats() | st.text(max_size=4)
    | st.sampled_from([np.float32(1), np.zeros(3), np.zeros((2, 2), np.uint8), np.int64(3), "", "observation.state"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner,
                                                                max_size=3), max_leaves=6)


def answered(call) -> None:
    """Or refused as what it is: UNKNOWN is an exception that nobody thought of."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == INVALID and "where:" in error.details(), error


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("examples", [50, pytest.param(1000, marks=pytest.mark.full)])
def test_no_odd_key_or_number_is_an_unknown_error(bundle, examples):
    with grpc_server(bundle) as running, robot(running) as client:
        @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(st.data())
        def odd(data):
            keys = st.sampled_from([*as_robot(episode(1)[0]), *FEATURES, "x"]) | st.integers(0, 5) | st.text(max_size=3)
            changed = data.draw(st.dictionaries(keys, ODD, max_size=3))
            client.ready()
            answered(lambda: client.send(as_robot(episode(1)[0]) | changed))
            answered(lambda: client.send(pickled(TimedObservation(data.draw(ODD), data.draw(ODD), data.draw(ODD)))))
            answered(lambda: client.ready(RemotePolicyConfig("act", "x", {**FEATURES, **changed}, data.draw(ODD))))
            answered(lambda: client.ready(RemotePolicyConfig("act", "x", data.draw(ODD), 10, "cpu", data.draw(ODD))))
            answered(lambda: client.send(as_robot(episode(1)[0]) | changed))
            answered(client.answer)
        odd()
        client.ready()
        client.send(as_robot(episode(1)[0]))
        assert len(client.get()) == 10 and running.host.healthy()


class Calls:
    def __reduce__(self):
        import os

        return os._exit, (3,)


def test_a_pickle_that_would_run_is_refused(bundle):
    with grpc_server(bundle) as running, robot(running) as client:
        client.ready()
        refused(lambda: client.setup(pickled(Calls())), INVALID, "it names posix._exit")
        refused(lambda: client.send({"task": Calls()}), INVALID, "it names posix._exit")


def test_sizes_parts_and_slow_robots(bundle):
    limits = GrpcLimits(message_bytes=20_000, part_bytes=8_000, send_s=0.3)
    with grpc_server(bundle, limits=limits) as running, robot(running) as client:
        client.ready()
        client.send(as_robot(episode(1)[0]))
        refused(lambda: client.send(bytes(30_000)), INVALID, "more than 20000 bytes")
        refused(lambda: client.send(bytes(19_000), part=12_000), FULL, "")  # gRPC's own limit of a part
        refused(lambda: client.send_call(iter([Observation(transfer_state=9, data=b"x")])), INVALID,
                "a part of unknown kind")
        refused(lambda: client.send_call(iter([Observation(transfer_state=1, data=b"x")])), INVALID, "has no end")

        def dribble():
            yield Observation(transfer_state=1, data=b"x")
            time.sleep(1)

        refused(lambda: client.send_call(dribble(), timeout=10), INVALID, "did not arrive in time")


def test_keys_and_tls(bundle, tmp_path):
    (tmp_path / "key").write_text(KEY)
    certificate, private = tmp_path / "c.pem", tmp_path / "k.pem"
    certify(certificate, private)
    access = decide_access("127.0.0.1", str(tmp_path / "key"), False, str(certificate), str(private))
    trust = grpc.ssl_channel_credentials(certificate.read_bytes())
    name = (("grpc.ssl_target_name_override", "localhost"),)
    with grpc_server(bundle, access=access) as running:
        place = f"127.0.0.1:{running.place[1]}"
        with grpc.secure_channel(place, trust, name) as channel:
            for metadata in (None, (("authorization", "Api-Key wrong-key-wrong-key"),)):
                refused(Robot(channel, INSTRUCTIONS, metadata).ready, grpc.StatusCode.UNAUTHENTICATED,
                        "a key is required")
            Robot(channel, INSTRUCTIONS, (("authorization", f"Api-Key {KEY}"),)).ready()
        with robot(running) as plain:
            refused(plain.ready, grpc.StatusCode.UNAVAILABLE, "")


def test_as_many_robots_as_may(bundle):
    limits = GrpcLimits(clients=1, idle_s=0.5)
    with grpc_server(bundle, limits=limits) as running, robot(running) as a, robot(running) as b:
        a.ready()
        refused(b.ready, FULL, "too many clients")
        time.sleep(0.6)
        b.ready()  # the first was silent too long
        refused(lambda: a.send(as_robot(episode(1)[0])), BEFORE, "Ready must be called first")


def test_robots_that_left_do_not_keep_one_out(bundle):
    """Connections that called Ready and went, as a program does that is started again and again: gRPC does not
    say that they have gone. One that asks for actions all the while stays."""
    want = in_process(bundle, episode(1))[0]
    with grpc_server(bundle, limits=GrpcLimits(clients=3, idle_s=300), wait_s=1.0) as running, robot(running) as alive:
        alive.ready()
        for _ in range(2):
            with robot(running) as gone:
                gone.ready()
        with robot(running) as late:
            refused(late.ready, FULL, "too many clients")
            for _ in range(3):  # longer than two calls of GetActions
                assert alive.get() is None
            late.ready()
            for client in (alive, late):
                client.send(as_robot(episode(1)[0]))
                assert np.array_equal(torch.stack([a.action for a in client.get()]).numpy(), want)


def test_ending_answers_what_is_being_answered(bundle, monkeypatch):
    observation = episode(1)[0]
    with grpc_server(bundle) as running, robot(running) as client:
        client.ready()
        client.send(as_robot(observation))
        entered, release, step = threading.Event(), threading.Event(), vc.Session.step

        def slow(session):
            entered.set()
            assert release.wait(20)
            step(session)

        monkeypatch.setattr(vc.Session, "step", slow)
        got = []
        waiting = threading.Thread(target=lambda: got.append(client.get()))
        waiting.start()
        assert entered.wait(10)
        closing = running.loop.start(running.server.close())
        time.sleep(0.1)
        assert not closing.done()
        release.set()
        waiting.join(10)
        closing.result(10)
        assert np.array_equal(torch.stack([a.action for a in got[0]]).numpy(), in_process(bundle, [observation])[0])
        assert running.host.stop(10)
        running.ended = True
