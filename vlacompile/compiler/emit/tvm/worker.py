"""Compiles one ONNX file with TVM, in a separate process: `python -m vlacompile.compiler.emit.tvm.worker REQUEST.json`.

The compiler keeps global state, reads its environment when it is loaded and can crash; the caller (`tvm/stage.py`) must
survive that. Must not know of stages or bundles.

The request: {"model": path, "machine": a key of TARGETS, "host": that of the processor which launches kernels,
"compiler": C++ compiler or null, "out": path, "trials": number of candidates, "seed": number, "schedules":
{"workloads": lines, "records": lines} found before}. Besides the library it writes a JSON report, with the schedules if
there are any.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

# "mcpu" is the lowest common denominator of such machines: x86-64-v3 is AVX2 and FMA; Jetson Orin has Cortex-A78AE
# cores, and an integrated GPU of compute capability 8.7.
TARGETS = {
    "x86_64": {"kind": "llvm", "mcpu": "x86-64-v3"},
    "aarch64": {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a78"},
    "sm_87": {"kind": "cuda", "arch": "sm_87", "max_threads_per_block": 1024, "max_shared_memory_per_block": 49152,
              "thread_warp_size": 32},
}


def target_of(machine: str) -> dict:
    """Of another GPU than Orin's: the same, of its architecture ("sm_90")."""
    return TARGETS.get(machine) or TARGETS["sm_87"] | {"arch": machine}


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import tvm
    from tvm.support import cc

    built, searched = compiled(request)
    how = {"fcompile": cc.cross_compiler(request["compiler"])} if request["compiler"] else {}
    built.export_library(request["out"], **how)
    report = {"tvm": tvm.__version__, "target": target_of(request["machine"]), "schedules": searched}
    Path(request["out"] + ".json").write_text(json.dumps(report), encoding="utf-8")


def compiled(request: dict):
    """(the module that TVM compiled from the model, the schedules or None)"""
    import onnx
    import tvm
    from tvm.relax.frontend.onnx import from_onnx

    machine, host = target_of(request["machine"]), TARGETS[request["host"]]
    module = from_onnx(onnx.load(request["model"]), keep_params_in_input=False)
    target = tvm.target.Target(machine, host=None if host == machine else host)
    known, searched = request["schedules"], None
    if known["records"] or request["trials"]:
        from vlacompile.compiler.emit.tvm import tuning as tvm_tuning

        # The number of cores is part of the key under which schedules are stored.
        target = tvm.target.Target(machine | {"num-cores": 1})
        module = tvm_tuning.lowered(module, target)
        with tempfile.TemporaryDirectory() as folder:
            module, searched = tvm_tuning.scheduled(module, target, known, request["trials"], request["seed"],
                                                    Path(folder))
    with target:  # the code that calls nvcc reads the current target
        return tvm.compile(module, target=target), searched


if __name__ == "__main__":
    main()
