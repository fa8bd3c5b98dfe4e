"""A client's own keys come back to it, and go to whoever shows refusals, as text that is shown and not acted on, of a
length that gRPC's headers hold."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cli.test_console import harmless, hostile
from tests.serve.lerobot_messages import RemotePolicyConfig, TimedObservation, pickled
from tests.serve.serving import websocket_server
from vlart.runtime.stage_times import StageTimes
from vlart.serve.messages import pack
from vlart.serve.metrics import Metrics
from vlart.serve.refusal import MOST_BYTES, Refusal

ROUNDS, HEADERS = 100, 8192  # what gRPC takes of headers unless it is told otherwise
LONG = ["k" * 1_000_000, "\x1b" * 100_000, "\N{SNOWMAN}" * 50_000, "\udc80" * 50_000]


def test_any_name():
    draw = np.random.default_rng(0)
    for name in [*LONG, *(hostile(draw) for _ in range(ROUNDS))]:
        refusal = Refusal(f'"{name}" is none', where=name, why=name, fix=name)
        assert harmless(str(refusal)) and len(str(refusal).splitlines()) == 4
        assert all(len(text.encode()) <= MOST_BYTES + 4 for text in refusal.as_dict().values())
        assert 3 * len(str(refusal).encode()) < HEADERS


def test_a_short_one_is_whole():
    """Negative control."""
    refusal = Refusal("a", where="b" * MOST_BYTES, why='it is "é"', fix="d")
    assert (refusal.where, refusal.why) == ("b" * MOST_BYTES, 'it is "é"')


def test_websocket(late_fusion_bundle):
    pytest.importorskip("msgpack", reason="the server needs it: pip install 'vlacompile[serve]'")
    from tests.serve.websocket_clients import raw

    draw = np.random.default_rng(1)
    with websocket_server(late_fusion_bundle) as running, raw(running.place) as client:
        for name in ["k" * 30_000, *(hostile(draw) for _ in range(ROUNDS))]:
            key = name.encode(errors="replace").decode()  # MessagePack's text is Unicode
            for message in ({key: 1}, {"observation.state": np.zeros(3), key: "x"}, {"prompt": {key: {key: 3}}}):
                client.send(pack(message))
                answer = client.recv()
                assert isinstance(answer, str) and harmless(answer) and len(answer.splitlines()) == 4, ascii(answer)


def test_lerobot(sampling_bundle):
    """Also keys that are no Unicode, which pickles can hold: the call ends with a status that says what is wrong."""
    grpc = pytest.importorskip("grpc", reason="the server needs it: pip install 'vlacompile[serve]'")
    from tests.serve.grpc_running import grpc_server
    from tests.serve.lerobot_messages import Robot

    draw = np.random.default_rng(2)
    with grpc_server(sampling_bundle, noise="normal") as running, \
            grpc.insecure_channel(f"127.0.0.1:{running.place[1]}") as channel:
        state = {"state": {"dtype": "float32", "shape": (9,), "names": [f"j{i}" for i in range(9)]}}
        client = Robot(channel, RemotePolicyConfig("act", "x", state, 1))
        for name in [*LONG, *(hostile(draw) for _ in range(ROUNDS))]:
            client.ready()
            config = RemotePolicyConfig("act", "x", {name: state["state"]}, 1)
            named = {"state": {"dtype": "float32", "shape": (9,), "names": [name] * 9}}
            with pytest.raises(grpc.RpcError) as feature:
                client.setup(pickled(config))
            client.setup(pickled(RemotePolicyConfig("act", "x", named, 1)))
            with pytest.raises(grpc.RpcError) as missing:
                client.send(pickled(TimedObservation(1.0, 0, {"other": 1.0})))
            with pytest.raises(grpc.RpcError) as no_number:
                client.send(pickled(TimedObservation(1.0, 0, {name: name})))
            for error in (feature, missing, no_number):
                assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT, ascii(error.value.details())
                assert harmless(error.value.details()) and len(error.value.details().splitlines()) == 4


def test_metrics():
    """One line for each stage, whatever it is called."""
    draw, metrics = np.random.default_rng(3), Metrics()
    names = {hostile(draw) for _ in range(ROUNDS)}
    metrics.stages(0, {name: StageTimes(1, 1.0, 1.0, 1.0, 1.0) for name in names})
    text = metrics.text()
    assert harmless(text) and text.count("\nvlacompile_stage_runs_total{") == len(names)
