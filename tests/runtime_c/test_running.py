"""Bundles written record by record, run on every engine: what runs, what is kept, what is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from sample_branches import STAGES, Branches
from sample_bundles import Bundle, Flow, Reactive, padded
from vlart_ctypes import BundleInfo, Failure, Library, Policy, SourceInfo, StageInfo, ValueInfo

from tests.runtime_c.running import BUILD, TOLERANCE, assert_outputs
from vlart import vocabulary


def test_reactive_results(lib, engine, tmp_path):
    reactive = Reactive()
    with Policy(lib, engine.write(reactive.bundle, tmp_path)).start(engine.library) as policy:
        for seed in range(4):
            inputs = reactive.inputs(seed)
            policy.run(inputs)
            want = reactive.reference(inputs)
            assert_outputs(policy, want)
            for k in range(reactive.h):
                np.testing.assert_allclose(policy.pop(), want["action"][0, k], **TOLERANCE)


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
def test_loop_results(lib, engine, tmp_path, iterations):
    """The carry's two buffers, the row table and a row output, for odd and even K; twice, from cached prefixes."""
    flow = Flow(iterations)
    with Policy(lib, engine.write(flow.bundle, tmp_path)).start(engine.library) as policy:
        inputs = flow.inputs()
        policy.run(inputs)
        assert_outputs(policy, flow.reference(inputs))
        inputs = {**inputs, "noise": flow.inputs(1)["noise"]}
        policy.run(inputs)
        assert_outputs(policy, flow.reference(inputs))
        assert policy.runs() == {"prefix": 1, "denoise": 2}


@pytest.mark.parametrize("threads, parallel", [(1, 1), (1, 2), (2, 2), (1, 4)])
def test_stages_at_the_same_time_give_the_same(lib, engine, tmp_path, threads, parallel):
    branches, root = Branches(), tmp_path / "b"
    engine.write(branches.bundle, root)
    with Policy(lib, root).start(engine.library, threads=threads, parallel=parallel) as policy, \
            Policy(lib, root).start(engine.library, threads=threads) as alone:
        seen: dict[str, np.ndarray] = {}
        for seed in range(20):
            inputs = branches.inputs(seed)
            inputs = inputs if seed % 2 == 0 else {"b": inputs["b"]}
            seen |= inputs
            for each in (policy, alone):
                each.run(inputs)
            assert_outputs(policy, branches.reference(seen))
            for name in STAGES:
                np.testing.assert_array_equal(policy.read(name), alone.read(name), err_msg=name)
            assert policy.runs() == alone.runs()


PROCESSORS = len(os.sched_getaffinity(0))


@pytest.mark.parametrize("threads, parallel, workers",
                         [(0, 0, min(3, PROCESSORS) - 1), (1, 0, 0), (0, 1, 0), (1, 4, 3)])
def test_a_session_that_says_nothing_runs_as_the_plan_was_timed(lib, ort, tmp_path, threads, parallel, workers):
    branches = Branches()

    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    with Policy(lib, branches.bundle.write(tmp_path)) as policy:
        Policy(lib, tmp_path).start(ort, threads=1, parallel=1).close()  # what the engine starts once
        before = count()
        policy.start(ort, threads=threads or 0, parallel=parallel)
        started = count() - before
        policy.run(branches.inputs())
        assert_outputs(policy, branches.reference(branches.inputs()))
        engines_own = threads == 0 and parallel == 1
        assert started == workers or (engines_own and started > 0)
    assert count() == before


