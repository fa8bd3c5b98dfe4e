"""libvlart: the C runtime, its tools and its C tests, on bundles written record by record.

The C programs (`runtime_c/tests`) cover what needs a null engine: arena sweeps, no allocation,
deadlines, unsafe actions, damaged plans under ASan and UBSan. Here: the real engine, the tools,
and one mutation per rule that the reader enforces.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from vlacompile.bundle import layout
from vlacompile.bundle.header import c_header

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "runtime_c"
BUILD = ROOT / "build" / "test_runtime_c"
sys.path.insert(0, str(RUNTIME / "tests"))

from plan_damage import FRAMES, STRUCTURE  # noqa: E402
from sample_bundles import NONE, Bundle, Flow, Reactive, padded, sealed  # noqa: E402
from vlart_ctypes import BundleInfo, Failure, Library, Policy, SourceInfo, StageInfo, ValueInfo  # noqa: E402

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def make(*targets: str) -> None:
    subprocess.run(["make", "-s", "-C", str(RUNTIME), f"TEST_PYTHON={sys.executable}", *targets], check=True)


def ort_path() -> str:
    spec = importlib.util.find_spec("onnxruntime")
    return str(next((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*")))


@pytest.fixture(scope="session")
def ort() -> str:
    return ort_path()


@pytest.fixture(scope="session")
def lib() -> Library:
    make(f"BUILD={BUILD}", "all")
    return Library(BUILD / "libvlart.so")


@pytest.fixture(scope="session")
def sanitized() -> Path:
    build = BUILD / "sanitize"
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
    make(f"BUILD={build}", f"OPT={flags}", "test-programs", "samples")
    return build


def run_tool(name: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([str(BUILD / name), *map(str, arguments)], capture_output=True, text=True, timeout=60)


def assert_outputs(policy: Policy, expected: dict[str, np.ndarray]) -> None:
    for name, want in expected.items():
        np.testing.assert_allclose(policy.read(name), want, **TOLERANCE, err_msg=name)


# ---- contract ------------------------------------------------------------------------------------


def test_layout_header_is_current():
    assert (RUNTIME / "include/vlart/vlart_layout.h").read_text() == c_header()


def test_library_has_no_globals_and_calls_nothing_forbidden(lib):
    """No mutable data, and in src/ neither allocation nor printing, locking or ending the process."""
    forbidden = {"malloc", "calloc", "realloc", "free", "printf", "fprintf", "puts", "abort", "exit", "qsort",
                 "getenv", "pthread_mutex_lock", "strerror"}
    objects = [*(BUILD / "obj/src").glob("*.o"), *(BUILD / "obj/backends").glob("*/*.o")]
    assert len(objects) > 20
    for path in objects:
        sections = subprocess.run(["size", "-A", str(path)], capture_output=True, text=True, check=True).stdout
        sizes = dict(re.findall(r"^(\.data|\.bss)\s+(\d+)", sections, re.M))
        assert sizes == {".data": "0", ".bss": "0"}, path.name
        undefined = subprocess.run(["nm", "-u", str(path)], capture_output=True, text=True, check=True).stdout
        assert not forbidden & set(re.findall(r"U (\w+)", undefined)), path.name


def test_only_the_public_functions_are_exported(lib):
    table = subprocess.run(["nm", "-D", "--defined-only", str(BUILD / "libvlart.so")], capture_output=True,
                           text=True, check=True).stdout
    declared = set(re.findall(r"^VLART_API[^;]*?(vlart_\w+)\(", (RUNTIME / "include/vlart/vlart.h").read_text(),
                              re.M | re.S))
    assert set(re.findall(r" T (\w+)", table)) == declared


def test_header_compiles_as_cxx_and_pedantic_c(tmp_path):
    (tmp_path / "a.c").write_text('#include "vlart/vlart.h"\nint main(void) { return VLART_STATUS_OK; }\n')
    for language in (("c", "-std=c11"), ("c++", "-std=c++11")):
        subprocess.run(["gcc", "-x", language[0], language[1], "-Wall", "-Wextra", "-Wpedantic", "-Werror",
                        "-fsyntax-only", f"-I{RUNTIME / 'include'}", str(tmp_path / "a.c")], check=True)


# ---- C tests under ASan and UBSan ----------------------------------------------------------------


def test_c_units(sanitized):
    """`abi_v1` asserts the ABI of version 1 while it compiles."""
    subprocess.run([sanitized / "abi_v1"], check=True, timeout=60)
    subprocess.run([sanitized / "test_unit"], check=True, timeout=60)


def test_c_session(sanitized):
    subprocess.run([sanitized / "test_session", sanitized / "samples/reactive"], check=True, timeout=60)


@pytest.mark.parametrize("file", ["reactive/plan.bin", "flow/plan.bin", "reactive/golden/golden.bin"])
def test_damaged_files_do_no_harm(sanitized, file):
    """Every truncation, bit and word, with and without right checksums; what is accepted is run."""
    done = subprocess.run([sanitized / "fuzz_open", "--sweep", "-n", "5000", sanitized / "samples" / file],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    read, accepted, stepped = map(int, re.findall(r"\d+", done.stdout))
    assert read > 20000 and 0 < accepted < read
    assert stepped > 0 or "golden" in file


# ---- running on ONNX Runtime ---------------------------------------------------------------------


def test_reactive_results(lib, ort, tmp_path):
    reactive = Reactive()
    with Policy(lib, reactive.bundle.write(tmp_path)).start(ort) as policy:
        for seed in range(4):
            inputs = reactive.inputs(seed)
            policy.run(inputs)
            want = reactive.reference(inputs)
            assert_outputs(policy, want)
            for k in range(reactive.h):
                np.testing.assert_allclose(policy.pop(), want["action"][0, k], **TOLERANCE)


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
def test_loop_results(lib, ort, tmp_path, iterations):
    """The carry's two buffers, the row table and a row output, for odd and even K; twice, from cached prefixes."""
    flow = Flow(iterations)
    with Policy(lib, flow.bundle.write(tmp_path)).start(ort) as policy:
        inputs = flow.inputs()
        policy.run(inputs)
        assert_outputs(policy, flow.reference(inputs))
        inputs = {**inputs, "noise": flow.inputs(1)["noise"]}
        policy.run(inputs)
        assert_outputs(policy, flow.reference(inputs))
        assert policy.runs() == {"prefix": 1, "denoise": 2}


