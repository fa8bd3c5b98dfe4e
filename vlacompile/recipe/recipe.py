"""Recipes: what is wanted of a build. `recipes/*.toml` -> frozen dataclasses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from vlacompile.errors import ConfigError, nearest
from vlacompile.files.toml import load_toml
from vlacompile.hardware.target import Target
from vlacompile.recipe.quantisation_methods import BLOCKS, CALIBRATORS, ROUNDINGS, is_alpha, is_percentile
from vlacompile.recipe.unsupported_schemes import is_foreign, refusal
from vlacompile.vocabulary import CONSUMES, GUARD_RULES, LOOP_FORMS, SCHEDULES, SCHEMES


@dataclass(frozen=True)
class StagesRecipe:
    """min_flops: stages below merge into a consumer; None: the target's launch cost decides.
    tvm: names of stages, or patterns of them, that TVM compiles ahead of time, in place of the target's engine; one
    that matches no stage is an error. tvm_device: "cpu", the target's processor, or "gpu", that of its board.
    tvm_schedules: a file, relative to the recipe's folder, of schedules that were found for their kernels; the others
    keep TVM's own, which are slow on a processor. tvm_trials: candidates per stage that are built and timed, on this
    machine, for kernels that the file does not have; the fastest are added to it. tvm_seed: of that search."""

    min_flops: int | None = None
    tvm: tuple[str, ...] = field(default=())
    tvm_device: str = "cpu"
    tvm_schedules: str = ""
    tvm_trials: int = 0
    tvm_seed: int = 0


@dataclass(frozen=True)
class ActionRecipe:
    """execute: actions handed out per replan (h); None: the whole chunk.
    low, high: bounds per action dimension in robot units; empty: only finiteness is checked.
    deadline_ms: time that one step may take; 0: none.
    consume: how successive chunks become actions. "queue": execute h, then replan. "ensemble": replan every
        tick, execute the mean of all predictions of the tick, weighted exp(-decay * i), i = 0 the oldest.
        "realtime": a new chunk replaces the rest of the last one, without the actions popped meanwhile.
    decay: of an ensemble; None: 0.01. delay: ticks that a replan takes, of realtime; execute is then at least
        delay and at most H - delay. schedule ("linear", "exp", "ones", "zeros"), horizon (None: H - execute):
        how the weights of the previous chunk fall after the delay, for policies that read them."""

    execute: int | None = None
    low: tuple[float, ...] = field(default=())
    high: tuple[float, ...] = field(default=())
    deadline_ms: float = 0.0
    consume: str = "queue"
    decay: float | None = None
    delay: int | None = None
    schedule: str | None = None
    horizon: int | None = None


@dataclass(frozen=True)
class LoopRecipe:
    """max_action_error: what a denoising loop may lose to a solver with fewer evaluations, in units of each action
    dimension's spread over the calibration observations; 0: it runs as written.
    form: "steps" (one engine run per iteration), "fused" (all in one engine), or "auto".
    observations: how many are generated for calibration where the policy brings none."""

    max_action_error: float = 0.0
    form: str = "auto"
    observations: int = 8


TVM_DEVICES = ("cpu", "gpu")
TVM_CUDA = 13  # that libtvm_runtime_cuda.so of TVM 0.27 needs: JetPack 7.2 has it, 6.2 has 12.6
AUTO = "auto"  # instead of a scheme: the optimiser's choice


@dataclass(frozen=True)
class PrecisionRule:
    """layers: pattern ("*", "?", "[...]"; "*" also spans dots and slashes) of "<stage>/<path of a block or weight>"
    or of a weight's path alone. scheme: what the layers get that it matches, or "auto"."""

    layers: str
    scheme: str


