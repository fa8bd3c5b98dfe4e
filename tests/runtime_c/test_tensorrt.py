"""The TensorRT backend, on a double of the machine: all but the calls of NVIDIA's libraries."""

from __future__ import annotations

import re
import subprocess
import zlib

import numpy as np
import pytest
from onnx import helper
from sample_bundles import Bundle, Flow, Reactive, Recall, sealed
from sample_carried import Adding
from sample_lock import lock_bytes
from sample_loops import Ending
from vlart_ctypes import Failure, Policy

from tests.runtime_c.running import BUILD, assert_outputs, run_tool
from tests.runtime_c.tensorrt import LOCK, Board, built, for_tensorrt, lock, refused, start
from tests.runtime_c.test_tools import with_golden
from vlart.bundle.format import layout
from vlart.bundle.format.sections import SectionWriter

# ---- what an engine must be to a session: the cases of test_running, on this engine ------------------------------


def test_reactive_results(lib, board, tmp_path):
    reactive = Reactive()
    with Policy(lib, built(board, reactive.bundle, tmp_path / "b")).start(None, **board.options) as policy:
        for seed in range(4):
            inputs = reactive.inputs(seed)
            policy.run(inputs)
            assert_outputs(policy, reactive.reference(inputs))


@pytest.mark.parametrize("whole", [0, 1])
@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
def test_loop_results(lib, board, tmp_path, iterations, whole):
    flow = Flow(iterations)
    path = built(board, flow.bundle, tmp_path / "b")
    with Policy(lib, path).start(None, whole_tick=whole, **board.options) as policy:
        inputs = flow.inputs()
        policy.run(inputs)
        assert_outputs(policy, flow.reference(inputs))
        inputs = {**inputs, "noise": flow.inputs(1)["noise"]}
        policy.run(inputs)
        assert_outputs(policy, flow.reference(inputs))
        assert policy.runs() == {"prefix": 1, "denoise": 2}


@pytest.mark.parametrize("whole", [0, 1])
@pytest.mark.parametrize("most", [3, 4])
def test_a_loop_that_the_data_ends_runs_a_graph_per_iteration(lib, board, tmp_path, most, whole):
    ending = Ending(most)
    path = built(board, ending.bundle, tmp_path / "b")
    board.set()
    with Policy(lib, path).start(None, whole_tick=whole, **board.options) as policy:
        recorded = [line.split()[1] for line in board.calls("record")]
        assert recorded.count("halve") == most and "act" in recorded
        for turns in (1, 3, 2, 9):
            before = len(board.trace.read_text())
            policy.run(ending.inputs(turns))
            assert_outputs(policy, ending.reference(ending.inputs(turns)))
            assert len(board.trace.read_text()[before:].splitlines()) == min(turns, most) + 1  # and the stage behind it


def test_a_whole_tick_does_not_end_in_a_loop_that_the_data_ends(lib, board, tmp_path):
    ending = Ending(3)
    ending.bundle.policy.update(action_value=ending.bundle.values["small"])
    with pytest.raises(Failure, match="the data decides when the last stage ends"), \
            Policy(lib, built(board, ending.bundle, tmp_path / "b")).start(None, whole_tick=1, **board.options):
        pass


@pytest.mark.parametrize("whole", [0, 1])
def test_only_dirty_stages_run(lib, board, tmp_path, whole):
    reactive = Reactive()
    inputs = reactive.inputs()
    path = built(board, reactive.bundle, tmp_path / "b")
    with Policy(lib, path).start(None, whole_tick=whole, **board.options) as policy:
        policy.run(inputs)
        policy.run({k: v.copy() for k, v in inputs.items()})
        assert set(policy.runs().values()) == {1}, "equal bytes mark nothing dirty"
        for source, reruns in (("instruction", {"language", "fusion", "head"}), ("image", {"vision", "fusion", "head"}),
                               ("state", {"head"})):
            before = policy.runs()
            inputs = {**inputs, source: reactive.inputs(7)[source]}
            policy.run(inputs)
            assert {n for n, count in policy.runs().items() if count > before[n]} == reruns
            assert_outputs(policy, reactive.reference(inputs))


