"""vlart-run, vlart-dump and the example program."""

from __future__ import annotations

import json
import shutil
import zlib

import numpy as np
import pytest
from plan_damage import FRAMES
from sample_actions import samples
from sample_bundles import NONE, Bundle, Flow, Reactive
from sample_lock import lock_bytes, sample_lock

from tests.runtime_c.running import BUILD, TOLERANCE, make, run_tool
from vlart.bundle.format import layout
from vlart.bundle.plan.binary import read_plan
from vlart.bundle.plan.text import plan_text


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


def test_columns_of_a_value_have_limits_of_their_own(lib, ort, tmp_path):
    """An error that one column may have is a fault in another one, and the limit shown is that column's."""
    for column, passes in ((0, True), (5, False)):
        policy, allowed = Reactive(), [0.5] * 5 + [1e-3] * 3
        inputs = policy.inputs()
        wrong = policy.reference(inputs)["text"]
        wrong[..., column] += np.float32(0.1)
        policy.bundle.frame("one element", inputs, {"text": wrong}, max_abs=0.5, rel_l2=10, cosine=-1)
        policy.bundle.columns(allowed)
        done = run_tool("vlart-run", policy.bundle.write(tmp_path / str(column)), "--ort", ort, "--self-test")
        assert (done.returncode == 0) == passes, done.stderr
        assert passes or "max_abs 0.1 (0.001)" in done.stderr


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


def test_every_frame_may_count_as_a_new_observation(lib, ort, tmp_path):
    """--fresh: the same frame over and over runs all but what the instruction alone decides; without it, nothing."""
    reactive = Reactive()
    reactive.bundle.frame("the same", reactive.inputs(), {"action": reactive.reference(reactive.inputs())["action"]})
    root, runs = reactive.bundle.write(tmp_path / "b"), {}
    for option in ((), ("--fresh",)):
        done = run_tool("vlart-run", root, "--ort", ort, "--json", "--repeat", 3, "--self-test", *option)
        assert done.returncode == 0, done.stdout
        runs[option] = {s["name"]: s["runs"] for s in json.loads(done.stdout)["stages"]}
    assert set(runs[()].values()) == {1}
    assert runs["--fresh",] == {"language": 1, "vision": 3, "fusion": 3, "head": 3}


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


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: apt-get install g++")
def test_example_program_in_cpp(lib, ort, tmp_path):
    """vlart.hpp: the same program with a worker; and a failure as an exception with libvlart's words."""
    make(f"BUILD={BUILD}", str(BUILD / "control_loop_cc"))
    root = Flow(2).bundle.write(tmp_path / "b")
    done = run_tool("control_loop_cc", root, ort, 5)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5 and ", OK: " in done.stdout
    wrong = run_tool("control_loop_cc", tmp_path / "none", ort, 5)
    assert wrong.returncode == 1 and wrong.stderr.startswith("IO: ") and "fix:" in wrong.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: apt-get install g++")
def test_backbones_lanes_and_a_router_in_cpp(lib, ort, tmp_path):
    make(f"BUILD={BUILD}", str(BUILD / "test_face"), "samples")
    done = run_tool("test_face", BUILD / "samples", ort, tmp_path / "state")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "state.0").is_file() or (tmp_path / "state.1").is_file()


def test_tick_benchmark_counts_what_it_times(lib, ort, tmp_path):
    make(f"BUILD={BUILD}", str(BUILD / "bench_tick"))
    done = run_tool("bench_tick", Flow(2).bundle.write(tmp_path / "b"), ort, 500, 50, 1)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pop"]["count"] + found["pop_and_request"]["count"] == found["memcpy"]["count"] == 500
    assert found["chunks"] > 0 and found["pop"]["median"] <= found["pop"]["p99_9"] <= found["pop"]["max"]