@dataclass(frozen=True)
class PrecisionRecipe:
    """base: "fp32" or "fp16", of everything that is no layer, and of layers that touch actions or are small.
    layers: scheme of all other layers ("fp32", "fp16", "int8", "int4"), or "auto". rule: exceptions, the last that
    matches wins; one that matches no layer is an error.
    optional: the policy may stay as it is; without it a scheme that is named (of several that "auto" chooses from none
    is)
        and of which nothing can be carried out is refused.
    schemes: those that "auto" chooses from, besides the base.
    max_action_error: what actions may lose by all of it, in units of each action dimension's spread over the
    calibration
        observations, of the worst dimension, after the whole loop; None: anything, of fp16 as much as the
        integer layers cost (0.01 at least), and nothing is left to "auto".
    max_weight_mb (1e6 bytes), max_latency_ms (of a replan on average, by the target's rates): of all layers together;
        None: anything.
    minimise: "latency" or "bytes", what "auto" does within these limits. decide: what it decides as one, a "block" of
        layers or a "stage": every one of them is tried in every scheme, and that takes minutes where a policy is large.
    observations: how many are generated for calibration where the policy brings none.
    calibrator ("minmax", "percentile", "entropy", "mse"), percentile: how the range of activations follows from them.
    smooth: alpha of SmoothQuant (arXiv:2211.10438, eq. 4), 0: off. correct_bias: take the mean shift of int8 layers out
        of their bias.
    int4_method ("rtn", "awq", "gptq"): how 4-bit weights are rounded; block (32, 64, 128): how many share a scale."""

    base: str = "fp32"
    layers: str = "fp32"
    optional: bool = False
    schemes: tuple[str, ...] = ("fp16", "int8", "int4")
    max_action_error: float | None = None
    max_weight_mb: float | None = None
    max_latency_ms: float | None = None
    minimise: str = "latency"
    decide: str = "block"
    observations: int = 8
    calibrator: str = "percentile"
    percentile: float = 99.99
    smooth: float = 0.0
    correct_bias: bool = True
    int4_method: str = "rtn"
    block: int = 32
    rule: tuple[PrecisionRule, ...] = field(default=())

    @property
    def automatic(self) -> bool:
        """Whether anything is left to the optimiser."""
        return AUTO in (self.layers, *(r.scheme for r in self.rule))

    @property
    def named(self) -> tuple[str, ...]:
        """What layers are asked to be in, besides the base. "auto" with one scheme to choose names it; with several it
        may choose none of them."""
        offered = tuple(s for s in dict.fromkeys(self.schemes) if s not in ("fp32", self.base))
        asked = {self.layers, *(r.scheme for r in self.rule)}
        found = [s for s in SCHEMES if s in asked] + (list(offered) if AUTO in asked and len(offered) == 1 else [])
        return tuple(s for s in dict.fromkeys(found) if s not in ("fp32", self.base))

    @property
    def reduced(self) -> bool:
        """Whether anything may be less than fp32."""
        return {self.base, self.layers, *(r.scheme for r in self.rule)} != {"fp32"}


@dataclass(frozen=True)
class SafetyRule:
    """name: a source, or a pattern of names; the last rule that matches counts. low, high: range of its f32 numbers:
    one for all, or one per element of the last axis; empty: the section's `ranges`. outside, max_age_ms: None: the
    section's. not_finite: it may hold NaN and infinity (a marker of something missing)."""

    name: str
    low: tuple[float, ...] = field(default=())
    high: tuple[float, ...] = field(default=())
    outside: str | None = None
    max_age_ms: float | None = None
    not_finite: bool = False


RANGES = ("none", "calibration")


@dataclass(frozen=True)
class SafetyRecipe:
    """What the runtime refuses of sensors besides NaN and infinity.

    max_age_ms: how old an observation may be when it is used; 0: any age. ranges: "calibration": of the f32
    observations, as in Policy.calibration, widened on either side by `margin` of the width; "none": no range.
    outside: what a number outside its range does: "count", or "refuse" (the source keeps its old content).
    source: exceptions, and ranges in numbers."""

    max_age_ms: float = 0.0
    ranges: str = "none"
    margin: float = 0.5
    outside: str = "count"
    source: tuple[SafetyRule, ...] = field(default=())


TOKENIZE = ("bundle", "host")


@dataclass(frozen=True)
class TextRecipe:
    """tokenize: "bundle": the tokenizers that the policy declares travel in the bundle, and the runtime takes texts;
    "host": it takes token ids alone."""

    tokenize: str = "bundle"


@dataclass(frozen=True)
class LaneRecipe:
    """A slower clock than the control loop's; the recipe lists them from slow to fast. sources: names of what is
    written at that clock. The stages that depend on them alone run in a thread of their own. clock_hz: nominal; 0: not
    stated. max_age_ms: what the control loop reads of it may be so old; 0: any age."""

    name: str
    sources: tuple[str, ...]
    clock_hz: float = 0.0
    max_age_ms: int = 0


@dataclass(frozen=True)
class VerifyRecipe:
    """frames: golden frames recorded when building, at least 4 (every source changes once)."""

    frames: int = 6
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    name: str
    description: str
    stages: StagesRecipe = field(default_factory=StagesRecipe)
    action: ActionRecipe = field(default_factory=ActionRecipe)
    loop: LoopRecipe = field(default_factory=LoopRecipe)
    precision: PrecisionRecipe = field(default_factory=PrecisionRecipe)
    text: TextRecipe = field(default_factory=TextRecipe)
    safety: SafetyRecipe = field(default_factory=SafetyRecipe)
    verify: VerifyRecipe = field(default_factory=VerifyRecipe)
    lane: tuple[LaneRecipe, ...] = field(default=())