def test_histories(lib, board, tmp_path):
    recall = Recall()
    seen = [recall.inputs(seed) for seed in range(5)]
    path = built(board, recall.bundle, tmp_path / "b")
    with Policy(lib, path).start(None, **board.options) as policy:
        for i, inputs in enumerate(seen):
            policy.run(inputs)
            assert_outputs(policy, recall.reference([{**o, "gain": inputs["gain"]} for o in seen[: i + 1]]))
    with pytest.raises(Failure, match="UNSUPPORTED.*has a history"):
        Policy(lib, path).start(None, whole_tick=1, **board.options)


def test_carried_values_change_their_places_and_are_not_copied(lib, board, tmp_path):
    """Both ways round are recorded when the session is made; a step is a launch per stage."""
    adding = Adding()
    given = [adding.inputs(seed) for seed in range(5)]
    for i, inputs in enumerate(given[:2]):
        adding.bundle.frame(f"step {i}", inputs, adding.reference(given[: i + 1]))
    path = built(board, adding.bundle, tmp_path / "b")
    board.set()
    with Policy(lib, path).start(None, **board.options) as policy:
        before = board.trace.read_text()
        for i, inputs in enumerate(given):
            policy.run(inputs)
            assert_outputs(policy, adding.reference(given[: i + 1]))
        ticks = board.trace.read_text()[len(before):].splitlines()
        assert [line.split()[0] for line in ticks] == ["launch"] * 2 * len(given)
    with pytest.raises(Failure, match="UNSUPPORTED.*carries values"):
        Policy(lib, path).start(None, whole_tick=1, **board.options)


