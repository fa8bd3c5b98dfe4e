"""Stages that TVM compiles for a GPU, run through libvlart and TVM's own runtime for GPUs on a double of CUDA's
libraries: everything but the GPU and its machine code. Nothing here ran on a GPU."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import vlacompile as vc
from tests.compiler.emit.tvm.cuda_kernels import Double, double
from tests.samples import policies
from tests.samples.staging import verified
from vlacompile.cli.main import main
from vlacompile.compiler.assemble.assemble import Parts, assemble
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.emit.tvm import stage as tvm_stage
from vlacompile.hardware.target import load_target
from vlacompile.phases.read_inputs import resolve
from vlacompile.recipe.recipe import load_recipe
from vlart.bundle.directory import read_bundle, stage_path, with_files, write_bundle
from vlart.errors import ConfigError, RuntimeFailure
from vlart.runtime.library import onnxruntime_library, tvm_libraries
from vlart.runtime.session import Session
from vlart.verify.frames import frames_bytes

ROOT = Path(__file__).parents[4]
FP32 = '[precision]\nbase = "fp32"\n[[precision.rule]]\nlayers = "*"\nscheme = "fp32"\n'
full = pytest.mark.full
needs_compilers = pytest.mark.skipif(
    importlib.util.find_spec("tvm") is None or not (tvm_stage.CUDA / "bin" / "nvcc").is_file()
    or shutil.which(tvm_stage.CROSS_COMPILER) is None or platform.machine() != "x86_64",
    reason="x86-64, pip install 'vlacompile[tvm]', nvcc (CUDA toolkit 13.0) and g++-aarch64-linux-gnu are needed")


def recipe_for(folder: Path, stages: str) -> str:
    path = folder / "gpu.toml"
    path.write_text(policies.EVERY_STAGE.replace("[stages]\n", f"[stages]\n{stages}\n") + FP32, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("stages", "target", "why"), [
    ('tvm_device = "gpu"', "orin-nano-8gb+jetpack-7.2", "no stage is compiled by TVM"),
    ('tvm = ["state"]\ntvm_device = "dla"', "orin-nano-8gb+jetpack-7.2", "gpu"),
    ('tvm = ["state"]\ntvm_device = "gpu"', "host", 'target "host" has no known GPU'),
    ('tvm = ["state"]\ntvm_device = "gpu"', "orin-nano-8gb+jetpack-6.2", "CUDA 13, and jetpack-6.2 has CUDA 12.6"),
    ('tvm = ["state"]\ntvm_device = "gpu"\ntvm_schedules = "s.json.gz"', "orin-nano-8gb+jetpack-7.2",
     "for CPUs only")])
def test_a_gpu_that_could_not_run_it_is_refused(tmp_path, stages, target, why):
    load_recipe(recipe_for(tmp_path, 'tvm = ["state"]\ntvm_device = "gpu"'), load_target("orin-nano-8gb+jetpack-7.2"))
    with pytest.raises(ConfigError) as error:
        load_recipe(recipe_for(tmp_path, stages), load_target(target))
    assert why in error.value.why


@dataclass(frozen=True)
class Built:
    """A bundle for this machine with stages for the double's GPU."""

    path: Path
    double: Double


def built(policy: vc.Policy, stages: tuple[str, ...], folder: Path) -> Built:
    wanted, where = resolve(load_recipe(recipe_for(folder, "")), policy), load_target("host")
    found = verified(policy, where, wanted)
    staging, frames = found.staging, list(found.frames)
    emitted = {s.name: emit_onnx(s) for s in staging.staged.stages}
    made = double({n: emitted[n] for n in stages}, folder)
    libraries = {stage_path(n, "tvm_cuda"): library for n, library in made.libraries.items()}
    assembly = assemble(staging.staged, emitted, where, wanted,
                        Parts(dict.fromkeys(stages, "tvm_cuda"), libraries, golden=frames_bytes(frames)))
    out = write_bundle(folder / "gpu.vlab", assembly.plan, assembly.contents, {"outputs": ["action"]},
                       lambda path: None)
    return Built(out.path, made)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Built:
    return built(policies.late_fusion(), ("state", "fusion"), tmp_path_factory.mktemp("gpu"))