def load_recipe(name_or_path: str | None, target: Target | None = None) -> Recipe:
    """A shipped recipe by name, or a .toml file; None is "default". target: where it is to run, for what it cannot.
    Raises ConfigError."""
    where = name_or_path or "default"
    recipe = load_toml(Recipe, where, "recipes")
    _refuse_foreign(recipe.precision, where, target)
    checks = [
        *_tvm_checks(recipe.stages, target),
        (recipe.verify.frames >= 4, f"verify.frames = {recipe.verify.frames}", "at least 4 frames are needed"),
        (recipe.action.execute is None or recipe.action.execute > 0, f"action.execute = {recipe.action.execute}",
         "at least one action is executed per replan"),
        (len(recipe.action.low) == len(recipe.action.high), "action.low and action.high differ in length",
         "every dimension needs both bounds"),
        (all(a < b for a, b in zip(recipe.action.low, recipe.action.high, strict=False)),
         "action.low is not below action.high",
         "a range has a lower and an upper end"),
        (recipe.loop.max_action_error >= 0, f"loop.max_action_error = {recipe.loop.max_action_error}",
         "an error is not negative"),
        (recipe.loop.form in ("auto", *LOOP_FORMS), f'loop.form = "{recipe.loop.form}"',
         nearest(recipe.loop.form, ("auto", *LOOP_FORMS))),
        (recipe.loop.observations >= 2, f"loop.observations = {recipe.loop.observations}",
         "a spread is over at least two observations"),
        (recipe.action.deadline_ms >= 0, f"action.deadline_ms = {recipe.action.deadline_ms}", "a time is not negative"),
        (recipe.text.tokenize in TOKENIZE, f'text.tokenize = "{recipe.text.tokenize}"',
         nearest(recipe.text.tokenize, TOKENIZE)),
        *((x.clock_hz >= 0 and x.max_age_ms >= 0, f'lane "{x.name}" has a negative number',
           "neither a rate nor an age is")
          for x in recipe.lane),
        (len({x.name for x in recipe.lane}) == len(recipe.lane), "two lanes have one name", "they are found by name"),
        *_consume_checks(recipe.action),
        *_precision_checks(recipe.precision),
        *_safety_checks(recipe.safety),
    ]
    for good, what, why in checks:
        if not good:
            raise ConfigError(what, where=f'recipe "{where}"', why=why, fix="correct the recipe")
    return recipe


def _tvm_checks(s: StagesRecipe, target: Target | None) -> list[tuple[bool, str, str]]:
    gpu = s.tvm_device == "gpu"
    software, cuda = "", None
    if target is not None and target.software is not None:
        software, cuda = target.software.name, target.software.cuda
    return [
        (s.tvm_trials >= 0, f"stages.tvm_trials = {s.tvm_trials}", "a number of trials is not negative"),
        (bool(s.tvm_schedules) or not s.tvm_trials, "stages.tvm_trials without stages.tvm_schedules",
         "what a search finds depends on the clock: a build that keeps no file of it cannot be repeated"),
        (s.tvm_device in TVM_DEVICES, f'stages.tvm_device = "{s.tvm_device}"', nearest(s.tvm_device, TVM_DEVICES)),
        (bool(s.tvm) or not gpu, 'stages.tvm_device = "gpu" without stages.tvm', "no stage is TVM's"),
        (not s.tvm_schedules or not gpu, 'stages.tvm_schedules with stages.tvm_device = "gpu"',
         "schedules are searched for processors; of a GPU TVM's own are taken"),
        (target is None or not gpu or cuda is not None, 'stages.tvm_device = "gpu"',
         f'target "{target.name if target else ""}" has no GPU that is known'),
        (not gpu or cuda is None or int(cuda.split(".")[0]) >= TVM_CUDA, 'stages.tvm_device = "gpu"',
         f"TVM's runtime for GPUs is linked with CUDA {TVM_CUDA}, and {software} has CUDA {cuda}; "
         'choose software with it, or "cpu"'),
    ]


def _refuse_foreign(p: PrecisionRecipe, where: str, target: Target | None) -> None:
    """Schemes that exist elsewhere, with the reason why they do not here."""
    named = [("base", p.base), ("layers", p.layers), *(("schemes", s) for s in p.schemes),
             *(("rule.scheme", r.scheme) for r in p.rule)]
    for key, scheme in named:
        if is_foreign(scheme):
            why, fix = refusal(scheme, target)
            on = f', target "{target.name}"' if target is not None else ""
            raise ConfigError(f'precision.{key}: "{scheme}" cannot be had', where=f'recipe "{where}"{on}', why=why,
                              fix=fix)


