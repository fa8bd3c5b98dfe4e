"""Output error of every stage of a policy with each method of quantising its layers, in PyTorch.

    python -m benchmarks.quantise examples.libero_goal.policy:heavy --recipe libero-goal

Observations of some recorded episodes are the calibration set; those of the others (other instructions) are used for
measuring. An error is that of the stage's outputs on its recorded calls, relative (L2), with all its linears and
convolutions (INT8) or linears (INT4) quantised at once.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from torch.fx import Graph

from examples.libero_goal import recordings
from examples.libero_goal.encoders import tokenize
from examples.libero_goal.policy import IMAGES, MASK, STATE, TOKENS
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.precision.quantise.calibrate import Call, collect, record_calls
from vlacompile.compiler.precision.quantise.layers import QuantisedLayer, layers_of
from vlacompile.compiler.precision.quantise.quantise import Method, quantise_stage
from vlacompile.compiler.precision.quantise.smoothing import smooth_activations
from vlacompile.compiler.staging.run_stages import stage_module
from vlacompile.compiler.staging.stages import StageGraph
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.phases.load_policy import load_policy
from vlacompile.phases.read_inputs import resolve
from vlacompile.recipe.recipe import load_recipe

# label: (scheme, method, whether channels are rescaled first (smoothing))
WAYS = {
    "int8 minmax": ("int8", Method(correct_bias=False), False),
    "int8 minmax, bias": ("int8", Method(), False),
    "int8 percentile, bias": ("int8", Method("percentile"), False),
    "int8 entropy, bias": ("int8", Method("entropy"), False),
    "int8 mse, bias": ("int8", Method("mse"), False),
    "int8 minmax, bias, smooth 0.5": ("int8", Method(), True),
    "int8 minmax, bias, smooth searched": ("int8", Method(alpha=None), True),
    "int8 mse, bias, smooth searched": ("int8", Method("mse", alpha=None), True),
    "int4 rtn": ("int4", Method(correct_bias=False), False),
    "int4 rtn, bias": ("int4", Method(), False),
    "int4 clipped, bias": ("int4", Method(int4="awq"), False),
    "int4 awq, bias": ("int4", Method(int4="awq"), True),
    "int4 gptq, bias": ("int4", Method(int4="gptq"), False),
    "int4 awq then gptq, bias": ("int4", Method(int4="gptq"), True),
}


MEASURED = (1, 3)  # episodes held out from calibration


def observations(member: str, measured: bool) -> list[dict[str, torch.Tensor]]:
    found = []
    for row in (r for r in recordings.load() if (r.episode in MEASURED) == measured):
        tokens, mask = tokenize(member, row.instruction)
        images = {IMAGES[camera]: torch.from_numpy(image)[None] for camera, image in row.images.items()}
        found.append({TOKENS: tokens, MASK: mask, **images, STATE: torch.from_numpy(row.state)[None]})
    return found


def rounded(graph_of: StageGraph, layers: dict[str, QuantisedLayer]) -> StageGraph:
    """The stage with dequantised weights; for INT8 also with inputs rounded, symmetric, per tensor."""
    graph, copies, constants = Graph(), {}, dict(graph_of.constants)
    for n in graph_of.graph.nodes:
        new = copies[n] = graph.node_copy(n, lambda m: copies[m])
        if n.name not in layers:
            continue
        layer, args = layers[n.name], list(new.args)
        constants[f"q_{n.name}"] = layer.dequantised()
        with graph.inserting_before(new):
            args[1] = graph.get_attr(f"q_{n.name}")
            if layer.scheme == "int8":
                scale = max(-layer.low, layer.high) / 127
                args[0] = graph.call_function(torch.fake_quantize_per_tensor_affine, (args[0], scale, 0, -127, 127))
            if layer.bias is not None:
                constants[f"b_{n.name}"] = layer.bias
                args[2:3] = [graph.get_attr(f"b_{n.name}")]
        new.args = tuple(args)
    return replace(graph_of, graph=graph, constants=constants)


def error(got: StageGraph, want: StageGraph, calls: tuple[Call, ...]) -> float:
    off, size = 0.0, 0.0
    a, b = stage_module(got), stage_module(want)
    with torch.no_grad():
        for call in calls:
            for x, y in zip(a(*call), b(*call), strict=True):
                off += float((x - y).double().square().sum())
                size += float(y.double().square().sum())
    return (off / size) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", help="examples.libero_goal.policy:light or :heavy")
    parser.add_argument("--recipe", default=None)
    parser.add_argument("--stages", nargs="*", help="names of stages (default: all)")
    options = parser.parse_args()
    policy = load_policy(options.policy)
    recipe = resolve(load_recipe(options.recipe), policy)
    staged = stage(capture(policy), load_target("host"), recipe, policy).staged
    member = options.policy.rpartition(":")[2]
    fit, measure = (record_calls(staged, observations(member, measured)) for measured in (False, True))
    for s in (s for s in staged.stages if not options.stages or s.name in options.stages):
        schemes = {"int8": {x.node: "int8" for x in layers_of(s) if x.kind != "embedding"},
                   "int4": {x.node: "int4" for x in layers_of(s) if x.kind == "linear"}}
        plain, found = collect(s, fit[s.name]), {}
        print(f"{s.name}: {len(schemes['int8'])} layers, {len(schemes['int4'])} of them linear")
        for label, (scheme, method, rescale) in WAYS.items():
            start, where, samples = time.monotonic(), s, plain
            if rescale:
                how = replace(method, int4="awq")
                key = (scheme, how)
                if key not in found:
                    moved = smooth_activations(s, plain, schemes[scheme], how).stage
                    found[key] = moved, collect(moved, fit[s.name])
                where, samples = found[key]
            layers = quantise_stage(where, samples, schemes[scheme], method)
            spent = time.monotonic() - start
            print(f"  {label:36} {error(rounded(where, layers), s, measure[s.name]):.4f}   {spent:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
