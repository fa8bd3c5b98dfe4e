"""Models the stages of a policy on a board from shapes alone, in the precisions of a memory plan: what `plan` says
before anything is built. Nothing is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from vlacompile.compiler.emit.onnx.attention_list import AttentionFact
from vlacompile.compiler.emit.onnx.planned_attentions import planned_attentions
from vlacompile.compiler.fit.planner import Fit, StageFit
from vlacompile.compiler.precision.assign.candidates import admits
from vlacompile.compiler.precision.assign.layer_costs import weight_bytes
from vlacompile.compiler.precision.quantise.layers import Layer, layers_of
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.hardware.target import Target
from vlacompile.policy.action_decoding import shape_of
from vlacompile.policy.policy import Policy
from vlacompile.profile.kernel_work import Kernel
from vlacompile.profile.power import is_extrapolated, power_factor, watts
from vlacompile.profile.published import bands
from vlacompile.profile.roofline import CHANGING, ENGINE_SCRATCH_BYTES, Modelled, StageTime, stage_us
from vlacompile.recipe.tensorrt_rules import TensorRTRecipe

BLOCK = 64  # elements that share a scale in int4


@dataclass(frozen=True)
class BoardPlan:
    """fit: whether and how the policy fits. modelled: its latency, of the precisions that the fit chose; None if it
    does not fit, or engines are loaded in every replan (reading files is not modelled). Of several backbones, the
    slowest one's; backbones: {name: latency of each}. layers_ms: {stage: its latency with all equal layers in one
    engine, as a loop, and that if every run lays the weights out anew}. attentions: (stage, each attention of an
    iteration), fused or not; iterations: {stage: how often it runs}. What attentions that are not fused take is not in
    the latency. text_tokens: {backbone: tokens of text that it reads} of a policy at several lengths."""

    fit: Fit
    modelled: Modelled | None
    target: Target
    backbones: Mapping[str, Modelled] = field(default_factory=dict)
    layers_ms: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    attentions: tuple[tuple[str, AttentionFact], ...] = ()
    iterations: Mapping[str, int] = field(default_factory=dict)
    text_tokens: Mapping[str, int] = field(default_factory=dict)

    def attention_facts(self) -> dict:
        """As the provenance of a bundle has them."""
        return {"attentions": [{"stage": n, **asdict(a)} for n, a in self.attentions], "target": asdict(self.target)}

    def as_dict(self) -> dict:
        m = self.modelled
        facts = {"fit": self.fit.as_dict(), "attentions": self.attention_facts()["attentions"]}
        if m is None:
            return facts | {"latency": None}
        return facts | {"latency": {
            "same_instruction_ms": m.same / 1e3, "new_instruction_ms": m.new / 1e3,
            **energy_of(self.target, m.same / 1e3), "executed": m.execute, "actions_per_s": m.actions_per_s,
            "layers_ms": {n: list(t) for n, t in self.layers_ms.items()},
            "text_tokens": dict(self.text_tokens),
            "backbones_ms": {n: b.same / 1e3 for n, b in self.backbones.items()},
            "stages_ms": {s.stage: s.total / 1e3 for b in self.backbones.values() or [m] for s in b.stages}}}


def energy_of(target: Target, ms: float) -> dict:
    """What follows from the latency of a replan, ms: error_factor of the latency; watts of the module while it works,
    joules of the replan and joules_factor, their error, None if no power is modelled; extrapolated: nobody published
    the power of this board in this mode."""
    power, time = watts(target), bands().time
    return {"error_factor": time, "watts": power, "joules": None if power is None else power * ms / 1e3,
            "joules_factor": None if power is None else time * power_factor(target),
            "extrapolated": is_extrapolated(target)}


def on_board(policy: Policy, staged: Staged, fit: Fit, target: Target, rules: TensorRTRecipe) -> BoardPlan:
    """target: the board that the fit is for. rules: of emission."""
    planned = {s.stage: s for s in fit.stages}
    attentions = tuple((s.name, a) for s in staged.stages for a in planned_attentions(
        s, planned[s.name].scheme != "fp32", rules.fusible_attentions))
    iterations = {s.name: s.iterations for s in staged.stages}
    if not fit.fits or any(s.residency == "per replan" for s in fit.stages):
        return BoardPlan(fit, None, target, attentions=attentions, iterations=iterations)
    rows = {stage.name: _time(stage, staged, planned[stage.name], target) for stage in staged.stages}
    of = {name: Modelled(target.name, tuple(rows[s.name] for s in staged.stages
                                            if not s.backbones or name in s.backbones),
                         fit.values, watts(target), _executed(policy, staged), ENGINE_SCRATCH_BYTES)
          for name in policy.backbones or ("",)}
    layers = {}
    for s in (s for s in staged.stages if planned[s.name].depth is not None):
        one, many = (_time(s, staged, replace(planned[s.name], layers=n), target).total / 1e3
                     for n in (0, planned[s.name].depth.layers))
        gbps = target.rates.fp16.gbps if target.rates is not None and target.rates.fp16 is not None else math.inf
        layers[s.name] = one, many, many + s.iterations * 2 * planned[s.name].depth.table / gbps / 1e6
    return BoardPlan(fit, max(of.values(), key=lambda m: m.same), target, of if policy.backbones else {}, layers,
                     attentions, iterations,
                     dict(zip(policy.backbones, policy.buckets.lengths, strict=True)) if policy.buckets else {})


def _executed(policy: Policy, staged: Staged) -> int:
    """Actions executed per replan; 0: the first output is no chunk of actions."""
    name = policy.outputs[0]
    shape = shape_of(policy.decoder, staged.types[name].dtype, staged.types[name].dims, name)
    return 0 if shape is None else policy.execute or shape[0]


def _time(stage: StageGraph, staged: Staged, planned: StageFit, target: Target) -> StageTime:
    """Of equal layers as a loop, each is a launch."""
    kernels = kernels_of(stage, planned.scheme)
    compute, bandwidth, calls = stage_us(kernels, target, f'stage "{stage.name}"')
    k = stage.iterations
    every = any(staged.program.sources[n].update in CHANGING for n in stage.sources)
    launches = 1 + (planned.depth.launches if planned.layers and planned.depth is not None else 0)
    return StageTime(stage.name, k, k * compute, k * bandwidth, k * calls + launches * target.launch.overhead_us, every,
                     planned.weights, planned.activations, k * sum(x.operations for x in kernels), k * len(kernels),
                     k * sum(x.stored for x in kernels))


def kernels_of(stage: StageGraph, scheme: str) -> tuple[Kernel, ...]:
    """The products of one iteration. A layer without a kernel in the scheme stays in fp16; products of two activations
    are one attention."""
    layers = layers_of(stage)
    found = [_kernel(x, scheme if scheme in admits(x, "tensorrt") else "fp16") for x in layers]
    rest = stage.flops - sum(x.flops for x in layers)
    if rest > 0:
        found.append(Kernel(f"{stage.name}, products of activations", "attention",
                            "fp32" if scheme == "fp32" else "fp16", 1, rest, 0, 0, 0))
    return tuple(found)


def _kernel(layer: Layer, scheme: str) -> Kernel:
    kind = "depthwise" if layer.depthwise else layer.kind
    rows, stored, weights = layer.rows // layer.iterations, weight_bytes(layer, scheme, BLOCK), layer.weights
    if layer.kind == "embedding":  # only the copied rows
        rows = min(rows, layer.shape[0])
        stored, weights = stored * rows // layer.shape[0], weights * rows // layer.shape[0]
    return Kernel(layer.node, kind, scheme, rows, layer.flops, stored, 0, weights)