def test_dump_of_engines(lib, tmp_path):
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines/lock.bin").write_bytes(lock_bytes(sample_lock()))
    version, digest = f"{layout.FORMAT_MAJOR}.{layout.FORMAT_MINOR}", bytes(range(32)).hex()
    built = ("bytes=20 crc32=12345678 stage_crc32=00000001 weights_crc32=00000002 recipe_crc32=00000003 "
             f"sha256={digest} scratch=4096 build_s=1.5 build_peak=7")
    assert run_tool("vlart-dump", "--engines", tmp_path).stdout.splitlines() == [
        f"engines format {version} plan=0011aaff golden=passed whole_tick=passed",
        'board model="a \\"board\\"" jetpack="6.2" l4t="36.4.3" tensorrt="10.3.0" cuda="12.6" gpu="Orin" '
        "compute_capability=87 multiprocessors=8 memory=8000000000",
        "clocks gpu_mhz=612 gpu_max_mhz=1020 cpu_mhz=1344",
        f'engine "prefix" file="engines/prefix.plan" {built}',
        f'engine "denoise" file="engines/denoise.plan" {built} runs=6 median_ms=1.250 p95_ms=2.500']
    (tmp_path / "engines/lock.bin").unlink()
    missing = run_tool("vlart-dump", "--engines", tmp_path)
    assert missing.returncode == 1 and "NOT_FOUND" in missing.stderr and "run vlart-build" in missing.stderr
    assert run_tool("vlart-dump", "--engines").returncode == 2


def test_dump_text(lib, tmp_path):
    flow = Flow(2)
    flow.bundle.policy["name"] = flow.bundle.plan.string('odd "name" \\')
    flow.bundle.plan.records["sources"][0]["clock_hz"] = 29.97
    flow.bundle.action("sample", 2, (-1, -0.5, -1e-9), (1, 0.1, 3e7), 50000)
    root = flow.bundle.write(tmp_path)
    names = ("stages/weights.bin", "stages/prefix.onnx", "stages/denoise.onnx")
    files = "".join(f'file {i} "{n}" {"stage" if i else "weights"} bytes={(root / n).stat().st_size} '
                    f"crc32={zlib.crc32((root / n).read_bytes()):08x}\n" for i, n in enumerate(names))
    version = f"{layout.FORMAT_MAJOR}.{layout.FORMAT_MINOR}"
    assert run_tool("vlart-dump",
                    root).stdout == f"""plan "odd \\"name\\" \\\\" format {version} target "host" recipe "default"
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
  precision "prefix/encoder" int8 by=optimiser layers=2 error=0.125 time_us=1.5 bytes=36
stage 1 "denoise" onnxruntime file=2 iterations=2 flops=123 weight_bytes=456
  depends %0 %1
  in "memory" %3 whole
  in "t" %2 row
  in "x" %1 carry
  out "next" %4 carry
  out "velocity" %6 row
  init "w" @1
  carry %1 -> %4 scratch %5 in=2 out=0
  sampling form=steps iterations=2 solver="euler" written=10 error=0.25 budget=0.5
  precision "denoise/mix.0" int4 by=rule layers=2 error=0 time_us=0 bytes=36
  precision "denoise/\\"mix\\" 1" fp32 by=default layers=2 error=0 time_us=0.100000001 bytes=36
action %4 chunk=5 execute=2 dim=3 deadline_us=50000
  low -1 -0.5 -9.99999972e-10
  high 1 0.100000001 30000000
"""


def test_dump_text_of_engines_to_build(lib, tmp_path):
    text = run_tool("vlart-dump", Flow(2).on_board().bundle.write(tmp_path)).stdout
    assert text.splitlines()[2] == \
        'board "orin-nano-8gb" sm=87 jetpack="6.2" l4t="36.4.3" tensorrt="10.3" timing_cache="timing.cache"'
    sizes = "workspace=536870912 weights=36 engine=20..8000000000 activations=1000"
    assert [x for x in text.splitlines() if x.startswith("  build ")] == [
        f"  build flags=strongly_typed,no_tf32 level=3 aux_streams=0 {sizes} int8_gemms=1 int4_dequants=0 attentions=2",
        f"  build flags=none level=3 aux_streams=1 {sizes} int8_gemms=0 int4_dequants=1 attentions=2"]


def test_dump_text_of_guards(lib, tmp_path):
    root = samples()["guarded"].bundle.write(tmp_path)
    text = run_tool("vlart-dump", root).stdout
    assert "guard %0 refuse low=-4,-8 high=4,8 not_finite=0 max_age_us=50000\n" in text
    assert text == plan_text(read_plan(root / "plan.bin"))


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
    from vlart.bundle.plan.binary import read_plan
    from vlart.bundle.plan.text import plan_text

    for name, policy in (("a", Reactive(low=(-1,) * 3, high=(1,) * 3)), ("b", Flow(3))):
        root = policy.bundle.write(tmp_path / name)
        assert run_tool("vlart-dump", root).stdout == plan_text(read_plan(root / "plan.bin"))
