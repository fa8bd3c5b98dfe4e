"""Whether a loop is one engine that runs K times, or one engine with all K iterations.

A launch per iteration costs what the target says; an engine with all iterations is K times as long, and ONNX Runtime
packs the weights of every iteration anew. TensorRT fuses what dequantises a 4-bit weight into a product that alone
reads it, so there 4 bits run K times. The choice follows from these facts alone, so that a build stays a function of
its inputs. `benchmarks/forms.py` measures both: on the host one engine wins where a launch is more than about a quarter
of an iteration, and loses where it is less.
"""

from __future__ import annotations

from vlacompile.compiler.graph.ops import flops, tensor_bytes
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.hardware.target import Target
from vlacompile.recipe.recipe import AUTO, LoopRecipe, PrecisionRecipe

WORTHWHILE = 0.25  # share of an iteration that its launch takes
PACKED_BYTES = 64 << 20  # of all iterations' weights together


def fuses(program: Program, target: Target, recipe: LoopRecipe, precision: PrecisionRecipe) -> bool:
    """Whether the loops of `program` are fused. precision: what the layers may come to be in."""
    if recipe.form != "auto":
        return recipe.form == "fused"
    if target.backend == "tensorrt" and _in_four_bits(precision):
        return False
    loops = [n for n in program.graph.nodes if isinstance(n.target, RolledLoop)]
    return bool(loops) and all(_pays(program, n, target) for n in loops)


def _in_four_bits(precision: PrecisionRecipe) -> bool:
    """Whether any layer may come to have weights of 4 bits."""
    asked = {precision.layers, *(r.scheme for r in precision.rule)}
    return "int4" in (asked | set(precision.schemes) if AUTO in asked else asked)


def _pays(program: Program, node, target: Target) -> bool:
    loop: RolledLoop = node.target
    work_us = sum(flops(n) for n in loop.body.nodes) / (target.launch.gflops * 1e3)
    share = target.launch.overhead_us / (target.launch.overhead_us + work_us)
    weights = sum(tensor_bytes(program.constants[n.target]) for n in node.args[2] if n.op == "get_attr")
    return share > WORTHWHILE and loop.iterations * weights <= PACKED_BYTES