def _consume_checks(action: ActionRecipe) -> list[tuple[bool, str, str]]:
    """(good, what, why): keys that another kind of consumption has, and values out of range."""
    mine = {"ensemble": ("decay",), "realtime": ("delay", "schedule", "horizon")}
    checks = [(action.consume in CONSUMES, f'action.consume = "{action.consume}"', nearest(action.consume, CONSUMES))]
    for kind, keys in mine.items():
        checks += [(action.consume == kind or getattr(action, k) is None, f"action.{k} is set",
                    f'it belongs to consume = "{kind}", this is "{action.consume}"') for k in keys]
    return checks + [
        (action.consume != "ensemble" or action.execute in (None, 1), f"action.execute = {action.execute}",
         "an ensemble replans after every action"),
        (action.decay is None or math.isfinite(action.decay), f"action.decay = {action.decay}", "it is not finite"),
        (action.consume != "realtime" or action.delay is not None, "action.delay is missing",
         "realtime needs the ticks that a replan takes"),
        (action.delay is None or action.delay >= 0, f"action.delay = {action.delay}", "ticks are not negative"),
        (action.schedule in (None, *SCHEDULES), f'action.schedule = "{action.schedule}"',
         nearest(action.schedule or "", SCHEDULES)),
    ]


def _safety_checks(s: SafetyRecipe) -> list[tuple[bool, str, str]]:
    checks = [
        (s.ranges in RANGES, f'safety.ranges = "{s.ranges}"', nearest(s.ranges, RANGES)),
        (s.outside in GUARD_RULES, f'safety.outside = "{s.outside}"', nearest(s.outside, GUARD_RULES)),
        (0 <= s.max_age_ms < math.inf, f"safety.max_age_ms = {s.max_age_ms}", "an age is finite and not negative"),
        (0 <= s.margin < math.inf, f"safety.margin = {s.margin}", "a margin is finite and not negative"),
    ]
    for r in s.source:
        where = f'safety.source "{r.name}"'
        checks += [
            (r.outside in (None, *GUARD_RULES), f'{where}: outside = "{r.outside}"',
             nearest(r.outside or "", GUARD_RULES)),
            (r.max_age_ms is None or 0 <= r.max_age_ms < math.inf, f"{where}: max_age_ms = {r.max_age_ms}",
             "an age is finite and not negative"),
            (len(r.low) == len(r.high) and all(a <= b for a, b in zip(r.low, r.high, strict=True)),
             f"{where}: low and high",
             "they are as many, and low is not above high"),
        ]
    return checks


BASES = ("fp32", "fp16")
MINIMISE = ("latency", "bytes")
DECIDE = ("block", "stage")


def _precision_checks(p: PrecisionRecipe) -> list[tuple[bool, str, str]]:
    def one_of(key: str, value: str, known: Iterable[str]) -> tuple[bool, str, str]:
        return value in known, f'precision.{key} = "{value}"', nearest(value, known)

    def positive(key: str) -> tuple[bool, str, str]:
        value = getattr(p, key)
        return value is None or 0 < value < math.inf, f"precision.{key} = {value}", "a limit is positive and finite"

    schemes = (AUTO, *SCHEMES)
    checks = [one_of("base", p.base, BASES), one_of("layers", p.layers, schemes),
              one_of("minimise", p.minimise, MINIMISE), one_of("decide", p.decide, DECIDE),
              one_of("calibrator", p.calibrator, CALIBRATORS),
              one_of("int4_method", p.int4_method, ROUNDINGS)]
    checks += [positive(key) for key in ("max_action_error", "max_weight_mb", "max_latency_ms")]
    checks += [(s in SCHEMES, f'precision.schemes has "{s}"', nearest(s, SCHEMES)) for s in p.schemes]
    for rule in p.rule:
        checks += [one_of("rule.scheme", rule.scheme, schemes),
                   (bool(rule.layers.strip()), f'precision.rule.layers = "{rule.layers}"', "no layer has no name")]
    return checks + [
        (p.max_action_error is not None or not p.automatic, "precision.max_action_error is missing",
         f'"{AUTO}" chooses against a budget of action error'),
        (p.observations >= 2, f"precision.observations = {p.observations}",
         "a spread is over at least two observations"),
        (is_percentile(p.percentile), f"precision.percentile = {p.percentile}", "it is above 50 and at most 100"),
        (is_alpha(p.smooth), f"precision.smooth = {p.smooth}", "it is between 0 (off) and 1"),
        (p.block in BLOCKS, f"precision.block = {p.block}", f"known: {', '.join(map(str, BLOCKS))}"),
    ]