@pytest.mark.parametrize("cores", range(1, min(PROCESSORS, 4) + 1))
@pytest.mark.parametrize("timed", [(1024, 64), (8, 8), (1, 64), (2, 1), (1, 1)], ids=str)
def test_a_plan_gets_no_more_threads_than_there_are_processors(lib, ort, tmp_path, timed, cores):
    """Those that the calling thread may use, whatever machine the plan was timed on: of each engine, and of all that
    run at the same time."""
    branches, mine = Branches(), os.sched_getaffinity(0)
    threads, parallel = timed
    branches.bundle.plan.records["concurrency"][0].update(threads=threads, parallel=parallel)
    each = min(threads, cores)
    started = (min(parallel, cores // each) - 1) + len(branches.bundle.plan.records["stages"]) * (each - 1)
    with Policy(lib, branches.bundle.write(tmp_path)) as policy:
        Policy(lib, tmp_path).start(ort, threads=1, parallel=1).close()  # what the engine starts once
        before = set(Path("/proc/self/task").iterdir())
        os.sched_setaffinity(0, sorted(mine)[:cores])
        try:
            policy.start(ort, threads=0, parallel=0)
            found = set(Path("/proc/self/task").iterdir()) - before
            policy.run(branches.inputs())
            assert_outputs(policy, branches.reference(branches.inputs()))
        finally:
            os.sched_setaffinity(0, mine)
        assert len(found) == started


def test_only_dirty_stages_run(lib, engine, tmp_path):
    reactive = Reactive()
    inputs = reactive.inputs()
    with Policy(lib, engine.write(reactive.bundle, tmp_path)).start(engine.library) as policy:
        policy.run(inputs)
        assert set(policy.runs().values()) == {1}
        policy.run({k: v.copy() for k, v in inputs.items()})
        assert set(policy.runs().values()) == {1}, "equal bytes mark nothing dirty"
        assert policy.totals().stages_skipped == 4
        for source, reruns in (("instruction", {"language", "fusion", "head"}), ("image", {"vision", "fusion", "head"}),
                               ("state", {"head"})):
            before = policy.runs()
            inputs = {**inputs, source: reactive.inputs(7)[source]}
            policy.run(inputs)
            assert {n for n, count in policy.runs().items() if count > before[n]} == reruns
            assert_outputs(policy, reactive.reference(inputs))


def test_queue(lib, engine, tmp_path):
    reactive = Reactive()
    with Policy(lib, engine.write(reactive.bundle, tmp_path)).start(engine.library) as policy:
        with pytest.raises(Failure, match="QUEUE_EMPTY"):
            policy.pop()
        policy.run(reactive.inputs())
        assert (policy.queue().remaining, policy.queue().chunks) == (reactive.h, 1)
        for _ in range(reactive.h):
            policy.pop()
        with pytest.raises(Failure, match="QUEUE_EMPTY"):
            policy.pop()
        policy.run(reactive.inputs(1))
        assert policy.queue().remaining == reactive.h


def test_every_dtype_and_rank_passes_through(lib, engine, tmp_path):
    b, arrays = Bundle("dtypes"), {}
    for i, dtype in enumerate(("f32", "f64", "f16", "i8", "i32", "i64", "u8", "bool")):
        numpy = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bool": np.bool_, "i8": np.int8,
                 "i32": np.int32, "i64": np.int64, "u8": np.uint8}[dtype]
        for dims in ((), (3,), (1, 2, 1, 2, 1, 1, 1, 3)):
            name = f"{dtype}.{len(dims)}"
            b.source(name, dtype, dims, "tick")
            b.value(f"{name}.out", dtype, dims)
            arrays[name] = (np.random.default_rng(i).uniform(0, 90, dims) > 45 if dtype == "bool" else
                            np.random.default_rng(i).uniform(0, 90, dims)).astype(numpy).reshape(dims)
    ports = [(f"i{k}", name, "whole") for k, name in enumerate(arrays)]
    b.stage("copy", [helper.make_node("Identity", [p], [p.replace("i", "o")]) for p, _, _ in ports],
            range(len(ports)), ports, [(p.replace("i", "o"), f"{v}.out", m) for p, v, m in ports])
    with Policy(lib, engine.write(b, tmp_path)).start(engine.library) as policy:
        policy.run(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(policy.read(f"{name}.out"), array, err_msg=name)
        for name in ("f32.1", "f64.1", "f16.1"):
            for bad in (np.nan, np.inf, -np.inf):
                array = arrays[name].copy()
                array[1] = bad
                with pytest.raises(Failure, match="NOT_FINITE.*element 1 of 3"):
                    policy.write(name, array)
        policy.step()
        assert policy.runs() == {"copy": 1}, "a refused input changes nothing"


def test_wrong_input(lib, engine, tmp_path):
    reactive = Reactive()
    inputs = reactive.inputs()
    with Policy(lib, engine.write(reactive.bundle, tmp_path)).start(engine.library) as policy:
        with pytest.raises(Failure, match='SOURCE_UNSET.*"instruction"'):
            policy.step()
        with pytest.raises(Failure, match="VALUE_UNSET"):
            policy.read("action")
        policy.run(inputs)
        with pytest.raises(Failure, match="WRONG_DTYPE.*f64.*f32"):
            policy.write("state", inputs["state"].astype(np.float64))
        with pytest.raises(Failure, match="WRONG_SHAPE.*1 dimensions, the plan says 2"):
            policy.write("state", inputs["state"][0])
        with pytest.raises(Failure, match="WRONG_SHAPE.*dimension 1 is 4, the plan says 3"):
            policy.write("state", np.zeros((1, 4), np.float32))
        policy.step()
        assert set(policy.runs().values()) == {1}


def test_actions_out_of_range_stay_inside(lib, engine, tmp_path):
    reactive = Reactive(low=(-9,) * 3, high=(9,) * 3)
    inputs = reactive.inputs()
    with Policy(lib, engine.write(reactive.bundle, tmp_path)).start(engine.library) as policy:
        policy.run(inputs)
        policy.write("state", np.asarray([[0, 100, 0]], np.float32))
        with pytest.raises(Failure, match="ACTION_OUT_OF_RANGE.*action 0 of the chunk, dimension 1"):
            policy.step()
        assert policy.queue().stale == 1
        np.testing.assert_allclose(policy.pop(), reactive.reference(inputs)["action"][0, 0], **TOLERANCE)
        policy.run(inputs)
        assert (policy.queue().stale, policy.totals().chunks_rejected) == (0, 1)


def test_deadline_keeps_what_ran(lib, engine, tmp_path):
    reactive = Reactive()
    with Policy(lib, engine.write(reactive.bundle, tmp_path)).start(engine.library) as policy:
        for name, array in reactive.inputs().items():
            policy.write(name, array)
        for _ in range(20):  # every attempt completes at least one stage or none, never half of one
            try:
                policy.step(deadline_us=1)
                break
            except Failure as failure:
                assert failure.status == "DEADLINE_MISSED"
        policy.step()
        assert set(policy.runs().values()) == {1}
        assert_outputs(policy, reactive.reference(reactive.inputs()))


def test_two_sessions_of_one_bundle_are_independent(lib, engine, tmp_path):
    reactive = Reactive()
    root = engine.write(reactive.bundle, tmp_path)
    with Policy(lib, root).start(engine.library) as one, Policy(lib, root).start(engine.library, threads=2) as two:
        one.run(reactive.inputs(0))
        two.run(reactive.inputs(1))
        assert_outputs(one, reactive.reference(reactive.inputs(0)))
        assert_outputs(two, reactive.reference(reactive.inputs(1)))


def test_introspection(lib, tmp_path):
    reactive = Reactive(low=(-1, -2, -3), high=(1, 2, 3), deadline_us=50000)
    with Policy(lib, reactive.bundle.write(tmp_path)) as policy:
        info = policy.info("vlart_bundle_info", BundleInfo, policy.bundle)
        assert (info.name, info.target, info.recipe) == (b"reactive", b"host", b"default")
        assert (info.chunk_steps, info.execute_steps, info.action_dim, info.deadline_us) == (4, 3, 3, 50000)
        assert (info.low[:3], info.high[:3]) == ([-1, -2, -3], [1, 2, 3])
        source = policy.info("vlart_bundle_source", SourceInfo, policy.bundle, policy.find("source", "image"))
        assert (source.update, source.clock_hz) == (vocabulary.UPDATES["observation"], 20.0)
        value = policy.info("vlart_bundle_value", ValueInfo, policy.bundle, source.value)
        assert (value.name, value.rank, value.dims[:2], value.bytes) == (b"image", 2, [4, 6], 24)
        stage = policy.info("vlart_bundle_stage", StageInfo, policy.bundle, policy.find("stage", "fusion"))
        assert (stage.depends, stage.iterations, stage.artefact) == (0b011, 1, b"stages/fusion.onnx")
        with pytest.raises(Failure, match="NOT_FOUND"):
            policy.find("source", "action")


def test_missing_library(lib, engine, tmp_path):
    root = engine.write(Reactive().bundle, tmp_path / "b")
    (tmp_path / "not.so").write_text("text")
    for path in (str(tmp_path / "absent.so"), str(tmp_path / "not.so"), str(BUILD / "libvlart.so")):
        with Policy(lib, root) as policy, pytest.raises(Failure, match="NO_BACKEND") as failure:
            policy.start(path)
        assert path in failure.value.where and f"pip install {engine.name}`" in failure.value.fix


def one_input_more(b: Bundle) -> None:
    """The first stage gets an input that its engine does not have."""
    stage = b.plan.records["stages"][0]
    begin = b.plan.add("bindings", **b.plan.records["bindings"][stage["input_begin"]])
    b.plan.add("bindings", port=b.plan.string("more"), value=b.values["gain"], mode=0)
    stage.update(input_begin=begin, input_count=2)


@pytest.mark.parametrize("change, match", [
    (one_input_more, "the engine has 1 of them, the plan 2"),
    (lambda b: b.plan.records["values"][b.values["text"]].update(dims=padded((8,)), rank=1),
     'output "text".*rank 2, the plan 1 and 1'),
    (lambda b: b.plan.records["bindings"][0].update(port=b.plan.string("other")),
     "input \"ids\".*the plan does not|'other' is not found"),
    (lambda b: b.plan.records["values"][b.values["text"]].update(dims=padded((2, 4)), rank=2),
     'output "text".*dimension 0 is 1 in the engine, 2 in the plan'),
    (lambda b: b.plan.records["values"][b.values["image"]].update(dtype=vocabulary.DTYPES["i8"]),
     'input "pixels".*element type 2'),
])
def test_engine_ports_must_be_the_plans(lib, engine, tmp_path, change, match):
    reactive = Reactive()
    change(reactive.bundle)
    with Policy(lib, engine.write(reactive.bundle, tmp_path)) as policy, pytest.raises(Failure, match=match) as failure:
        policy.start(engine.library)
    assert failure.value.status == "BACKEND_FAILED"


def test_a_weight_of_another_type_is_the_engines_error(lib, ort, tmp_path):
    reactive = Reactive()
    reactive.bundle.plan.records["weights"][1].update(dtype=vocabulary.DTYPES["i32"])
    with Policy(lib, reactive.bundle.write(tmp_path)) as policy, pytest.raises(Failure) as failure:
        policy.start(ort)
    assert failure.value.status == "BACKEND_FAILED" and "ONNX Runtime reports an error" in failure.value.what


def resident_mib(kind: str) -> float:
    """kind: "Anon", memory of this process alone, or "File", mapped files."""
    return int(re.search(rf"Rss{kind}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def session_mib(lib: Library, ort: str, root: Path, stages: int, kind: str = "Anon") -> float:
    """Memory that a session takes whose stages all use one weight of 36 MiB (larger than what malloc keeps when it
    is freed)."""
    b, n = Bundle("sharing"), 3072
    b.source("x", "f32", (8, n), "tick")
    shared = b.weight("w", np.random.default_rng(0).uniform(-1, 1, (n, n)).astype(np.float32) / n)
    for i in range(stages):
        b.value(f"y{i}", "f32", (8, n))
        b.stage(f"s{i}", [helper.make_node("MatMul", ["a", "w"], ["c"])], [0],
                [("a", f"y{i - 1}" if i else "x", "whole")], [("c", f"y{i}", "whole")], [("w", shared)])
    b.write(root)
    del b
    before = resident_mib(kind)
    with Policy(lib, root) as policy:
        policy.start(ort)
        policy.run({"x": np.ones((8, n), np.float32)})
        return resident_mib(kind) - before


def test_stages_share_one_packed_copy_of_a_weight(lib, ort, tmp_path):
    """A weight's pages stay those of the file, and it is packed once for all stages: unshared, four stages
    take three copies (108 MiB) more than one. malloc may give the first session memory that another freed,
    so up to one copy of difference says nothing."""
    session_mib(lib, ort, tmp_path / "0", 1)  # what the library takes when it is first loaded
    one, four = (session_mib(lib, ort, tmp_path / str(n), n) for n in (1, 4))
    assert four - one < 54


def test_a_packed_weight_is_not_resident_twice(lib, ort, tmp_path):
    """Opening reads the file to check it, and the engine to pack it: both give the file's pages back."""
    session_mib(lib, ort, tmp_path / "0", 1)  # the library's own pages
    assert session_mib(lib, ort, tmp_path / "1", 1, "File") < 6  # of 36