def test_only_dirty_stages_run(lib, ort, tmp_path):
    reactive = Reactive()
    inputs = reactive.inputs()
    with Policy(lib, reactive.bundle.write(tmp_path)).start(ort) as policy:
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


def test_queue(lib, ort, tmp_path):
    reactive = Reactive()
    with Policy(lib, reactive.bundle.write(tmp_path)).start(ort) as policy:
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


def test_every_dtype_and_rank_passes_through(lib, ort, tmp_path):
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
    with Policy(lib, b.write(tmp_path)).start(ort) as policy:
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


def test_wrong_input(lib, ort, tmp_path):
    reactive = Reactive()
    inputs = reactive.inputs()
    with Policy(lib, reactive.bundle.write(tmp_path)).start(ort) as policy:
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


def test_actions_out_of_range_stay_inside(lib, ort, tmp_path):
    reactive = Reactive(low=(-9,) * 3, high=(9,) * 3)
    inputs = reactive.inputs()
    with Policy(lib, reactive.bundle.write(tmp_path)).start(ort) as policy:
        policy.run(inputs)
        policy.write("state", np.asarray([[0, 100, 0]], np.float32))
        with pytest.raises(Failure, match="ACTION_OUT_OF_RANGE.*action 0 of the chunk, dimension 1"):
            policy.step()
        assert policy.queue().stale == 1
        np.testing.assert_allclose(policy.pop(), reactive.reference(inputs)["action"][0, 0], **TOLERANCE)
        policy.run(inputs)
        assert (policy.queue().stale, policy.totals().chunks_rejected) == (0, 1)


