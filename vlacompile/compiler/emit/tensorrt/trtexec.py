"""A plan's `build` record as one command line for JetPack's trtexec, to be run in the bundle's directory on the board.

TensorRT 10.3 and 10.16 have all of these flags (tests/compiler/emit/tensorrt/trtexec_options.json, from its sources);
11 accepts only strongly typed networks and needs no flag for that.
"""

from __future__ import annotations

import shlex

from vlacompile.hardware.board import MIB
from vlart.bundle.plan.plan import Plan, Stage

_FLAGS = {"strongly_typed": "--stronglyTyped", "no_tf32": "--noTF32"}
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # its path in JetPack


def trtexec(plan: Plan, stage: Stage) -> str:
    """stage: one of the plan's stages with a build record. Shapes are static, so there is no optimisation profile;
    precisions are the dtypes of the graph."""
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
    """Commands for all stages with a build record; none if the bundle is not for a board."""
    return [trtexec(plan, s) for s in plan.stages if s.build is not None]