def replay(made: Built, bundle: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    libraries = tvm_libraries()
    return subprocess.run(
        [ROOT / "build/runtime_c/vlart-run", bundle or made.path, "--self-test", "--json", "--native-code", "--ort",
         onnxruntime_library(),
         "--tvm-ffi", libraries["tvm_ffi_library"], "--tvm", libraries["tvm_library"],
         "--tvm-cuda", libraries["tvm_cuda_library"]], capture_output=True, text=True,
        env=made.double.environment | environment, timeout=300, check=False)


@full
@needs_compilers
# Flow has carries and rows.
@pytest.mark.parametrize(("name", "stages"), [("late_fusion", ("state", "fusion")), ("flow", ("step",))])
def test_it_gives_the_golden_vectors(name, stages, tmp_path):
    done = replay(built(getattr(policies, name)(), stages, tmp_path))
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["status"] == "OK", done.stdout + done.stderr
    assert max(v["rel_l2"] for v in report["values"]) < 1e-6


@full
@needs_compilers
def test_a_wrong_weight_shows(bundle, tmp_path):
    """Negative control: what was replayed is what was loaded."""
    plan = read_bundle(bundle.path).plan
    files = {f.path: (bundle.path / f.path).read_bytes() for f in plan.files}
    path = stage_path("state", "tvm_cuda")
    numbers = np.frombuffer(files[path][: len(files[path]) // 4 * 4], np.float32).copy()
    plausible = np.flatnonzero((np.abs(numbers) > 1e-3) & (np.abs(numbers) < 1))
    numbers[plausible[len(plausible) // 2]] += 1.0
    files[path] = numbers.tobytes() + files[path][len(files[path]) // 4 * 4:]
    out = write_bundle(tmp_path / "b.vlab", with_files(plan, files), files, {"outputs": ["action"]}, lambda path: None)
    done = replay(bundle, out.path)
    assert done.returncode == 1 and json.loads(done.stdout)["status"] == "SELF_TEST_FAILED"


@full
@needs_compilers
@pytest.mark.parametrize(("function", "why"), [("cudaMalloc", "out of memory"), ("cudaMemcpyAsync", "told to fail"),
                                               ("cuLaunchKernelEx", "CUDA_ERROR_LAUNCH_FAILED")])
def test_what_cuda_refuses_is_said(bundle, function, why):
    done = replay(bundle, FAKE_CUDA_FAILS=function)
    assert done.returncode == 1 and why in done.stdout + done.stderr and "BACKEND_FAILED" in done.stdout + done.stderr


@full
@needs_compilers
def test_without_a_gpu_it_says_what_is_missing(bundle):
    with pytest.raises(RuntimeFailure, match="TVM's runtime for GPUs cannot be loaded") as error:
        Session(bundle.path, native_code=True)
    assert error.value.status == "NO_BACKEND" and "libtvm_runtime_cuda.so" in str(error.value)
    assert "CUDA 13" in error.value.fix


@full
@needs_compilers
def test_a_build_for_a_board_has_the_machine_code_of_its_gpu(tmp_path, capsys):
    """Replayed here compiled for this processor; the bundle has the board's, and says that it was not run."""
    recipe = recipe_for(tmp_path, 'tvm = ["state"]\ntvm_device = "gpu"')
    made, again = (vc.build(policies.late_fusion(), target="orin-nano-8gb+jetpack-7.2", recipe=recipe, out=tmp_path / n)
                   for n in ("a.vlab", "b.vlab"))
    assert [s.backend for s in made.plan.stages if s.name == "state"] == ["tvm_cuda"] and made.accepted.passed
    path = stage_path("state", "tvm_cuda")
    library = (made.path / path).read_bytes()
    assert library[:4] == b"\x7fELF" and int.from_bytes(library[18:20], "little") == 183  # aarch64 launches it
    report = made.manifest["provenance"]["tvm"]["state"]["sm_87"]
    assert report["resources"] and all(0 < k["REG"] <= 255 for k in report["resources"].values()) and not report["run"]
    assert any("compiled for sm_87; the replay runs the same stage compiled for x86_64" in n
               for n in made.manifest["provenance"]["notes"])
    assert all((again.path / p).read_bytes() == (made.path / p).read_bytes() for p in (path, "manifest.json"))
    page = tmp_path / "page.html"
    verb = ["report", str(made.path), "-o", str(page)]
    assert main([*verb, "--native-code"]) == 9 and "--no-replay" in capsys.readouterr().err
    assert main([*verb, "--no-replay"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "compiled, not run" in text and all(kernel in text for kernel in report["resources"])
