"""A process that compiles one ONNX file with TensorRT-RTX and records the result: `python worker.py MODEL RESULT
CC`.

The compiler may kill it at any time; a missing result is a result, too. Imports nothing of vlacompile, so that any
interpreter with the package can run it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

KEPT = ("ERROR", "INTERNAL_ERROR", "WARNING")
SAYS = ("Total Activation Memory", "Total Weights Memory", "Layers:\n")


def compile_stage(model: str, capability: str) -> dict:
    import tensorrt_rtx as trt

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.rows: list[str] = []
            self.errors: list[str] = []

        def log(self, severity, message):
            if severity.name in KEPT:
                self.errors.append(f"{severity.name}: {message}")
            elif message.startswith(SAYS):
                self.rows.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    found = {"compiler": f"tensorrt-rtx {trt.__version__}", "parsed": parser.parse_from_file(model), "log": log.rows,
             "said": log.errors, "errors": [], "engine_bytes": None}
    if not found["parsed"]:
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        found["errors"] = [{"code": e.code().name, "node": e.node_name(), "op": e.node_operator(), "why": e.desc()}
                           for e in errors]
        return found
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0):
        return found | {"errors": [{"code": "TARGET", "node": "", "op": "", "why": f"{capability} was refused"}]}
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    config.max_aux_streams = 0
    engine = builder.build_serialized_network(network, config)
    return found | {"engine_bytes": None if engine is None else engine.nbytes}


if __name__ == "__main__":
    model, result, capability = sys.argv[1:]
    Path(result).write_text(json.dumps(compile_stage(model, capability)), encoding="utf-8")