def test_every_dtype_passes_through(lib, board, tmp_path):
    b, arrays = Bundle("dtypes"), {}
    for i, dtype in enumerate((np.float32, np.float16, np.int8, np.int32, np.int64, np.uint8, np.bool_)):
        name = {"float32": "f32", "float16": "f16", "int8": "i8", "int32": "i32", "int64": "i64", "uint8": "u8",
                "bool": "bool"}[np.dtype(dtype).name]
        for dims in ((), (3,), (1, 2, 1, 2, 1, 1, 1, 3)):
            b.source(f"{name}.{len(dims)}", name, dims, "tick")
            b.value(f"{name}.{len(dims)}.out", name, dims)
            arrays[f"{name}.{len(dims)}"] = (np.random.default_rng(i).uniform(0, 90, dims) // 45 * 45).astype(dtype)
    ports = [(f"i{k}", name, "whole") for k, name in enumerate(arrays)]
    b.stage("copy", [helper.make_node("Identity", [p], [p.replace("i", "o")]) for p, _, _ in ports],
            range(len(ports)), ports, [(p.replace("i", "o"), f"{v}.out", m) for p, v, m in ports])
    with Policy(lib, built(board, b, tmp_path / "b")).start(None, **board.options) as policy:
        policy.run(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(policy.read(f"{name}.out"), array, err_msg=name)


@pytest.mark.parametrize("stages", [{"vision", "head"}, {"fusion"}])
def test_stages_beside_another_engine(lib, ort, board, tmp_path, stages):
    """The other engine works on the same memory, which the GPU gave."""
    reactive = Reactive()
    path = built(board, with_golden(reactive), tmp_path / "b", stages)
    assert {e["stage"] for e in lock(path)["engines"]} == stages
    with Policy(lib, path).start(ort, **board.options) as policy:
        for seed in range(2):
            policy.run(reactive.inputs(seed))
            assert_outputs(policy, reactive.reference(reactive.inputs(seed)))


# ---- recorded work -----------------------------------------------------------------------------------------------


def test_nothing_is_copied_between_aligned_values(lib, board, tmp_path):
    """Each tick launches recorded work, one launch per iteration, and allocates nothing."""
    flow = Flow(3)
    path = built(board, flow.bundle, tmp_path / "b")
    board.set()
    with Policy(lib, path).start(None, **board.options) as policy:
        assert board.calls("allocate", "upload").count("allocate shared") == 1
        assert board.calls("upload") == ["upload "] * 3, "each row of the table, once"
        before = board.trace.read_text()
        policy.run(flow.inputs())
        policy.run(flow.inputs(1))
        ticks = board.trace.read_text()[len(before):].splitlines()
        assert [line.split()[0] for line in ticks] == ["launch"] * 2 * (1 + 3)


def test_a_whole_tick_is_one_launch(lib, board, tmp_path):
    flow = Flow(3)
    path = built(board, flow.bundle, tmp_path / "b")
    board.set()
    with Policy(lib, path).start(None, whole_tick=1, **board.options) as policy:
        before = board.trace.read_text()
        policy.run(flow.inputs())
        assert len(board.trace.read_text()[len(before):].splitlines()) == 1
        assert policy.runs() == {"prefix": 1, "denoise": 1}
        inputs = {**flow.inputs(), "noise": flow.inputs(1)["noise"]}
        policy.run(inputs)  # the prefix is not due: stage by stage
        assert len(board.trace.read_text()[len(before):].splitlines()) == 1 + 3
        assert_outputs(policy, flow.reference(inputs))
        recorded = [line.split()[1] for line in board.calls("record")]
        assert recorded[-4:] == ["prefix", "denoise", "denoise", "denoise"]


def test_a_tick_is_recorded_up_to_the_actions_and_not_before_the_observation(lib, board, tmp_path):
    path = built(board, Reactive().bundle, tmp_path / "b")
    board.set()
    with Policy(lib, path).start(None, whole_tick=1, **board.options):
        assert [line.split()[1] for line in board.calls("record")][-3:] == ["vision", "fusion", "head"]


@pytest.mark.parametrize("call", ["open", "allocate", "upload", "load", "port", "bind", "enqueue", "wait", "begin",
                                  "end", "copy", "launch"])
def test_a_failing_call_is_named_and_leaves_nothing_behind(lib, board, tmp_path, call):
    """The double ends the process if memory stays behind."""
    flow = Flow(3)
    path = built(board, flow.bundle, tmp_path / "b")
    board.set(fail_call=call)
    with Policy(lib, path) as policy:
        with pytest.raises(Failure, match=f"BACKEND_FAILED.*out of luck in {call}") as failure:
            policy.start(None, **board.options)
            policy.run(flow.inputs())
        assert failure.value.where
    board.set(fail_call="")
    with Policy(lib, path).start(None, **board.options) as policy:
        policy.run(flow.inputs())
        assert_outputs(policy, flow.reference(flow.inputs()))


# ---- who may run -------------------------------------------------------------------------------------------------


def test_engines_must_have_been_built(lib, board, tmp_path):
    path = for_tensorrt(Flow(2).bundle).write(tmp_path / "b")
    with pytest.raises(Failure, match="NOT_FOUND.*not built.*vlart-build"):
        start(lib, board, path)
    with pytest.raises(Failure, match="NO_BACKEND.*absent.*make -C runtime_c tensorrt"), Policy(lib, path) as policy:
        policy.start(None, tensorrt_library=b"/absent/libvlart_tensorrt.so")
    with pytest.raises(Failure, match="NO_BACKEND.*does not export"), Policy(lib, path) as policy:
        policy.start(None, tensorrt_library=str(BUILD / "libvlart.so").encode())


@pytest.mark.parametrize("change, words", [
    ({"tensorrt": "10.16.2.10"}, "TensorRT 10.3, here is 10.16.2.10"),
    ({"tensorrt": "10.30.0.1"}, "TensorRT 10.3, here is 10.30.0.1"),
    ({"compute_capability": 86}, "compute capability 87, here is 86"),
    ("39 (release), REVISION: 2.0", "JetPack 6.2, here is 7.2"),
    ("36 (release), REVISION: 4.0", "JetPack 6.2, here is 6.1"),
    ("p3767-0000", "board orin-nano-8gb, here is orin-nx-16gb"),
])
def test_bundles_for_another_machine_are_refused(lib, board, tmp_path, change, words):
    """Before and after their engines are built, by the builder and by the runtime."""
    path = for_tensorrt(Flow(2).bundle).write(tmp_path / "b")
    for _ in range(2):
        if isinstance(change, dict):
            board.set(**change)
        elif change.startswith("p"):
            board.module(change)
        else:
            board.release(change)
        with pytest.raises(Failure, match=f"UNSUPPORTED.*bundle was built for another machine.*{words}.*target"):
            start(lib, board, path)
        refused(board.build(path), "another machine", words)
        (board.root / "again").mkdir(exist_ok=True)
        board = Board(board.root / "again")
        assert board.build(path).returncode == 0
    start(lib, board, path)


def test_a_name_beyond_ascii_is_the_same_when_it_is_read_again(lib, board, tmp_path):
    board.file("proc/device-tree/model", 'Tr\u00e4ger\twith "Orin" \\ 2\0')
    path = built(board, Flow(2).bundle, tmp_path / "b")
    assert lock(path)["model"] == 'Tr??ger?with "Orin" \\ 2'
    start(lib, board, path)


def test_what_a_machine_does_not_say_is_not_compared(lib, board, tmp_path):
    """In a container, say: no release file and no device tree."""
    for name in ("etc/nv_tegra_release", "proc/device-tree/compatible", "proc/device-tree/model"):
        (board.system / name).unlink()
    path = built(board, Flow(2).bundle, tmp_path / "b")
    assert {lock(path)[k] for k in ("jetpack", "l4t", "model")} == {"unknown"}
    start(lib, board, path)


@pytest.mark.parametrize("change, words", [
    ({"tensorrt": "10.3.1.1"}, "TensorRT 10.3.0.30, here is 10.3.1.1"),
    ({"gpu": "Orin (nvgpu)"}, r"the GPU Orin, a double, here is Orin \(nvgpu\), a double"),
    ("36 (release), REVISION: 4.4", "JetPack 6.2, here is 6.2.1"),
    ("17 (release), REVISION: 1.0", "JetPack 6.2, here is unknown"),
    ("model", "the board NVIDIA Jetson Orin Nano Developer Kit, here is NVIDIA Jetson Orin NX"),
])
def test_engines_of_another_machine_are_refused(lib, board, tmp_path, change, words):
    path = built(board, Flow(2).bundle, tmp_path / "b")
    start(lib, board, path)
    if change == "model":
        board.file("proc/device-tree/model", "NVIDIA Jetson Orin NX")
    elif isinstance(change, str):
        board.release(change)
    else:
        board.set(**change)
    with pytest.raises(Failure, match=f"UNSUPPORTED.*another machine.*{words}.*run vlart-build"):
        start(lib, board, path)
    assert board.build(path).returncode == 0  # on the new machine, all anew
    start(lib, board, path)


def test_engines_of_another_plan_are_refused_and_kept_where_they_fit(lib, board, tmp_path):
    path = built(board, Reactive().bundle, tmp_path / "b")
    other = Reactive(deadline_us=100000)  # another plan of the same stages
    for_tensorrt(other.bundle).write(path)
    with pytest.raises(Failure, match="UNSUPPORTED.*another plan.*says plan [0-9a-f]{8}, plan.bin is"):
        start(lib, board, path)
    board.set()
    assert board.build(path).stdout.count(" kept ") == 4
    assert board.calls("build") == []
    start(lib, board, path)


def test_altered_engines_are_refused(lib, board, tmp_path):
    path = built(board, Flow(2).bundle, tmp_path / "b")
    engine = path / "engines/denoise.plan"
    whole = engine.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        engine.write_bytes(damaged)
        with pytest.raises(Failure, match='CORRUPT.*altered.*stage "denoise"'):
            start(lib, board, path)
    engine.unlink()
    with pytest.raises(Failure, match="IO.*denoise.plan.*no such file"):
        start(lib, board, path)
    board.set()
    done = board.build(path)
    assert done.returncode == 0 and len(board.calls("build")) == 1
    assert engine.read_bytes() == whole
    start(lib, board, path)


def test_a_damaged_lock_is_refused_and_does_no_harm(lib, board, tmp_path):
    path = built(board, Flow(2).bundle, tmp_path / "b")
    whole = (path / LOCK).read_bytes()
    for at in range(0, len(whole), 7):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1:]):
            (path / LOCK).write_bytes(damaged)
            with pytest.raises(Failure, match="CORRUPT|NOT_A_BUNDLE") as failure:
                start(lib, board, path)
            assert failure.value.why and failure.value.fix == "run vlart-build on this bundle again"
    (path / LOCK).write_bytes(b"")
    with pytest.raises(Failure, match="NOT_A_BUNDLE"):
        start(lib, board, path)
    assert board.build(path).returncode == 0
    assert lock(path)["golden"] == "none"


