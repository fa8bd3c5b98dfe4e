"""Whether a loop is emitted as one engine that is launched K times, or unrolled into one engine with K iterations.

Separate launches cost the target's launch overhead per iteration, beside which every call of an op counts; an unrolled
engine has K times as many ops, and ONNX Runtime packs the weights once per iteration. TensorRT fuses the dequantisation
of a 4-bit weight into a matrix product only if no other op reads it, so loops with 4-bit weights are not unrolled
there. The choice depends on these facts only, so a build stays a function of its inputs. `benchmarks/forms.py` measures
both forms: on the host the unrolled one is faster if a launch takes more than about a quarter of an iteration, and
slower if it takes less.
"""

from __future__ import annotations

from vlacompile.compiler.graph.ops import flops, tensor_bytes
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.hardware.target import Target
from vlacompile.recipe.precision_recipe import AUTO, PrecisionRecipe
from vlacompile.recipe.recipe import LoopRecipe
from vlart.errors import ConfigError

WORTHWHILE = 0.25  # launch overhead as a share of an iteration's time
PACKED_BYTES = 64 << 20  # upper bound for the packed weights of all iterations


def fuses(program: Program, target: Target, recipe: LoopRecipe, precision: PrecisionRecipe) -> bool:
    """Whether the loops of `program` are unrolled (form "fused"); one that the data ends never is. precision: the
    schemes that layers may get. Raises ConfigError if the recipe wants it."""
    loops = [n for n in program.graph.nodes if isinstance(n.target, RolledLoop)]
    if any(n.target.end is not None for n in loops):
        if recipe.form == "fused":
            raise ConfigError('loop.form = "fused" unrolls a loop that the data ends', where=f'policy "{program.name}"',
                              why="an engine with all iterations runs them all, and does not say whether it ended",
                              fix='take loop.form = "steps" or "auto"')
        return False
    if recipe.form != "auto":
        return recipe.form == "fused"
    if target.backend == "tensorrt" and _in_four_bits(precision):
        return False
    return bool(loops) and all(_pays(program, n, target) for n in loops)


def _in_four_bits(precision: PrecisionRecipe) -> bool:
    """Whether any layer may get 4-bit weights."""
    asked = {precision.layers, *(r.scheme for r in precision.rule)}
    return "int4" in (asked | set(precision.schemes) if AUTO in asked else asked)


def _pays(program: Program, node, target: Target) -> bool:
    loop: RolledLoop = node.target
    ops = [n for n in loop.body.nodes if n.op == "call_function"]
    work_us = sum(map(flops, ops)) / (target.launch.gflops * 1e3) + len(ops) * _call_us(target)
    share = target.launch.overhead_us / (target.launch.overhead_us + work_us)
    weights = sum(tensor_bytes(program.constants[n.target]) for n in node.args[2] if n.op == "get_attr")
    return share > WORTHWHILE and loop.iterations * weights <= PACKED_BYTES


def _call_us(target: Target) -> float:
    """What an op costs beside its work, in us. TensorRT makes one kernel of many ops; its launch overhead says it."""
    rates = target.rates.fp32 if target.rates is not None else None
    return rates.call_us if rates is not None and target.backend == "onnxruntime" else 0.0
