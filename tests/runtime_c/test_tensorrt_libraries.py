"""trt_runtime.cc and trt_builder.cc: compiled against TensorRT's own headers, and run on a double of NVIDIA's
libraries. They were never run on NVIDIA's: what the double does not ask for is not known to be right."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sample_bundles import Flow, Reactive

from tests.runtime_c.nvidia_double import LIBRARIES, Software, compile_backend, compile_double
from tests.runtime_c.running import RUNTIME, run_tool
from tests.runtime_c.tensorrt import Board, for_tensorrt, lock, refused
from tests.runtime_c.test_tools import with_golden

CROSS = "aarch64-linux-gnu-"
needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="apt-get install clang")
NEEDED = {
    "libvlart_tensorrt.so": {
        "createInferRuntime_INTERNAL", "getInferLibMajorVersion", "getInferLibMinorVersion", "getInferLibPatchVersion",
        "getInferLibBuildVersion", "cudaDeviceGetAttribute", "cudaFree", "cudaGetDeviceProperties", "cudaGetErrorName",
        "cudaGetErrorString", "cudaGraphDestroy", "cudaGraphExecDestroy", "cudaGraphInstantiate", "cudaGraphLaunch",
        "cudaGraphUpload", "cudaMalloc", "cudaMallocManaged", "cudaMemcpyAsync", "cudaMemsetAsync",
        "cudaRuntimeGetVersion", "cudaStreamBeginCapture", "cudaStreamCreateWithFlags", "cudaStreamDestroy",
        "cudaStreamEndCapture", "cudaStreamSynchronize"},
    "libvlart_tensorrt_builder.so": {"createInferBuilder_INTERNAL", "createNvOnnxParser_INTERNAL"},
}


VERSIONS = [Software("10.3", "12.6"), Software("10.16", "13.2")]


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda s: f"tensorrt-{s.tensorrt}")
def software(request) -> Software:
    if request.param.missing():
        pytest.skip(f"{', '.join(request.param.missing())}: make nvidia-headers")
    return request.param


@pytest.fixture(scope="module")
def compiled(software, tmp_path_factory) -> Path:
    """A directory with the two libraries and the doubles that they find beside them."""
    out = compile_double(software, tmp_path_factory.mktemp("double"))
    compile_backend(software, out, out)
    return out


@pytest.fixture
def board(lib, compiled, tmp_path) -> Board:
    shutil.copytree(compiled, tmp_path / "board", symlinks=True)
    made = Board(tmp_path / "board")
    made.library, made.builder = (tmp_path / "board" / name for name in NEEDED)
    return made


def symbols(tool: str, path: Path) -> tuple[set[str], set[str]]:
    """(what it needs of NVIDIA, what it exports)."""
    table = subprocess.run([tool, "-D", str(path)], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"U (cuda\w+|getInfer\w+|create\w+_INTERNAL)", table))
    return {re.sub(r"_v2$", "", n) for n in needed}, set(re.findall(r" T (\w+)", table))


def test_each_library_needs_and_exports_what_it_says(compiled):
    for name, needed in NEEDED.items():
        entry = "vlart_tensorrt_builder" if "builder" in name else "vlart_tensorrt_runtime"
        assert symbols("nm", compiled / name) == (needed, {entry})


@pytest.mark.skipif(shutil.which(f"{CROSS}g++") is None, reason="apt-get install g++-aarch64-linux-gnu")
def test_they_compile_for_aarch64(software, tmp_path):
    names = {n for needed in NEEDED.values() for n in needed} | {"cudaGetDeviceProperties_v2"}
    (tmp_path / "stub.c").write_text("".join(f"void {n}(void) {{}}\n" for n in names))
    for library in LIBRARIES:
        subprocess.run([f"{CROSS}gcc", "-shared", "-o", str(tmp_path / f"lib{library}.so"), str(tmp_path / "stub.c")],
                       check=True)
    for path in compile_backend(software, tmp_path, tmp_path, f"CROSS={CROSS}"):
        assert symbols(f"{CROSS}nm", path)[0] == NEEDED[path.name]


@needs_clang
@pytest.mark.parametrize("file", ["trt_runtime.cc", "trt_builder.cc"])
def test_an_analyser_finds_nothing_in_what_calls_nvidia(software, file):
    include = ["-isystem", str(software.headers), "-isystem", str(software.toolkit / "include")]
    assert analysed(RUNTIME / "backends/tensorrt" / file, "-std=c++17", *include) == ""


@needs_clang
@pytest.mark.parametrize("path", [*sorted((RUNTIME / "backends/tensorrt").glob("*.c")),
                                  *sorted((RUNTIME / "tools").glob("*build*.c"))],
                         ids=lambda p: p.name)
def test_an_analyser_finds_nothing_in_what_runs_on_a_board(path):
    assert analysed(path, "-std=c11", "-D_GNU_SOURCE", f"-I{RUNTIME / 'src'}") == ""


@needs_clang
def test_an_analyser_would_find_something(tmp_path):
    (tmp_path / "wrong.c").write_text("int main(void) { int *p = 0; return *p; }")
    assert "Dereference of null pointer" in analysed(tmp_path / "wrong.c", "-std=c11")


def analysed(path: Path, *flags: str) -> str:
    """What clang's static analyser says of a file; no compiler of NVIDIA's is needed."""
    done = subprocess.run(["clang", "--analyze", "-Xclang", "-analyzer-output=text", "-Wall", "-Wextra",
                           *(f"-I{RUNTIME / d}" for d in ("include", "backends")), *flags, str(path), "-o",
                           "/dev/null"],
                          capture_output=True, text=True, check=False)
    return done.stderr if done.returncode or "warning" in done.stderr else ""


def test_engines_are_built_proved_and_run(board, tmp_path):
    """In processes of their own, as in every test here: two doubles of one name do not fit into one process."""
    for sample in (Reactive(), Flow(3)):
        bundle = for_tensorrt(with_golden(sample), level=2, workspace_bytes=7 << 20)
        path = bundle.write(tmp_path / type(sample).__name__)
        done = board.build(path)
        assert done.returncode == 0, done.stderr
        assert lock(path)["golden"] == "passed" and lock(path)["tensorrt"] == "10.3.0.30"
        assert lock(path)["compute_capability"] == 87 and lock(path)["gpu"] == "Orin, a double"
        assert (path / f"engines/{lock(path)['engines'][0]['stage']}.plan.layers.json").exists()
        for arguments in ([], ["--whole-tick"]):
            done = run_tool("vlart-run", path, "--tensorrt", board.library, "--self-test", *arguments)
            assert done.returncode == 0 and "self-test passed" in done.stdout and not done.stderr
    assert "build denoise flags 3 level 2 workspace 7340032" in board.calls("build")
    log = (path / "engines/denoise.plan.log").read_text()
    assert "tactics: 3 of 3" in log and "inner" not in log and "warning: made of nothing" in log
    assert (path / "engines/timing.cache").read_text().split() == ["prefix", "denoise"]


def test_recipes_and_timing_caches_reach_tensorrt(board, tmp_path):
    path = for_tensorrt(Flow(2).bundle, flags=0, level=5).write(tmp_path / "b")
    assert board.build(path).returncode == 0
    assert {line.split(" ", 2)[2] for line in board.calls("build")} == {"flags 0 level 5 workspace 268435456"}
    assert board.build(path, "--rebuild").returncode == 0
    assert (path / "engines/timing.cache").read_text().split() == ["prefix", "denoise"] * 2, "the cache was handed over"


def test_a_rejected_node_and_a_crash_are_told(board, tmp_path):
    path = for_tensorrt(Reactive().bundle).write(tmp_path / "b")
    board.set(fail_stage="vision")
    refused(board.build(path), 'stage "vision"', 'node 3 "mixer" (FakeOp): no importer for it')
    board.set(fail_stage="", crash_stage="vision")
    refused(board.build(path), 'stage "vision"', "signal 11")


@pytest.mark.parametrize("call", ["allocate", "upload", "load", "bind", "enqueue", "wait", "begin", "end", "launch"])
def test_a_failing_call_is_told_in_the_librarys_words(board, tmp_path, call):
    path = for_tensorrt(Flow(3).bundle).write(tmp_path / "b")
    assert board.build(path).returncode == 0
    (path / "frames.bin").write_bytes(with_golden(Flow(3)).golden.to_bytes())
    board.set(fail_call=call)
    done = run_tool("vlart-run", path, "--tensorrt", board.library, "--frames", path / "frames.bin")
    refused(done, "BACKEND_FAILED", f"out of luck in {call}")
    assert "never" not in done.stderr, "something was left behind"


def test_engines_of_another_tensorrt_are_refused(board, tmp_path):
    path = for_tensorrt(with_golden(Flow(2))).write(tmp_path / "b")
    assert board.build(path).returncode == 0
    assert run_tool("vlart-run", path, "--tensorrt", board.library, "--self-test").returncode == 0
    board.set(tensorrt="10.3.9.9")
    refused(run_tool("vlart-run", path, "--tensorrt", board.library), "TensorRT 10.3.0.30, here is 10.3.9.9")