def test_deadline_keeps_what_ran(lib, ort, tmp_path):
    reactive = Reactive()
    with Policy(lib, reactive.bundle.write(tmp_path)).start(ort) as policy:
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


def test_two_sessions_of_one_bundle_are_independent(lib, ort, tmp_path):
    reactive = Reactive()
    root = reactive.bundle.write(tmp_path)
    with Policy(lib, root).start(ort) as one, Policy(lib, root).start(ort, threads=2) as two:
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
        assert (source.update, source.clock_hz) == (layout.UPDATES["observation"], 20.0)
        value = policy.info("vlart_bundle_value", ValueInfo, policy.bundle, source.value)
        assert (value.name, value.rank, value.dims[:2], value.bytes) == (b"image", 2, [4, 6], 24)
        stage = policy.info("vlart_bundle_stage", StageInfo, policy.bundle, policy.find("stage", "fusion"))
        assert (stage.depends, stage.iterations, stage.artefact) == (0b011, 1, b"stages/fusion.onnx")
        with pytest.raises(Failure, match="NOT_FOUND"):
            policy.find("source", "action")


# ---- the engine ----------------------------------------------------------------------------------


def test_missing_library(lib, tmp_path):
    root = Reactive().bundle.write(tmp_path / "b")
    (tmp_path / "not.so").write_text("text")
    for path in (str(tmp_path / "absent.so"), str(tmp_path / "not.so"), str(BUILD / "libvlart.so")):
        with Policy(lib, root) as policy, pytest.raises(Failure, match="NO_BACKEND") as failure:
            policy.start(path)
        assert path in failure.value.where and "pip install onnxruntime" in failure.value.fix


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
    (lambda b: b.plan.records["bindings"][0].update(port=b.plan.string("other")), 'input "ids".*the plan does not'),
    (lambda b: b.plan.records["values"][b.values["text"]].update(dims=padded((2, 4)), rank=2),
     'output "text".*dimension 0 is 1 in the engine, 2 in the plan'),
    (lambda b: b.plan.records["values"][b.values["image"]].update(dtype=layout.DTYPES["i8"]),
     'input "pixels".*element type 2'),
    (lambda b: b.plan.records["weights"][1].update(dtype=layout.DTYPES["i32"]), "ONNX Runtime reports an error"),
])
def test_engine_ports_must_be_the_plans(lib, ort, tmp_path, change, match):
    reactive = Reactive()
    change(reactive.bundle)
    with Policy(lib, reactive.bundle.write(tmp_path)) as policy, pytest.raises(Failure, match=match) as failure:
        policy.start(ort)
    assert failure.value.status == "BACKEND_FAILED"


def anonymous_mib() -> float:
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def session_mib(lib: Library, ort: str, root: Path, stages: int) -> float:
    """Anonymous memory that a session takes whose stages all use one weight of 36 MiB (larger than what malloc keeps when it is freed)."""
    b, n = Bundle("sharing"), 3072
    b.source("x", "f32", (8, n), "tick")
    shared = b.weight("w", np.random.default_rng(0).uniform(-1, 1, (n, n)).astype(np.float32) / n)
    for i in range(stages):
        b.value(f"y{i}", "f32", (8, n))
        b.stage(f"s{i}", [helper.make_node("MatMul", ["a", "w"], ["c"])], [0],
                [("a", f"y{i - 1}" if i else "x", "whole")], [("c", f"y{i}", "whole")], [("w", shared)])
    b.write(root)
    del b
    with Policy(lib, root) as policy:
        before = anonymous_mib()
        policy.start(ort)
        policy.run({"x": np.ones((8, n), np.float32)})
        return anonymous_mib() - before


def test_stages_share_one_packed_copy_of_a_weight(lib, ort, tmp_path):
    """A weight's pages stay those of the file, and it is packed once for all stages: unshared, four stages
    take three copies (108 MiB) more than one. malloc may give the first session memory that another freed,
    so up to one copy of difference says nothing."""
    session_mib(lib, ort, tmp_path / "0", 1)  # what the library takes when it is first loaded
    one, four = (session_mib(lib, ort, tmp_path / str(n), n) for n in (1, 4))
    assert four - one < 54


