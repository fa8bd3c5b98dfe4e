"""Latency model of a bundle on a target: a roofline with launch overhead over its kernels. Nothing is measured.

time of a kernel = call + max(operations / rate, weight bytes / bandwidth), by the target's rates; a stage adds one
launch. Norms, sums and softmax have no term of their own: `call` includes them, as in the figures that it was fitted
to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vlacompile.hardware.target import Target
from vlacompile.profile.kernel_work import Kernel, StageWork
from vlacompile.profile.power import watts
from vlart.bundle.plan.plan import Plan
from vlart.errors import ConfigError

# Bytes per weight, for int4 in blocks of 64 with f32 scales.
BYTES_PER_WEIGHT = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5625}
# Scratch memory of an engine besides its activations: 8.2 to 10.4 MB in all of profiles/rtx, even the smallest.
ENGINE_SCRATCH_BYTES = 8 << 20
CHANGING = ("observation", "step", "tick")


@dataclass(frozen=True)
class WhatIf:
    """Changes to what was built. precision: of all layers; iterations: of loops; cameras: their number; execute:
    actions of a chunk that are executed before the next replan (h). None: as built."""

    precision: str | None = None
    iterations: int | None = None
    cameras: int | None = None
    execute: int | None = None


@dataclass(frozen=True)
class StageTime:
    """us of one run with all its iterations. compute, bandwidth: time of kernels by their bound. every: it runs for
    every observation. weights, live: bytes. operations, products: of all iterations; for the number of kernels that an
    engine launches for them see published.py. read: bytes of weights that all products read."""

    stage: str
    iterations: int
    compute: float
    bandwidth: float
    launch: float
    every: bool
    weights: int
    live: int
    operations: int
    products: int
    read: int
    times: float = 1.0  # multiplicity of a camera's stage if the number of cameras is changed

    @property
    def total(self) -> float:
        return self.times * (self.compute + self.bandwidth + self.launch)


@dataclass(frozen=True)
class Modelled:
    """us and bytes. same: a replan with the same instruction; new: the first with a new one. memory: weights of all
    engines, the largest activations and scratch of one, values passed between stages; CUDA is not included. watts:
    None: not known. execute: actions executed per replan; 0: the policy has no actions."""

    target: str
    stages: tuple[StageTime, ...]
    arena: int
    watts: float | None
    execute: int = 0
    scratch: int = 0

    @property
    def same(self) -> float:
        return sum(s.total for s in self.stages if s.every)

    @property
    def new(self) -> float:
        return sum(s.total for s in self.stages)

    @property
    def actions_per_s(self) -> float | None:
        """Upper bound, with back-to-back replans."""
        return 1e6 * self.execute / self.same if self.execute and self.same else None

    @property
    def memory(self) -> int:
        return self.arena + self.weights + self.activations

    @property
    def weights(self) -> int:
        """Each further camera adds an engine with weights of its own."""
        return sum(int(s.times * s.weights) for s in self.stages)

    @property
    def activations(self) -> int:
        return max((s.live for s in self.stages), default=0) + self.scratch

    @property
    def joules(self) -> float | None:
        """Energy of one replan, of the whole module."""
        return None if self.watts is None else self.watts * self.same / 1e6


def model(plan: Plan, work: Sequence[StageWork], target: Target, question: WhatIf = WhatIf()) -> Modelled:
    """Raises ConfigError if the target has no rate for a kernel."""
    updates = {s.value: s.update for s in plan.sources}
    cameras = {s.name for s in plan.stages if _sees(plan, s.depends)}
    back, times = {*plan.looking_back(), *plan.depends_on_carried()}, 1.0
    if question.cameras is not None:
        if not cameras:
            raise ConfigError("no stage depends on a single camera", where=f'bundle "{plan.name}"',
                              why="every stage reads more than one image, or none",
                              fix="omit --cameras")
        times = question.cameras / camera_count(plan)
    rows = []
    for stage, w in zip(plan.stages, work, strict=True):
        if question.iterations is not None and w.iterations > 1 and stage.sampling is not None:
            w = replace(w, iterations=question.iterations)
        if question.precision is not None:
            w = _in_precision(w, question.precision, target)
        every = stage.name in back or any(updates[d] in CHANGING for d in stage.depends)
        compute, bandwidth, calls = stage_us(w.kernels, target, f'stage "{w.stage}"')
        rows.append(StageTime(w.stage, w.iterations, w.iterations * compute, w.iterations * bandwidth,
                              w.iterations * calls + target.launch.overhead_us, every,
                              w.constants, w.live, w.of("operations"), w.iterations * len(w.kernels), w.of("stored"),
                              times if stage.name in cameras else 1.0))
    return Modelled(target.name, tuple(rows), plan.arena_bytes, watts(target), _executed(plan, question),
                    0 if target.board is None else ENGINE_SCRATCH_BYTES)


def _executed(plan: Plan, question: WhatIf) -> int:
    """Actions executed per chunk. Raises ConfigError for more than a chunk has."""
    if question.execute is None:
        return plan.action.execute_steps if plan.action else 0
    if plan.action is None or question.execute > plan.action.chunk_steps:
        raise ConfigError(f"{question.execute} actions cannot be executed per chunk", where=f'bundle "{plan.name}"',
                          why=f"a chunk has {plan.action.chunk_steps}" if plan.action
                          else "the policy has no actions",
                          fix="ask for fewer, or omit --execute")
    return question.execute


def camera_count(plan: Plan) -> int:
    """Number of images with a stage of their own."""
    return len({d for s in plan.stages if _sees(plan, s.depends) for d in s.depends})


def stage_us(kernels: Iterable[Kernel], target: Target, where: str = "") -> tuple[float, float, float]:
    """us of one iteration: (kernels bound by arithmetic, by bandwidth, calls). Raises ConfigError."""
    compute = bandwidth = calls = 0.0
    for k in kernels:
        rates = getattr(target.rates, k.scheme, None)
        rate = None if rates is None else {"linear": rates.linear_gflops, "attention": rates.linear_gflops,
                                           "embedding": rates.linear_gflops, "conv": rates.conv_gflops,
                                           "depthwise": rates.depthwise_gflops}[k.kind]
        if rate is None:
            raise ConfigError(f"the latency in {k.scheme} is unknown", where=f'target "{target.name}", {where}',
                              why=f"the target has no rate for a product of kind {k.kind}",
                              fix="choose a board (`vlacompile targets`), or add the rates to the target")
        if k.kind == "attention":  # fused with its neighbours
            compute += k.operations / rate / 1e3
            continue
        arithmetic, memory = k.operations / rate / 1e3, k.stored / rates.gbps / 1e3
        calls += rates.call_us
        if arithmetic >= memory:
            compute += arithmetic
        else:
            bandwidth += memory
    return compute, bandwidth, calls


def _in_precision(w: StageWork, scheme: str, target: Target) -> StageWork:
    kernels = tuple(in_precision(k, scheme, wide_scheme(target)) for k in w.kernels)
    before, after = (sum(k.stored for k in ks) for ks in (w.kernels, kernels))
    halved = scheme != "fp32" and all(k.scheme == "fp32" for k in w.kernels if k.kind == "attention")
    return replace(w, kernels=kernels, constants=int(w.constants * after / before) if before else w.constants,
                   live=w.live // 2 if halved else w.live)


def wide_scheme(target: Target) -> str:
    """What a target computes products in that have no kernel for fewer bits: a processor without fp16, fp32."""
    return "fp32" if target.rates is not None and target.rates.fp16 is None else "fp16"


def in_precision(kernel: Kernel, scheme: str, wide: str = "fp16") -> Kernel:
    """The same product in another scheme; a product without a 4-bit kernel becomes `wide`, as does attention with
    int8."""
    if kernel.kind == "attention":
        return replace(kernel, scheme="fp32" if scheme == "fp32" else wide)
    if scheme == "int4" and kernel.kind not in ("linear", "embedding"):
        scheme = wide
    return replace(kernel, scheme=scheme, stored=int(kernel.weights * BYTES_PER_WEIGHT[scheme]))


def _sees(plan: Plan, depends: Sequence[int]) -> bool:
    """Whether the stage depends on one image and on nothing else that changes with the observation."""
    images = [d for d in depends if 3 in (plan.values[d].type.dims[-1:] + plan.values[d].type.dims[-3:-2])
              and len(plan.values[d].type.dims) >= 3]
    return len(images) == 1 == len(depends)
