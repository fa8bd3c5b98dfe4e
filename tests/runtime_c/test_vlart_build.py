"""vlart-build on a double of the machine: what it builds, keeps, proves, records and refuses."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import zlib

import pytest
from sample_bundles import Flow, Reactive, Recall
from sample_lock import lock_bytes
from vlart_ctypes import Failure

from tests.runtime_c.running import BUILD, make, ort_path, run_tool
from tests.runtime_c.tensorrt import LOCK, built, for_tensorrt, lock, refused, start
from tests.runtime_c.test_tools import with_golden
from vlart.bundle.format import layout


def test_the_lock_says_what_was_built(board, tmp_path):
    board.file("sys/class/devfreq/17000000.gpu/cur_freq", "612000000\n")
    board.file("sys/class/devfreq/17000000.gpu/max_freq", "1020000000\n")
    board.file("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1344000\n")
    board.file("var/lib/nvpmodel/status", "pmode:0001 fmode:fanNull\n")
    path = built(board, with_golden(Flow(3)), tmp_path / "b")
    found = lock(path)
    assert found["plan_crc32"] == zlib.crc32((path / "plan.bin").read_bytes())
    assert found["golden"] == found["whole_tick"] == "passed"
    assert found["tensorrt"] == "10.3.0.30" and found["l4t"] == "36.4.3"
    assert found["jetpack"] == "6.2" and found["model"].startswith("NVIDIA Jetson Orin Nano")
    assert [found[k] for k in ("power_mode", "gpu_mhz", "gpu_max_mhz", "cpu_mhz")] == [1, 612, 1020, 1344]
    assert found["emc_mhz"] == found["cpu_max_mhz"] == layout.NONE
    for entry in found["engines"]:
        data = (path / entry["file"]).read_bytes()
        assert entry["bytes"] == len(data) and entry["sha256"] == hashlib.sha256(data).digest()
        assert entry["crc32"] == zlib.crc32(data) and entry["runs"] == 2 * 3
        onnx = (path / f"stages/{entry['stage']}.onnx").read_bytes()
        assert entry["stage_crc32"] == zlib.crc32(onnx)
        assert 0 < entry["median_ms"] <= entry["p95_ms"] and entry["scratch_bytes"] == 4096
        assert json.loads((path / f"{entry['file']}.layers.json").read_text())["Layers"]
        assert "warning: made of nothing" in (path / f"{entry['file']}.log").read_text()
    assert (path / "engines/timing.cache").read_text().split() == ["prefix", "denoise"]
    assert not list((path / "engines").glob("*.tmp"))


def test_output_fits_80_columns(board, tmp_path):
    path = for_tensorrt(with_golden(Reactive())).write(tmp_path / "b")
    done = board.build(path)
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    usage = run_tool("vlart-build", "--help")
    assert usage.returncode == 0 and max(map(len, usage.stdout.splitlines())) <= 80
    assert run_tool("vlart-build", path, "--repeat", "x").returncode == 2
    assert run_tool("vlart-build").returncode == 2


def test_one_engine_at_a_time_and_a_crash_keeps_what_was_built(lib, board, tmp_path):
    path = for_tensorrt(with_golden(Reactive())).write(tmp_path / "b")
    board.set(crash_stage="fusion")
    refused(board.build(path), 'stage "fusion"', "signal 11")
    assert [e["stage"] for e in lock(path)["engines"]] == ["language", "vision"]
    assert lock(path)["golden"] == "pending"
    assert board.calls("build", "load", "unload")[:6] == [
        *(re.sub("STAGE", s, line) for s in ("language", "vision")
          for line in (board.calls("build")[0].replace("language", "STAGE"), "load STAGE", "unload STAGE"))]
    with pytest.raises(Failure, match="not proved|no engine"):
        start(lib, board, path)
    board.set(crash_stage="", fail_stage="head")
    refused(board.build(path), 'stage "head"', 'node 3 "mixer" (FakeOp)', "vlacompile check")
    assert [line.split()[1] for line in board.calls("build")] == ["fusion", "head"], "the others were kept"
    board.set(fail_stage="")
    done = board.build(path)
    assert done.returncode == 0 and done.stdout.count(" kept ") == 3 and done.stdout.count(" built ") == 1
    start(lib, board, path)
    board.set()
    assert board.build(path, "--rebuild").stdout.count(" built ") == 4


def test_power_may_fail_at_any_step(lib, board, tmp_path):
    """Then the bundle starts with what was proved, or is refused; and vlart-build makes it good."""
    make(f"BUILD={BUILD}", str(BUILD / "libcut_disk.so"))
    fresh = for_tensorrt(with_golden(Flow(2))).write(tmp_path / "fresh")
    command = [BUILD / "vlart-build", tmp_path / "b", "--tensorrt", board.library, "--tensorrt-builder", board.builder,
               "--ort", ort_path(), "--repeat", "1"]
    cuts = refusals = starts = 0
    for variant in (0, 1, 4):
        finished, at = False, 0
        while not finished:
            at += 3 if variant else 1
            shutil.rmtree(tmp_path / "b", ignore_errors=True)
            shutil.copytree(fresh, tmp_path / "b")
            board.set()
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, start_new_session=True,
                                  timeout=60, env={
                **os.environ, "LD_PRELOAD": str(BUILD / "libcut_disk.so"), "CUT_UNDER": str(tmp_path / "b"),
                "CUT_AT": str(at), "CUT_VARIANT": str(variant), "CUT_PREFIX": "5"}, check=False)
            finished = done.returncode == 0
            assert finished or done.returncode == -9, done.stderr
            cuts += not finished
            try:
                start(lib, board, tmp_path / "b")
                starts += 1
            except Failure as failure:
                assert not finished and failure.status in ("NOT_FOUND", "CORRUPT", "SELF_TEST_FAILED", "IO"), failure
                refusals += 1
                board.set()
                assert board.build(tmp_path / "b").returncode == 0
                start(lib, board, tmp_path / "b")
    assert cuts > 30 and refusals > 10 and starts > 3


def test_a_changed_stage_is_built_again_alone(board, tmp_path):
    path = built(board, Reactive().bundle, tmp_path / "b")
    changed = for_tensorrt(Reactive().bundle)
    changed.files["stages/head.onnx"] += b"\x72\x00"  # an empty field more: another file, the same graph
    changed.write(path)
    board.set()
    assert board.build(path).returncode == 0
    assert [line.split()[1] for line in board.calls("build")] == ["head"]


def test_engines_that_fail_their_golden_frames_stay_unproved(lib, board, tmp_path):
    """The negative control: the engine of one stage computes something else."""
    path = for_tensorrt(with_golden(Reactive())).write(tmp_path / "b")
    board.set(wrong_stage="vision")
    refused(board.build(path), "SELF_TEST_FAILED", '"sight"')
    assert lock(path)["golden"] == "failed"
    with pytest.raises(Failure, match="SELF_TEST_FAILED.*not proved.*failed"):
        start(lib, board, path)


@pytest.mark.parametrize("field, conf, words", [
    ("engine_bytes_max", {"fat_stage": "denoise"}, "planned were 1300 to 4000; weights fell back to a wider type"),
    ("engine_bytes_min", {}, "planned were 3000 to 4000; weights are missing"),
    ("activation_bytes", {"scratch_bytes": 4097}, "needs 4097 bytes for activations, at most 4096"),
])
def test_engines_that_were_not_planned_are_not_kept(lib, board, tmp_path, field, conf, words):
    build = {"engine_bytes_min": 3000} if field == "engine_bytes_min" else {}
    path = for_tensorrt(Flow(2).bundle, **build).write(tmp_path / "b")
    board.set(**conf)
    done = board.build(path)
    refused(done, "not the one that was planned", words)
    stage = "denoise" if "fat_stage" in conf else "prefix"
    assert f'stage "{stage}"' in done.stderr and not (path / f"engines/{stage}.plan").exists()
    with pytest.raises(Failure):
        start(lib, board, path)


def test_the_recipe_reaches_the_builder(board, tmp_path):
    path = for_tensorrt(Flow(2).bundle, flags=2, level=5, workspace_bytes=12345678).write(tmp_path / "b")
    assert board.build(path).returncode == 0
    assert board.calls("build") == [f"build {s} flags 2 level 5 workspace 12345678" for s in ("prefix", "denoise")]
    board.set()
    for_tensorrt(Flow(2).bundle, flags=3, level=5, workspace_bytes=12345678).write(path)
    assert board.build(path).returncode == 0 and len(board.calls("build")) == 2, "another recipe, another engine"
    bundle = for_tensorrt(Flow(2).bundle)
    del bundle.plan.records["builds"][1]
    refused(board.build(bundle.write(tmp_path / "c")), "no build recipe", "denoise")


def test_two_builders_do_not_meet(board, tmp_path):
    path = for_tensorrt(Flow(2).bundle).write(tmp_path / "b")
    (path / "engines").mkdir()
    with (path / "engines/.building").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused(board.build(path), "another vlart-build is at work")


def test_without_a_library_or_a_stage(lib, board, tmp_path):
    path = for_tensorrt(Flow(2).bundle).write(tmp_path / "b")
    refused(run_tool("vlart-build", path), "NO_BACKEND", "libvlart_tensorrt.so", "make -C runtime_c tensorrt")
    refused(run_tool("vlart-build", path, "--tensorrt", board.library), "NO_BACKEND", "libvlart_tensorrt_builder.so")
    refused(board.build(Flow(2).bundle.write(tmp_path / "c")), "no stage of this bundle is for TensorRT")
    board.set(fail_call="open")
    refused(board.build(path), "the GPU cannot be used", "out of luck")


def test_a_whole_tick_that_was_not_proved_is_refused(lib, board, tmp_path):
    path = built(board, with_golden(Flow(2)), tmp_path / "b")
    start(lib, board, path, whole_tick=1)
    rows = lock(path)
    rows["whole_tick"] = "failed"
    (path / LOCK).write_bytes(lock_bytes(rows))
    start(lib, board, path)
    with pytest.raises(Failure, match='SELF_TEST_FAILED.*one launch is not proved.*"failed"'):
        start(lib, board, path, whole_tick=1)
    recall = Recall()
    recall.bundle.frame("first", recall.inputs(), recall.reference([recall.inputs()]))
    assert lock(built(board, recall.bundle, tmp_path / "r"))["whole_tick"] == "unsupported"
