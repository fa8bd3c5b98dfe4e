"""LeRobot's pickles are read as data: what its client sends comes through, what would run is refused and does not."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serve.lerobot_messages import RemotePolicyConfig, TimedObservation, pickled, unpickled
from vlart.serve.pickled import Record, read_pickle, timed_actions
from vlart.serve.refusal import Refusal

OBSERVATION = {
    "shoulder.pos": 1.5, "elbow.pos": np.float32(-2), "count": np.int64(-3), "task": "pick it up",
    "flags": [1, True, None],
    "front": np.arange(24, dtype=np.uint8).reshape(2, 4, 3), "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "tensor": torch.arange(6.0).view(2, 3).T, "half": torch.ones(3, dtype=torch.float16),
    "none": np.zeros((0, 3), np.float32),
    "big endian": np.arange(3, dtype=">i4"), "bool": np.array([True, False]), "0-d": np.array(2.5),
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_observation_comes_through(protocol):
    found = read_pickle(pickled(TimedObservation(1.25, 7, OBSERVATION, True), protocol))
    assert isinstance(found, Record) and found.kind == "TimedObservation"
    assert (found.fields["timestamp"], found.fields["timestep"], found.fields["must_go"]) == (1.25, 7, True)
    for name, value in OBSERVATION.items():
        got = found.fields["observation"][name]
        if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
            want = np.asarray(value)
            assert np.array_equal(got, want) and got.shape == want.shape and got.dtype == want.dtype, name
        else:
            assert got == value and type(got) is type(value)


def test_policy_instructions_come_through():
    features = {"observation.state": {"dtype": "float32", "shape": (2,), "names": ["a.pos", "b.pos"]}}
    found = read_pickle(pickled(RemotePolicyConfig("act", "some/where", features, 50)))
    assert found.kind == "RemotePolicyConfig" and found.fields["actions_per_chunk"] == 50
    assert found.fields["lerobot_features"]["observation.state"]["shape"] == [2]


def test_actions_are_what_lerobot_would_have_sent():
    chunk = np.random.default_rng(0).standard_normal((4, 7)).astype(np.float32)
    actions = unpickled(timed_actions(chunk, 10.0, 5, 0.1))
    assert [a.timestep for a in actions] == [5, 6, 7, 8] and actions[2].timestamp == pytest.approx(10.2)
    assert all(a.action.dtype == torch.float32 and np.array_equal(a.action.numpy(), row)
               for a, row in zip(actions, chunk, strict=True))
    assert {(a.observation_timestamp, a.observation_timestep) for a in actions} == {(10.0, 5)}
    actions[0].action.add_(1)  # writable, and each its own
    assert np.array_equal(actions[1].action.numpy(), chunk[1])


RAN: list[str] = []


def run(what: str) -> str:
    RAN.append(what)
    return what


class Calls:
    """A pickle that calls `run` when it is unpickled."""

    def __init__(self, callee=run, *arguments):
        self.what = (callee, arguments or ("ran",))

    def __reduce__(self):
        return self.what


G = b"cbuiltins\nprint\n"
MALICIOUS = {
    "a call": pickled(Calls()),
    "a call inside an observation": pickled(TimedObservation(1.0, 1, {"a": Calls()})),
    "a call as a key": pickled(TimedObservation(1.0, 1, {}))[:-1] + pickle.dumps(Calls())[2:],
    "a call in an array of objects": pickled(np.array([Calls()], dtype=object)),
    "eval": pickled(Calls(eval, "1+1")),
    "getattr": pickled(Calls(getattr, "a", "upper")),
    "torch.load": pickled(Calls(torch.load, "x")),
    "an array of objects": pickled(np.array([None], dtype=object)),
    "a name as a value": b"\x80\x04" + G + b".",
    "a known class with another's name": b"\x80\x04clerobot.async_inference.helpers\nget_logger\n.",
    "an attribute of a known class": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
    "a call of a record": b"\x80\x04clerobot.async_inference.helpers\nTimedObservation\n)R.",
    "INST": b"(S'ran'\ni__main__\nrun\n.",
    "OBJ": b"\x80\x02(" + G + b"o.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x02K\x01Q.",
    "a buffer out of band": b"\x80\x05\x97.",
    "state of a name": b"\x80\x04cnumpy\nndarray\n}b.",
    "a tensor's storage that calls": pickled(Calls(torch.storage._load_from_bytes, pickle.dumps(Calls()))),
}


@pytest.mark.parametrize("case", MALICIOUS)
def test_what_would_run_is_refused_and_does_not_run(case):
    RAN.clear()
    with pytest.raises(Refusal) as refused:
        read_pickle(MALICIOUS[case])
    assert refused.value.kind == "malformed" and RAN == []


def test_the_control_would_have_run():
    """The same bytes in Python's own reader do run: the cases above are no straw men."""
    RAN.clear()
    unpickled(MALICIOUS["a call inside an observation"])
    assert RAN == ["ran"]


