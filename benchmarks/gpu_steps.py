"""The steps of benchmarks/gpu.py, each in a process of its own:

    python -m benchmarks.gpu_steps STEP --device cuda --folder DIR

Prints one JSON object on the last line: status "passed", "failed" or "skipped", why, figures.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import vlacompile as vc
from vlacompile.check.layer_runners import Run
from vlacompile.check.tensorrt_python import verify_stages, verify_through_tensorrt
from vlart.bundle.directory import read_bundle, stage_path, write_bundle
from vlart.bundle.plan.plan import Stage
from vlart.errors import ConfigError, VlaError
from vlart.runtime.library import onnxruntime_library, tvm_libraries
from vlart.verify.frames import frames_bytes
from vlart.verify.replay import ParityReport

ROOT = Path(__file__).parents[1]
RECIPE = """name = "{scheme}"
description = "every stage by itself"
[stages]
min_flops = 0
[loop]
form = "steps"
[precision]
base = "fp16"
"""
SCHEMES = {"fp16": 'layers = "fp16"\n', "int8": '[[precision.rule]]\nlayers = "*"\nscheme = "int8"\n'}
FP32 = '[precision]\nbase = "fp32"\n[[precision.rule]]\nlayers = "*"\nscheme = "fp32"\n'


class Skipped(Exception):
    """Why a step cannot run here."""


@dataclass(frozen=True)
class Place:
    """device: "cuda" or "cpu". folder: of all steps, with the bundles of `build`."""

    device: str
    folder: Path


def flow_policy(width: int = 64, steps: int = 4) -> vc.Policy:
    """Attention, norms and a denoising loop, small; random weights from a fixed seed."""
    import torch

    from tests.samples.policies import Flow, flow_inputs

    torch.manual_seed(0)
    return vc.Policy("flow", Flow(iterations=steps, d=width).eval(), *flow_inputs())


def _torch(place: Place):
    import torch

    if place.device == "cuda" and not torch.cuda.is_available():
        raise Skipped(f"PyTorch {torch.__version__} sees no GPU: install its build for CUDA")
    return torch


def machine(place: Place) -> dict:
    """What the GPU is; without one, what the processor is."""
    from vlacompile.profile import machine as here

    found: dict = {"host": here.describe()}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        query = "name,compute_cap,memory.total,driver_version"
        found["gpu"] = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], text=True,
                                      capture_output=True, check=True).stdout.strip().splitlines()
    if place.device == "cuda" and not found.get("gpu"):
        raise Skipped("nvidia-smi names no GPU")
    return found


def build(place: Place) -> dict:
    """The bundles that the others run: for TensorRT in fp16 and int8, replayed here by the stand-in."""
    made = {}
    for scheme, rules in SCHEMES.items():
        recipe = place.folder / f"{scheme}.toml"
        recipe.write_text(RECIPE.format(scheme=scheme) + rules, encoding="utf-8")
        bundle = vc.build(flow_policy(), target="orin-nano-8gb", recipe=str(recipe),
                          out=place.folder / f"{scheme}.vlab")
        made[scheme] = {"stages": len(bundle.plan.stages), "hash": bundle.hash[:16]}
    return made


def _built(place: Place, scheme: str):
    path = place.folder / f"{scheme}.vlab"
    if not path.is_dir():
        raise Skipped("the step `build` made no bundle")
    return read_bundle(path)


def _judged(report: ParityReport) -> dict:
    """Raises VlaError if a value is outside what the compiler predicted."""
    found = {"frames": report.frames, "values": {
        v.value: {"max_abs": v.worst.max_abs, "max_abs_allowed": v.limit.max_abs, "rel_l2": v.worst.rel_l2,
                  "cosine": v.worst.cosine} for v in report.values}}
    print(json.dumps(found), flush=True)
    report.require()
    return found


def graphs(scheme: str, place: Place) -> dict:
    """The emitted graphs by PyTorch on the device, within the limits that the compiler set for this precision."""
    from benchmarks.onnx_in_torch import opened

    torch, bundle = _torch(place), _built(place, scheme)
    torch.backends.cuda.matmul.allow_tf32 = False
    return _judged(verify_stages(bundle, bundle.plan.stages, lambda s: opened(_path(bundle, s), place.device), print))


def _path(bundle: vc.Bundle, stage: Stage) -> Path:
    return bundle.path / bundle.plan.files[stage.artefact].path


def onnxruntime_graphs(place: Place) -> dict:
    """The same files by ONNX Runtime, on the GPU by its provider for CUDA."""
    import onnxruntime as ort

    provider = "CUDAExecutionProvider" if place.device == "cuda" else "CPUExecutionProvider"
    if provider not in ort.get_available_providers():
        raise Skipped(f"onnxruntime has no {provider} (pip install onnxruntime-gpu)")

    @contextlib.contextmanager
    def session(bundle: vc.Bundle, stage: Stage) -> Iterator[Run]:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1" if place.device == "cuda" else "0")
        made = ort.InferenceSession(str(_path(bundle, stage)), options, providers=[provider])
        names = [o.name for o in made.get_outputs()]
        wanted = {i.name for i in made.get_inputs()}
        yield lambda feed: dict(zip(names, made.run(names, {n: a for n, a in feed.items() if n in wanted}),
                                    strict=True))

    bundle = _built(place, "fp16")
    return _judged(verify_stages(bundle, bundle.plan.stages, partial(session, bundle), print))


def tensorrt(place: Place) -> dict:
    """verify --through tensorrt."""
    if place.device == "cpu":
        raise Skipped("TensorRT has no CPU; tests/check holds doubles of its Python API")
    try:
        return {scheme: _judged(verify_through_tensorrt(_built(place, scheme), print)) for scheme in SCHEMES}
    except ConfigError as error:
        if "not installed" in error.what:
            raise Skipped(f"{error.what}: {error.why}") from error
        raise


def products(place: Place) -> dict:
    """What a product in fp16 loses on the device, beside what the compiler assumes: operands as they are, sums in f32,
    one rounding of the result; and whether products in int8 are exact."""
    torch = _torch(place)
    generator = torch.Generator().manual_seed(0)
    found, rows, wide, deep = {}, 64, 256, 4096
    a, b = (torch.randn(*shape, generator=generator).half() for shape in ((rows, deep), (deep, wide)))
    exact = a.double() @ b.double()
    # one rounding to fp16, and `deep` roundings to f32 of sums that grow
    allowed = 2.0**-11 * exact.abs() + deep * 2.0**-24 * (a.double().abs() @ b.double().abs())
    for reduced in (False, True):
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = reduced
        got = (a.to(place.device) @ b.to(place.device)).cpu().double()
        found["sums as the engine likes" if reduced else "sums in f32"] = float(((got - exact).abs() / allowed).max())
    found["triton"] = _triton(place, a, b, exact, allowed)
    p, q = (torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8) for shape in ((rows, deep),
                                                                                               (deep, wide)))
    got = torch._int_mm(p.to(place.device), q.to(place.device)).cpu().long()
    found["int8 differs in"] = int((got != p.long() @ q.long()).sum())
    if found["sums in f32"] > 1 or found["int8 differs in"] or (found["triton"] or 0) > 1:
        raise ConfigError("products are not what the compiler assumes", where=place.device, why=json.dumps(found),
                          fix="look at the flags of PyTorch's products on this device")
    return {"error over what one rounding and sums in f32 allow": found}


def _triton(place: Place, a, b, exact, allowed) -> float | None:
    """The same product by a Triton kernel that sums in f32; None: it is not installed, or there is no GPU."""
    if place.device != "cuda" or importlib.util.find_spec("triton") is None:
        print("triton: " + ("the device is a processor" if place.device != "cuda" else "it is not installed"))
        return None
    from benchmarks.triton_product import product

    got = product(a.cuda(), b.cuda()).cpu().double()
    return float(((got - exact).abs() / allowed).max())


def tvm(place: Place) -> dict:
    """Stages compiled by TVM for this GPU, through libvlart with TVM's and CUDA's own libraries: the golden frames."""
    from tests.samples.staging import verified
    from vlacompile.compiler.assemble.assemble import Parts, assemble
    from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
    from vlacompile.compiler.emit.tvm.stage import CUDA, compile_tvm
    from vlacompile.hardware.target import load_target
    from vlacompile.phases.read_inputs import resolve
    from vlacompile.recipe.recipe import load_recipe

    libraries, kind = tvm_libraries(), "tvm_cuda" if place.device == "cuda" else "tvm"
    lacking = [n for n, p in libraries.items() if p is None and (kind == "tvm_cuda" or n != "tvm_cuda_library")]
    if lacking:
        raise Skipped(f"{', '.join(lacking)}: pip install 'vlacompile[tvm]'")
    architecture = platform.machine()
    if place.device == "cuda":
        said = machine(place)["gpu"][0].split(",")[1].strip()
        architecture = f"sm_{said.replace('.', '')}"
    recipe = place.folder / "tvm.toml"
    recipe.write_text(RECIPE.format(scheme="tvm").partition("[precision]")[0] + FP32, encoding="utf-8")
    policy, target = flow_policy(), load_target("host")
    wanted = resolve(load_recipe(str(recipe)), policy)
    staging = verified(policy, target, wanted)
    emitted = {s.name: emit_onnx(s) for s in staging.staging.staged.stages}
    chosen = [n for n in ("state", "step") if n in emitted]
    made = {n: compile_tvm(emitted[n], architecture, host=platform.machine()) for n in chosen}
    parts = Parts(dict.fromkeys(chosen, kind), {stage_path(n, kind): m.library for n, m in made.items()},
                  golden=frames_bytes(list(staging.frames)))
    whole = assemble(staging.staging.staged, emitted, target, wanted, parts)
    bundle = write_bundle(place.folder / "tvm.vlab", whole.plan, whole.contents, {"outputs": ["action"]},
                          lambda path: None)
    command = [ROOT / "build/runtime_c/vlart-run", bundle.path, "--self-test", "--json", "--native-code", "--ort",
               onnxruntime_library(), "--tvm-ffi", libraries["tvm_ffi_library"], "--tvm", libraries["tvm_library"]]
    command += ["--tvm-cuda", libraries["tvm_cuda_library"]] if kind == "tvm_cuda" else []
    found = ":".join([str(CUDA / "lib64"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])  # CUDA's own libraries
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False,
                          env=os.environ | {"LD_LIBRARY_PATH": found})
    report = json.loads(done.stdout)
    if report["status"] != "OK":
        raise ConfigError(report["what"], where=report["where"], why=report["why"], fix=report["fix"])
    return {"compiled for": architecture, "stages": chosen, "kernels": {
        n: len(m.report.get("resources", {})) for n, m in made.items()},
        "values": {v["name"]: {"rel_l2": v["rel_l2"], "cosine": v["cosine"]} for v in report["values"]}}


STEPS: dict[str, Callable[[Place], dict]] = {
    "machine": machine, "build": build, "products": products, "graphs-fp16": partial(graphs, "fp16"),
    "graphs-int8": partial(graphs, "int8"), "onnxruntime": onnxruntime_graphs, "tensorrt": tensorrt, "tvm": tvm}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    try:
        found = {"status": "passed", "figures": STEPS[args.step](Place(args.device, args.folder))}
    except Skipped as skipped:
        found = {"status": "skipped", "why": str(skipped)}
    except VlaError as error:
        print(error)
        found = {"status": "failed", "why": f"{error.what}; {error.why}"}
    print(json.dumps(found, default=float), flush=True)


if __name__ == "__main__":
    main()
