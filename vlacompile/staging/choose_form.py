"""Whether a loop is one engine that runs K times, or one engine with all K iterations.

A launch per iteration costs what the target says; an engine with all iterations is K times as long, and ONNX Runtime
packs the weights of every iteration anew. The choice follows from these facts alone, so that a build stays a function
of its inputs. `benchmarks/forms.py` measures both: on the host one engine wins where a launch is more than about a
quarter of an iteration, and loses where it is less.
"""

from __future__ import annotations

from vlacompile.capture.ops import flops, tensor_bytes
from vlacompile.capture.program import Program
from vlacompile.recipe import LoopRecipe
from vlacompile.staging.rolled import RolledLoop
from vlacompile.target import Target

WORTHWHILE = 0.25  # share of an iteration that its launch takes
PACKED_BYTES = 64 << 20  # of all iterations' weights together


def fuses(program: Program, target: Target, recipe: LoopRecipe) -> bool:
    """Whether the loops of `program` are fused."""
    if recipe.form != "auto":
        return recipe.form == "fused"
    loops = [n for n in program.graph.nodes if isinstance(n.target, RolledLoop)]
    return bool(loops) and all(_pays(program, n, target) for n in loops)


def _pays(program: Program, node, target: Target) -> bool:
    loop: RolledLoop = node.target
    work_us = sum(flops(n) for n in loop.body.nodes) / (target.launch.gflops * 1e3)
    share = target.launch.overhead_us / (target.launch.overhead_us + work_us)
    weights = sum(tensor_bytes(program.constants[n.target]) for n in node.args[2] if n.op == "get_attr")
    return share > WORTHWHILE and loop.iterations * weights <= PACKED_BYTES
