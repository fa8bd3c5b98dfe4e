"""What Python hands to libvlart arrives as it is, or is refused in four lines: numbers are not cut to the bits that a C
type has, and what is no tensor is not one."""

from __future__ import annotations

import ctypes as c

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import policies
from vlart.errors import ConfigError, RuntimeFailure, VlaError
from vlart.runtime.library import (
    AsyncOptions,
    OpenOptions,
    RouterOptions,
    SensorOptions,
    SessionOptions,
    libvlart,
)


@pytest.mark.parametrize("options", [{"threads": -1}, {"threads": 2**32 + 1}, {"threads": 1.5}, {"threads": None},
                                     {"max_age_ms": -1}, {"max_age_ms": float("nan")}, {"max_age_ms": float("inf")},
                                     {"max_age_ms": 1e300}], ids=str)
def test_an_option_that_a_session_cannot_have(late_fusion_bundle, options):
    with pytest.raises(ConfigError, match=next(iter(options)).removesuffix("_ms")):
        vc.Session(late_fusion_bundle.path, **options)


@pytest.mark.parametrize("options", [{"lead_ticks": -1}, {"stale_ticks": 2**32}, {"deadline_ticks": -5},
                                     {"threads": 2**32 + 1}, {"max_age_ms": -1}], ids=str)