def test_a_lock_of_an_earlier_version_is_refused_and_built_anew(lib, board, tmp_path):
    path = built(board, Flow(2).bundle, tmp_path / "b")
    old = path / "engines/lock.json"
    (path / LOCK).unlink()
    old.write_text('{"format": 1, "plan_crc32": "0011aaff", "golden": "passed", "engines": []}')
    with pytest.raises(Failure, match="VERSION.*earlier vlart-build.*lock.json") as failure:
        start(lib, board, path)
    assert failure.value.fix == "run vlart-build on this bundle again"
    board.set()
    assert board.build(path).returncode == 0
    assert len(board.calls("build")) == len(lock(path)["engines"]) > 0 and not old.exists()
    start(lib, board, path)


ANOTHER = {
    "golden": (lambda rows: rows.update(golden=9), r"lock\[0\].*golden 9 is unknown"),
    "string": (lambda rows: rows.update(model=1 << 20), r"lock\[0\].*string begins outside"),
    "stage": (lambda rows: rows["engines"][1].update(stage=1 << 20), r"engines\[1\].*string begins outside"),
    "absolute": (lambda rows: rows["engines"][0].update(file="/etc/passwd"), r"engines\[0\].*outside of the bundle"),
    "above": (lambda rows: rows["engines"][0].update(file="engines/../../x"), r"engines\[0\].*outside of the bundle"),
    "nameless": (lambda rows: rows["engines"][0].update(file=""), r"engines\[0\].*outside of the bundle"),
}