def array_of(shape: tuple, data: bytes) -> bytes:
    """A NumPy array's pickle with another shape."""
    good = pickle.dumps(np.zeros(2, np.float32), protocol=4)
    return good.replace(b"K\x02\x85", b"K" + bytes([shape[0]]) + b"\x85").replace(bytes(8), data)


EXHAUSTING = {
    "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b".",
    "itself": b"\x80\x04]\x94h\x00a.",
    "deep": b"\x80\x04" + b"]" * 5000 + b"a" * 4999 + b".",
    "many opcodes": b"\x80\x04" + b"N0" * 60_000 + b"N.",
    "an array without its bytes": array_of((200,), bytes(8)),
    "a huge number": b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b".",
    "keys of one hash": b"\x80\x02}(" + b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N"
                                                for k in range(1, 20_000)) + b"u.",
}


@pytest.mark.filterwarnings("ignore:TypedStorage:UserWarning")
def test_a_tensor_that_would_be_inflated_is_refused():
    """torch reads archives too, deflated ones among them; what it pickles is none."""

    def stored(data: bytes) -> bytes:
        return (b"\x80\x02ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(data)) + data + b"\x85R"
                b"\x8c\x00" + b"\x86.")

    whole, deflated = io.BytesIO(), io.BytesIO()
    torch.save(torch.zeros(1_000_000).untyped_storage(), whole)
    with zipfile.ZipFile(whole) as plain, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert torch.load(io.BytesIO(deflated.getvalue()), weights_only=True).nbytes() == 4_000_000, "the control"
    for data in (deflated.getvalue(), whole.getvalue(), b"x" + deflated.getvalue()):
        with pytest.raises(Refusal, match="archive"):
            read_pickle(stored(data))


@pytest.mark.parametrize("case", EXHAUSTING)
def test_what_would_use_up_memory_or_time_is_refused(case):
    with pytest.raises(Refusal):
        read_pickle(EXHAUSTING[case])


def test_a_memo_of_four_billion_places_takes_one():
    """LONG_BINPUT at 2^32 - 1, for which Python's C reader makes room for them all."""
    assert read_pickle(b"\x80\x04K\x07r\xff\xff\xff\xff.") == 7


def test_references_are_followed_within_a_limit():
    """Ten lists of ten references each, nine deep: 10^9 values in 150 bytes."""
    laugh = ["x"]
    for _ in range(9):
        laugh = [laugh] * 10
    with pytest.raises(Refusal, match="cannot be read"):
        read_pickle(pickle.dumps(laugh, protocol=4))


GOOD = pickled(TimedObservation(1.25, 7, OBSERVATION, True))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.booleans())
def test_damage_is_read_or_refused_never_worse(place, byte, cut):
    damaged = GOOD[:place] if cut else GOOD[:place] + bytes([byte]) + GOOD[place + 1:]
    try:
        read_pickle(damaged)
    except Refusal as refusal:
        assert refusal.kind == "malformed"


def test_what_python_warns_of_is_no_noise():
    """An escape that a text of protocol 0 has and Python does not know."""
    with pytest.raises(Refusal):
        read_pickle(b"S'\\e'\n.")