def test_an_option_that_an_async_session_cannot_have(late_fusion_bundle, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        vc.AsyncSession(late_fusion_bundle.path, **options)


@pytest.mark.parametrize("number", [-1, 2**64, 0.5])
def test_a_time_that_is_none(late_fusion_bundle, number):
    with vc.Session(late_fusion_bundle.path) as session:
        for name, tensor in policies.late_fusion().example_inputs.items():
            session.write(name, tensor)
        with pytest.raises(ConfigError, match=f"deadline_us is {number}"):
            session.step(deadline_us=number)
        with pytest.raises(ConfigError, match=f"now_us is {number}"):
            session.time(number)
        with pytest.raises(ConfigError, match=f"time_us is {number}"):
            session.stamp("observation.state", 1, number)
        session.step(deadline_us=2**64 - 1)
        session.step(deadline_us=np.uint64(10**9))


@pytest.mark.parametrize("struct", [OpenOptions, SessionOptions, AsyncOptions, SensorOptions, RouterOptions])
def test_no_number_of_a_struct_wraps(struct):
    fields = {n: f for n, f in vars(struct).items() if not n.startswith("_") and n != "struct_size"}
    numbers = {n: 256 ** f.size for n, f in fields.items() if isinstance(getattr(struct(), n), int)}
    assert numbers
    for name, most in numbers.items():
        for wrong in (-1, most, 0.5):
            with pytest.raises(ConfigError, match=name):
                struct(**{name: wrong})
        assert getattr(struct(**{name: most - 1}), name) == most - 1


def test_no_number_of_a_call_wraps():
    """Of any function that is declared."""
    library, seen = libvlart(), 0
    for name in [n for n in vars(library) if n.startswith("vlart_")]:
        for kind in getattr(library, name).argtypes or ():
            width = getattr(kind, "kind", None)
            assert kind not in (c.c_uint32, c.c_uint64, c.c_size_t), f"{name} takes a number that can wrap"
            if width is not None:
                seen += 1
                for wrong in (-1, 256 ** c.sizeof(width), 1.5, "1"):
                    with pytest.raises(ConfigError):
                        kind.from_param(wrong)
    assert seen > 20


DTYPES = [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.float64, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_of_any_floating_point_dtype_is_taken(late_fusion_bundle, dtype):
    inputs = policies.late_fusion().example_inputs
    name = next(n for n, t in inputs.items() if t.dtype == torch.float32)
    given = inputs[name].to(dtype)
    with vc.Session(late_fusion_bundle.path) as session:
        session.write(name, given)
        np.testing.assert_array_equal(session.read(name), given.float().numpy())


@pytest.mark.filterwarnings("error")
def test_a_number_that_f32_does_not_have_is_refused(late_fusion_bundle):
    name, given = next((n, t) for n, t in policies.late_fusion().example_inputs.items() if t.dtype == torch.float32)
    with vc.Session(late_fusion_bundle.path) as session, pytest.raises(RuntimeFailure) as caught:
        session.write(name, np.full(given.shape, 1e300))
    assert caught.value.status == "NOT_FINITE"


@pytest.mark.parametrize("given", [
    "text", None, object(), [[1.0], [1.0, 2.0]], torch.zeros(1, 9, dtype=torch.complex64),
    torch.zeros(1, 9).to_sparse(), torch.zeros(1, 9, device="meta"),
    np.zeros((1, 9), ">f4"), np.zeros((1, 9), "datetime64[s]"), {"a": 1}], ids=lambda g: str(type(g).__name__))
def test_what_is_no_tensor_is_refused(late_fusion_bundle, given):
    name = next(n for n, t in policies.late_fusion().example_inputs.items() if t.dtype == torch.float32)
    with vc.Session(late_fusion_bundle.path) as session:
        with pytest.raises(RuntimeFailure, match=name) as caught:
            session.write(name, given)
        assert caught.value.status == "WRONG_DTYPE" and caught.value.why and caught.value.fix
        with vc.AsyncSession(late_fusion_bundle.path) as asynchronous, pytest.raises(VlaError, match=name):
            asynchronous.write(name, given)


WRONG = [
    ("Session", {"max_age_ms": "5"}), ("Session", {"max_age_ms": None}), ("Session", {"accept": None}),
    ("Session", {"accept": [["stale"]]}), ("Session", {"pool": 5}), ("Session", {"lane": 3}),
    ("Session", {"pool": vc.Threads(cores=0), "threads": 1}), ("Session", {"beside": 5}),
    ("Session", {"pool": vc.Threads(cores=(2**32,)), "threads": 1}), ("Session", {"engine_library": 5}),
    ("Session", {"pool": vc.Threads(cores=("a",)), "threads": 1}), ("Session", {"tensorrt_library": 3}),
    ("AsyncSession", {"safe": ["a", "b"]}), ("AsyncSession", {"expire": ["time"]}), ("AsyncSession", {"worker": 5}),
]


@pytest.mark.parametrize("kind, options", WRONG, ids=str)
def test_an_option_of_another_type_is_refused(late_fusion_bundle, kind, options):
    with pytest.raises(VlaError):
        getattr(vc, kind)(late_fusion_bundle.path, **options)


@pytest.mark.parametrize("path", [None, 5, "", "{}\0x", b"\0"], ids=str)
def test_a_path_is_taken_whole(late_fusion_bundle, path):
    """One with a zero byte in it names no bundle, not the one whose name ends there."""
    given = path.format(late_fusion_bundle.path) if isinstance(path, str) else path
    with pytest.raises(ConfigError, match="bundle"):
        vc.Session(given)


@pytest.mark.parametrize("name", [5, None, ["state"], b"state", ("state",), 1.5], ids=str)
def test_a_name_that_is_none(late_fusion_bundle, name):
    with vc.Session(late_fusion_bundle.path) as session:
        calls = {"write": (np.zeros(1),), "read": (), "stamp": (1, 1), "sensor": (), "write_text": ("text",)}
        for call, arguments in calls.items():
            with pytest.raises(RuntimeFailure, match="is called"):
                getattr(session, call)(name, *arguments)
        if name is not None:
            with pytest.raises(RuntimeFailure, match="is called"):
                session.select(name)


@pytest.mark.parametrize("arrays", [None, [], 5, "state", np.zeros(3)], ids=str)
def test_a_set_that_is_no_dictionary(late_fusion_bundle, arrays):
    with vc.AsyncSession(late_fusion_bundle.path) as policy:
        for call in (policy.session.write_all, policy.write_all, policy.begin):
            with pytest.raises(ConfigError, match="an observation is a"):
                call(arrays)


@pytest.mark.parametrize("number", [-1, 2**64, 0.5, "1", None], ids=str)
def test_a_name_or_time_of_a_set_that_is_none(late_fusion_bundle, number):
    arrays = policies.late_fusion().example_inputs
    with vc.AsyncSession(late_fusion_bundle.path) as policy:
        for call in (policy.session.write_all, policy.write_all, policy.begin):
            with pytest.raises(ConfigError, match=f"observation is {number}"):
                call(arrays, observation=number)
        for call in (policy.session.write_all, policy.write_all):
            with pytest.raises(ConfigError, match=f"time_us is {number}"):
                call(arrays, time_us=number)
        if not isinstance(number, int):
            with pytest.raises(ConfigError, match="sequence"):
                policy.stamp("observation.state", number, 1)


@pytest.mark.parametrize("device", [None, "", "\ud800", "CPU\0x", 3], ids=ascii)
def test_a_device_of_openvino_has_a_name(late_fusion_bundle, device):
    with pytest.raises(ConfigError, match="openvino_device"):
        vc.Session(late_fusion_bundle.path, openvino_device=device)


class Closing:
    """An array whose conversion closes the session that it is given to."""

    def __init__(self, policy: vc.AsyncSession):
        self.policy = policy

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        self.policy.close()
        return np.zeros((1, 9), np.float32)


def test_what_closes_a_session_while_it_is_written_is_told(late_fusion_bundle):
    policy = vc.AsyncSession(late_fusion_bundle.path)
    with pytest.raises(RuntimeFailure, match="closed"):
        policy.write("observation.state", Closing(policy))


def test_a_worker_is_started_once(late_fusion_bundle):
    with vc.AsyncSession(late_fusion_bundle.path) as policy, pytest.raises(ConfigError, match="runs already"):
        policy.start()
    with pytest.raises(RuntimeFailure, match="closed"):
        policy.start()


@pytest.mark.parametrize("seconds", [-1, float("nan"), "1", None], ids=str)
def test_begin_does_not_wait_for_a_time_that_never_comes(late_fusion_bundle, seconds):
    policy = vc.AsyncSession(late_fusion_bundle.path)  # without a worker
    with pytest.raises(ConfigError, match="timeout_s"):
        policy.begin(policies.late_fusion().example_inputs, timeout_s=seconds)
    policy.close()


def test_begin_says_that_its_observation_gave_no_chunk(late_fusion_bundle):
    with vc.AsyncSession(late_fusion_bundle.path) as policy:
        with pytest.raises(RuntimeFailure, match="gave no chunk") as caught:
            policy.begin({"observation.state": np.zeros((1, 9), np.float32)})
        assert caught.value.status == "SOURCE_UNSET"