@pytest.mark.parametrize("rule", ANOTHER)
def test_records_of_a_lock_are_checked(lib, board, tmp_path, rule):
    """One change per rule, checksums right."""
    apply, why = ANOTHER[rule]
    path = built(board, Flow(2).bundle, tmp_path / "b")
    rows = lock(path)
    apply(rows)
    (path / LOCK).write_bytes(lock_bytes(rows))
    with pytest.raises(Failure) as failure:
        start(lib, board, path)
    assert failure.value.status == "CORRUPT" and failure.value.fix == "run vlart-build on this bundle again"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


def test_a_lock_of_another_number_of_records_or_version_is_refused(lib, board, tmp_path):
    path = built(board, Flow(2).bundle, tmp_path / "b")
    whole = (path / LOCK).read_bytes()
    major = sealed(whole[:8] + b"\x07" + whole[9:])
    for data, status in ((major, "VERSION"), ((path / "plan.bin").read_bytes(), "NOT_A_BUNDLE"),
                         (SectionWriter(layout.LOCK_MAGIC, layout.LOCK_SECTIONS).to_bytes(), "CORRUPT")):
        (path / LOCK).write_bytes(data)
        with pytest.raises(Failure) as failure:
            start(lib, board, path)
        assert failure.value.status == status and failure.value.fix == "run vlart-build on this bundle again"


def test_ports_must_be_the_plans(lib, board, tmp_path):
    path = built(board, Flow(2).bundle, tmp_path / "b")
    other = for_tensorrt(Flow(3).bundle)
    rows = lock(path)
    entry = next(e for e in rows["engines"] if e["stage"] == "prefix")
    entry["file"] = "engines/denoise.plan"  # another stage's engine under this stage's name
    data = (path / "engines/denoise.plan").read_bytes()
    entry.update(bytes=len(data), crc32=zlib.crc32(data))
    (path / LOCK).write_bytes(lock_bytes(rows))
    with pytest.raises(Failure, match="BACKEND_FAILED.*ports are not those of the plan"):
        start(lib, board, path)
    assert other.files


# ---- under sanitizers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [Reactive, lambda: Flow(4)])
def test_c_tensorrt(sanitized, tmp_path, sample):
    """vlart-build, vlart-run and a C program that counts allocations, under ASan and UBSan."""
    (tmp_path / "board").mkdir()
    board = Board(tmp_path / "board", sanitized)
    path = built(board, with_golden(sample()), tmp_path / "b")
    subprocess.run([sanitized / "test_tensorrt", path, board.library], check=True, timeout=60)
    for arguments in ([], ["--whole-tick"]):
        done = run_tool(sanitized / "vlart-run", path, "--tensorrt", board.library, "--self-test", *arguments)
        assert done.returncode == 0 and "self-test passed" in done.stdout, done.stderr
    board.set(fail_call="launch")
    done = run_tool(sanitized / "vlart-run", path, "--tensorrt", board.library, "--self-test")
    assert done.returncode == 1 and "out of luck" in done.stderr and "Sanitizer" not in done.stderr
    board.set(crash_stage="denoise", fail_call="")
    done = board.build(path, "--rebuild")
    assert "Sanitizer" not in done.stderr
