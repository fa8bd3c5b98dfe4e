"""A plan's `build` record as one command line of JetPack's trtexec, run in the bundle's directory on the board.

All of these flags are in TensorRT 10.3 and 10.16 (tests/compiler/emit/tensorrt/trtexec_options.json, from its
sources); 11 takes no other network than a strongly typed one and needs no flag for it.
"""

from __future__ import annotations

import shlex

from vlacompile.bundle.plan.plan import Plan, Stage
from vlacompile.hardware.board import MIB

_FLAGS = {"strongly_typed": "--stronglyTyped", "no_tf32": "--noTF32"}
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # where JetPack puts it


def trtexec(plan: Plan, stage: Stage) -> str:
    """stage: one of the plan's with a build. Shapes are fixed, so there is no profile; precisions are those of the
    graph's own types."""
    build = stage.build
    major = int(plan.board.tensorrt.split(".")[0])
    flags = [_FLAGS[name] for name in build.flags if not (major > 10 and name == "strongly_typed")]
    return shlex.join([
        TRTEXEC, f"--onnx={plan.files[stage.artefact].path}", f"--saveEngine=engines/{stage.name}.plan", *flags,
        f"--builderOptimizationLevel={build.level}", f"--maxAuxStreams={build.aux_streams}",
        f"--memPoolSize=workspace:{build.workspace_bytes // MIB}",
        f"--timingCacheFile=engines/{plan.board.timing_cache}",
        "--skipInference"])


def commands(plan: Plan) -> list[str]:
    """Of all stages that are built; none where the bundle is for no board."""
    return [trtexec(plan, s) for s in plan.stages if s.build is not None]