# ---- damaged bundles -----------------------------------------------------------------------------


def test_damaged_files_are_named(lib, tmp_path):
    def opened(root):
        with Policy(lib, root):
            pass

    for number, (path, change, status) in enumerate([
        ("stages/weights.bin", lambda d: d[:-1] + bytes([d[-1] ^ 1]), "CORRUPT"),
        ("stages/head.onnx", lambda d: d + b"x", "CORRUPT"),
        ("stages/vision.onnx", lambda d: None, "IO"),
        ("plan.bin", lambda d: None, "IO"),
        ("plan.bin", lambda d: b"", "NOT_A_BUNDLE"),
        ("plan.bin", lambda d: b"something else entirely" * 10, "NOT_A_BUNDLE"),
        ("plan.bin", lambda d: sealed(d[:8] + b"\x07" + d[9:]), "VERSION"),
        ("plan.bin", lambda d: d[:500] + bytes([d[500] ^ 4]) + d[501:], "CORRUPT"),
        ("plan.bin", lambda d: d[:-64], "CORRUPT"),
    ]):
        root = Reactive().bundle.write(tmp_path / str(number))
        opened(root)
        data = change((root / path).read_bytes())
        (root / path).unlink() if data is None else (root / path).write_bytes(data)
        with pytest.raises(Failure) as failure:
            opened(root)
        assert failure.value.status == status, failure.value
        assert Path(path).name in failure.value.where and failure.value.why and failure.value.fix


@pytest.mark.parametrize("rule", STRUCTURE)
def test_structure_is_checked(lib, tmp_path, rule):
    """One mutation per rule, checksums right: the rule itself must refuse it, and say why."""
    apply, why = STRUCTURE[rule]
    flow = Flow(3)
    root = flow.bundle.write(tmp_path)
    plan = flow.bundle.plan_container()
    apply(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


def test_beyond_this_reader_is_unsupported_not_corrupt(lib, ort, tmp_path):
    def opened(name: str, section: str, index: int, **fields) -> Policy:
        flow = Flow(3)
        flow.bundle.plan.records[section][index].update(fields)
        return Policy(lib, flow.bundle.write(tmp_path / name))

    with pytest.raises(Failure, match="UNSUPPORTED.*65537 iterations"):
        opened("loop", "stages", 0, iterations=65537)
    with pytest.raises(Failure, match="UNSUPPORTED.*backend 4"):
        opened("unknown", "stages", 0, backend=4)
    with opened("tvm", "stages", 0, backend=layout.BACKENDS["tvm"]) as policy:
        with pytest.raises(Failure, match='UNSUPPORTED.*stage "prefix"'):
            policy.start(ort)
    many = Bundle("many")
    for i in range(65):
        many.source(f"s{i}", "f32", (1,), "tick")
    with pytest.raises(Failure, match="UNSUPPORTED.*65"):
        Policy(lib, many.write(tmp_path / "many"))


def test_later_minor_versions_are_read(lib, ort, tmp_path):
    """Longer records, an unknown section and reserved fields in use do not disturb this reader."""
    flow = Flow(2)
    root = flow.bundle.write(tmp_path)
    plan = flow.bundle.plan_container()
    plan.later = True
    plan.records["values"][0]["reserved"] = 7
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with Policy(lib, root).start(ort) as policy:
        assert policy.info("vlart_bundle_info", BundleInfo, policy.bundle).format_minor == layout.FORMAT_MINOR + 1
        policy.run(flow.inputs())
        assert_outputs(policy, flow.reference(flow.inputs()))


# ---- tools ---------------------------------------------------------------------------------------


def with_golden(policy, **tolerance) -> Bundle:
    for seed in range(2):
        inputs = policy.inputs(seed)
        policy.bundle.frame(f"seed {seed}", inputs, policy.reference(inputs), **tolerance)
    return policy.bundle


def test_self_test_passes(lib, ort, tmp_path):
    for name, policy in (("a", Reactive()), ("b", Flow(4))):
        root = with_golden(policy).write(tmp_path / name)
        done = run_tool("vlart-run", root, "--ort", ort, "--self-test")
        assert done.returncode == 0, done.stderr
        assert "self-test passed" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 80
        report = json.loads(run_tool("vlart-run", root, "--ort", ort, "--self-test", "--json", "--repeat", 3).stdout)
        assert report["status"] == "OK" and all(v["failed"] == 0 for v in report["values"])


def test_self_test_fails_on_wrong_golden(lib, ort, tmp_path):
    """Negative controls: each of the three metrics alone can fail the gate, and so can a changed weight."""
    scaled, shifted = Reactive(), Reactive()
    inputs = scaled.inputs()
    good = scaled.reference(inputs)["text"]
    scaled.bundle.frame("scaled", inputs, {"text": good * np.float32(1.1)}, max_abs=10, rel_l2=0.05, cosine=0.999)
    shifted.bundle.frame("one element", inputs, {"text": good + np.eye(1, 8, dtype=np.float32)}, max_abs=0.5,
                         rel_l2=10, cosine=-1)
    turned = Reactive()
    turned.bundle.frame("turned", inputs, {"text": -good}, max_abs=1e3, rel_l2=10, cosine=0)
    weight = Reactive()
    with_golden(weight)
    at = weight.bundle.plan.records["weights"][1]["offset"]
    changed = (weight.shared[0, 0] + np.float32(0.01)).tobytes()
    weight.bundle.weights = weight.bundle.weights[:at] + changed + weight.bundle.weights[at + 4:]
    for name, policy in (("rel_l2", scaled), ("max_abs", shifted), ("cosine", turned), ("weight", weight)):
        root = policy.bundle.write(tmp_path / name)
        done = run_tool("vlart-run", root, "--ort", ort, "--self-test")
        assert done.returncode == 1 and "SELF_TEST_FAILED" in done.stderr, name
        assert "FAILED in" in done.stdout and max(map(len, done.stdout.splitlines())) <= 80


def test_run_prints_actions_and_four_line_errors(lib, ort, tmp_path):
    reactive = Reactive()
    root = with_golden(reactive).write(tmp_path / "b")
    done = run_tool("vlart-run", root, "--ort", ort, "--frames", root / "golden/golden.bin", "--json", "--cold")
    report = json.loads(done.stdout)
    want = [reactive.reference(reactive.inputs(s))["action"][0, : reactive.h] for s in range(2)]
    np.testing.assert_allclose([f["actions"] for f in report["frames"]], want, **TOLERANCE)
    assert [s["runs"] for s in report["stages"]] == [2, 2, 2, 2]
    done = run_tool("vlart-run", tmp_path / "absent", "--ort", ort)
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["what", "where", "why", "fix"]
    narrow = with_golden(Reactive(low=(-0.1,) * 3, high=(0.1,) * 3)).write(tmp_path / "narrow")
    report = json.loads(run_tool("vlart-run", narrow, "--ort", ort, "--json").stdout)
    assert report["status"] == "ACTION_OUT_OF_RANGE" and 'frame 0 "seed 0"' in report["where"]
    assert run_tool("vlart-run", root, "--treads", "2").returncode == 2
    assert "--self-test" in run_tool("vlart-run", "--help").stdout


@pytest.mark.parametrize("rule", FRAMES)
def test_frames_are_checked(lib, ort, tmp_path, rule):
    apply, why = FRAMES[rule]
    bundle = with_golden(Flow(3))
    root = bundle.write(tmp_path)
    apply(bundle.golden)
    (tmp_path / "damaged.bin").write_bytes(bundle.golden.to_bytes())
    done = run_tool("vlart-run", root, "--ort", ort, "--self-test", "--frames", tmp_path / "damaged.bin", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and why in report["why"], report
    assert "damaged.bin" in report["where"]


def test_example_program(lib, ort, tmp_path):
    """The documented program, linked to the shared library as a user would."""
    make(f"BUILD={BUILD}", str(BUILD / "control_loop"))
    root = Flow(2).bundle.write(tmp_path)
    done = run_tool("control_loop", root, ort, 5)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5


def test_dump_text(lib, tmp_path):
    flow = Flow(2)
    flow.bundle.policy["name"] = flow.bundle.plan.string('odd "name" \\')
    flow.bundle.plan.records["sources"][0]["clock_hz"] = 29.97
    flow.bundle.action("sample", 2, (-1, -0.5, -1e-9), (1, 0.1, 3e7), 50000)
    root = flow.bundle.write(tmp_path)
    names = ("stages/weights.bin", "stages/prefix.onnx", "stages/denoise.onnx")
    files = "".join(f'file {i} "{n}" {"stage" if i else "weights"} bytes={(root / n).stat().st_size} '
                    f"crc32={zlib.crc32((root / n).read_bytes()):08x}\n" for i, n in enumerate(names))
    assert run_tool("vlart-dump", root).stdout == f'''plan "odd \\"name\\" \\\\" format 1.0 target "host" recipe "default"
arena 448
{files}weight @0 "prefix.w" f32[3,3] file=0 offset=0 bytes=36
weight @1 "mix.w" f32[3,3] file=0 offset=64 bytes=36
weight @2 "table" f32[2,1,1,3] file=0 offset=128 bytes=24
value %0 "observation" f32[1,3] arena+0
value %1 "noise" f32[1,5,3] arena+64
value %2 "table" f32[2,1,1,3] weight=@2
value %3 "memory" f32[1,3] arena+128
value %4 "sample" f32[1,5,3] arena+192
value %5 "sample.scratch" f32[1,5,3] arena+256
value %6 "trace" f32[2,1,5,3] arena+320
source %0 observation clock=29.9699993
source %1 observation clock=0
stage 0 "prefix" onnxruntime file=1 iterations=1 flops=123 weight_bytes=456
  depends %0
  in "o" %0 whole
  out "memory" %3 whole
  init "w" @0
stage 1 "denoise" onnxruntime file=2 iterations=2 flops=123 weight_bytes=456
  depends %0 %1
  in "memory" %3 whole
  in "t" %2 row
  in "x" %1 carry
  out "next" %4 carry
  out "velocity" %6 row
  init "w" @1
  carry %1 -> %4 scratch %5 in=2 out=0
action %4 chunk=5 execute=2 dim=3 deadline_us=50000
  low -1 -0.5 -9.99999972e-10
  high 1 0.100000001 30000000
'''


def test_dump_without_action_prints_a_scalar_and_no_action(lib, tmp_path):
    reactive = Reactive()
    reactive.bundle.policy["action_value"] = NONE
    text = run_tool("vlart-dump", reactive.bundle.write(tmp_path)).stdout
    assert 'value %3 "gain" f32[] weight=@4\n' in text and "action %" not in text


def test_dump_skips_checksums_but_not_sizes(lib, tmp_path):
    weights = Flow(2).bundle.write(tmp_path) / "stages/weights.bin"
    data = weights.read_bytes()
    weights.write_bytes(b"\xff" + data[1:])
    assert run_tool("vlart-dump", tmp_path).returncode == 0
    weights.write_bytes(data[:-1])
    done = run_tool("vlart-dump", tmp_path)
    assert done.returncode == 1 and f"it has {len(data) - 1} bytes, the plan says {len(data)}" in done.stderr


def test_dump_is_the_compilers_text(lib, tmp_path):
    binary = pytest.importorskip("vlacompile.plan.binary")
    from vlacompile.plan.text import plan_text

    for name, policy in (("a", Reactive(low=(-1,) * 3, high=(1,) * 3)), ("b", Flow(3))):
        root = policy.bundle.write(tmp_path / name)
        assert run_tool("vlart-dump", root).stdout == plan_text(binary.read_plan(root / "plan.bin"))
