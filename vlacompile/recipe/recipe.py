"""Recipes: the options of a build. `recipes/*.toml` -> frozen dataclasses."""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vlacompile.files.toml import load_toml
from vlacompile.hardware.target import Target
from vlacompile.recipe.precision_recipe import AUTO, PrecisionRecipe, precision_checks, refuse_foreign
from vlacompile.recipe.tensorrt_rules import FP32_SUMS, TensorRTRecipe
from vlart.errors import ConfigError, nearest
from vlart.vocabulary import CONSUMES, GUARD_RULES, LOOP_FORMS, RATE_RULES, SCHEDULES

RATES = (0.001, 100_000.0)  # of a lane, per second
MOST_AGE_MS = 4_000_000


@dataclass(frozen=True)
class StagesRecipe:
    """min_flops: smaller stages merge into a consumer; None: the target's launch cost decides.
    engine: "onnxruntime" or "openvino", of all stages; "auto": every stage is timed on this machine in each that is
        installed and has the fastest, and of `threads` threads each stage has all in its turn, or one of as many that
        run at a time, as is faster; None: the target's.
    tvm: names of stages, or patterns of them, that TVM compiles ahead of time instead of using the target's engine;
    one that matches no stage is an error. tvm_device: "cpu", the target's processor, or "gpu", the GPU of its board.
    tvm_schedules: a file, relative to the recipe's folder, of tuned schedules for their kernels; kernels not in it use
    TVM's default schedules, which are slow on a CPU. tvm_trials: candidates per stage that are built and timed on this
    machine for kernels missing in the file; the fastest are added to it. tvm_seed: random seed of that search.
    depth: "loop": equal layers of a stage are one engine, whose weights are bound layer by layer; "unrolled": all
    layers are in one engine; "auto": a loop where a board's memory asks for it."""

    min_flops: int | None = None
    engine: str | None = None
    threads: int = 1
    tvm: tuple[str, ...] = field(default=())
    tvm_device: str = "cpu"
    tvm_schedules: str = ""
    tvm_trials: int = 0
    tvm_seed: int = 0
    depth: str = "auto"


@dataclass(frozen=True)
class ActionRecipe:
    """execute: actions executed per replan (h); None: the whole chunk; of "realtime" all but 10, or half of a short
        chunk.
    low, high: bounds per action dimension in robot units; empty: only finiteness is checked.
    deadline_ms: time limit of one step; 0: none.
    consume: how successive chunks become actions. "queue": execute h, then replan. "ensemble": replan every
        tick, execute the mean of all predictions of the tick, weighted exp(-decay * i), i = 0 the oldest.
        "realtime": a new chunk replaces the rest of the previous one, minus the actions popped during inference.
    decay: of "ensemble"; None: 0.01. delay: of "realtime", the ticks that a replan takes; execute is then at least
        delay and at most H - delay. schedule ("linear", "exp", "ones", "zeros"), horizon (None: H - execute):
        how the weights of the previous chunk decay after the delay. max_guidance: upper bound of the factor by which a
        flow is guided towards the previous chunk; None: 10; 0: it is not guided.
    max_step: how far an action may be from the one of the tick before, per dimension, in the units of the action.
        max_velocity: the same in units per second, at control_hz ticks per second; of both, the smaller counts; a
        dimension without limit is 0. rate_rule: a farther action is brought to the limit ("clip"), or is not handed
        out and ends the chunk ("refuse"). The first action of an episode has no limit."""

    execute: int | None = None
    low: tuple[float, ...] = field(default=())
    high: tuple[float, ...] = field(default=())
    deadline_ms: float = 0.0
    consume: str = "queue"
    decay: float | None = None
    delay: int | None = None
    schedule: str | None = None
    horizon: int | None = None
    max_guidance: float | None = None
    max_step: tuple[float, ...] = field(default=())
    max_velocity: tuple[float, ...] = field(default=())
    control_hz: float = 0.0
    rate_rule: str = "clip"


@dataclass(frozen=True)
class LoopRecipe:
    """max_action_error: error that a solver with fewer evaluations may add to a denoising loop, in units of each action
    dimension's spread over the calibration set; 0: the loop runs as written.
    form: "steps" (one engine run per iteration), "fused" (all iterations in one engine), or "auto".
    observations: how many are generated for calibration if the policy has none."""

    max_action_error: float = 0.0
    form: str = "auto"
    observations: int = 8


TVM_DEVICES = ("cpu", "gpu")
DEPTHS = ("auto", "loop", "unrolled")
TVM_CUDA = 13  # CUDA version of libtvm_runtime_cuda.so in TVM 0.27: JetPack 7.2 has it, 6.2 has 12.6
TVM_GPU = 87  # compute capability that stages are compiled for: Jetson Orin
HOST_ENGINES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class SafetyRule:
    """name: a source, or a pattern of names; the last matching rule counts. low, high: range of its f32 numbers:
    one for all, or one per element of the last axis; empty: the section's `ranges`. outside, max_age_ms: None: the
    section's. not_finite: it may hold NaN and infinity (as a marker of missing data)."""

    name: str
    low: tuple[float, ...] = field(default=())
    high: tuple[float, ...] = field(default=())
    outside: str | None = None
    max_age_ms: float | None = None
    not_finite: bool = False


RANGES = ("none", "calibration")


@dataclass(frozen=True)
class SafetyRecipe:
    """Checks of sensor inputs in the runtime, besides NaN and infinity.

    max_age_ms: maximum age of an observation when it is used; 0: any age. ranges: "calibration": the range of the f32
    observations in Policy.calibration, widened on either side by `margin` of its width; "none": no range.
    outside: for a number outside its range: "count" it, or "refuse" it (the source keeps its previous content).
    source: exceptions, and explicit ranges."""

    max_age_ms: float = 0.0
    ranges: str = "none"
    margin: float = 0.5
    outside: str = "count"
    source: tuple[SafetyRule, ...] = field(default=())


TOKENIZE = ("bundle", "host")


@dataclass(frozen=True)
class TextRecipe:
    """tokenize: "bundle": the tokenizers that the policy declares are compiled into the bundle, and the runtime accepts
    texts; "host": it accepts token ids only.
    length: tokens of text that the policy is compiled for, in the place of all that it pads to; a longer text is
        refused. None: as the policy declares them.
    lengths: several such lengths in one bundle, ascending, instead of `length`: a text runs in the shortest that holds
        it."""

    tokenize: str = "bundle"
    length: int | None = None
    lengths: tuple[int, ...] = ()

    @property
    def wanted(self) -> tuple[int, ...]:
        """All lengths, whichever of the two names them."""
        return self.lengths or (() if self.length is None else (self.length,))


@dataclass(frozen=True)
class LaneRecipe:
    """A slower rate than the control loop's; the recipe lists lanes from slow to fast. sources: names of the sources
    written at that rate. The stages that depend on them alone run in a thread of their own. clock_hz: nominal; 0: not
    stated. max_age_ms: maximum age of the lane's values when the control loop reads them; 0: any age."""

    name: str
    sources: tuple[str, ...]
    clock_hz: float = 0.0
    max_age_ms: int = 0


@dataclass(frozen=True)
class VerifyRecipe:
    """frames: golden frames recorded by the build, at least 4 (so that every source changes once)."""

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
    tensorrt: TensorRTRecipe = field(default_factory=TensorRTRecipe)
    lane: tuple[LaneRecipe, ...] = field(default=())


def load_recipe(name_or_path: str | None, target: Target | None = None) -> Recipe:
    """A shipped recipe by name, or a .toml file; None: "default". target: the hardware, to check the recipe against its
    capabilities. Raises ConfigError."""
    where = name_or_path or "default"
    recipe = load_toml(Recipe, where, "recipes")
    refuse_foreign(recipe.precision, where, target)
    checks = [
        *_engine_checks(recipe.stages, target),
        *_tvm_checks(recipe.stages, target),
        (recipe.verify.frames >= 4, f"verify.frames = {recipe.verify.frames}", "at least 4 frames are needed"),
        (recipe.action.execute is None or recipe.action.execute > 0, f"action.execute = {recipe.action.execute}",
         "at least one action is executed per replan"),
        (len(recipe.action.low) == len(recipe.action.high), "action.low and action.high differ in length",
         "every dimension needs both bounds"),
        (all(a < b for a, b in zip(recipe.action.low, recipe.action.high, strict=False)),
         "action.low is not below action.high",
         "a range has a lower and an upper bound"),
        (recipe.loop.max_action_error >= 0, f"loop.max_action_error = {recipe.loop.max_action_error}",
         "an error must not be negative"),
        (recipe.loop.form in ("auto", *LOOP_FORMS), f'loop.form = "{recipe.loop.form}"',
         nearest(recipe.loop.form, ("auto", *LOOP_FORMS))),
        (recipe.loop.observations >= 2, f"loop.observations = {recipe.loop.observations}",
         "a spread needs at least two observations"),
        (recipe.action.deadline_ms >= 0, f"action.deadline_ms = {recipe.action.deadline_ms}", "a time must not be "
                                                                                              "negative"),
        (recipe.tensorrt.fp32_sums in FP32_SUMS, f'tensorrt.fp32_sums = "{recipe.tensorrt.fp32_sums}"',
         nearest(recipe.tensorrt.fp32_sums, FP32_SUMS)),
        (recipe.text.tokenize in TOKENIZE, f'text.tokenize = "{recipe.text.tokenize}"',
         nearest(recipe.text.tokenize, TOKENIZE)),
        (recipe.text.length is None or not recipe.text.lengths, "text.length and text.lengths are both set",
         "one is the only length, the other several"),
        *_lane_checks(recipe.lane),
        (len({x.name for x in recipe.lane}) == len(recipe.lane), "two lanes have the same name", "lanes are "
                                                                                                 "identified by name"),
        *_consume_checks(recipe.action),
        *_rate_checks(recipe.action),
        *precision_checks(recipe.precision),
        *_safety_checks(recipe.safety),
    ]
    for good, what, why in checks:
        if not good:
            raise ConfigError(what, where=f'recipe "{where}"', why=why, fix="correct the recipe")
    return recipe


def _lane_checks(lanes: Sequence[LaneRecipe]) -> Iterator[tuple[bool, str, str]]:
    for x in lanes:
        yield (bool(re.fullmatch(r"[\w.-]+", x.name)), f"lane.name = {json.dumps(x.name)}",
               "it is a word: letters, digits, _, . and -")
        yield (x.clock_hz == 0 or RATES[0] <= x.clock_hz <= RATES[1], f'lane "{x.name}", clock_hz = {x.clock_hz:g}',
               f"it is {RATES[0]:g} to {RATES[1]:g} per second, or 0: not stated")
        yield (0 <= x.max_age_ms <= MOST_AGE_MS, f'lane "{x.name}", max_age_ms = {x.max_age_ms:g}',
               f"it is a time of at most {MOST_AGE_MS} ms, or 0: any")


def _engine_checks(s: StagesRecipe, target: Target | None) -> list[tuple[bool, str, str]]:
    what = f'stages.engine = "{s.engine}"'
    elsewhere = target is not None and target.processor != platform.machine()
    return [
        (s.engine in (None, *HOST_ENGINES, AUTO), what, nearest(s.engine or "", (*HOST_ENGINES, AUTO))),
        (s.engine is None or target is None or target.backend == "onnxruntime", what,
         f'target "{target.name if target else ""}" has an engine of its own; leave the key out'),
        (s.engine != AUTO or not elsewhere, what,
         "stages are timed on this machine, which is another processor than the target's; name an engine"),
        (s.depth in DEPTHS, f'stages.depth = "{s.depth}"', nearest(s.depth, DEPTHS)),
        (1 <= s.threads <= 1024, f"stages.threads = {s.threads}", "an engine has 1 to 1024 threads"),
    ]


def _tvm_checks(s: StagesRecipe, target: Target | None) -> list[tuple[bool, str, str]]:
    gpu = s.tvm_device == "gpu"
    software, cuda = "", None
    if target is not None and target.software is not None:
        software, cuda = target.software.name, target.software.cuda
    return [
        (s.tvm_trials >= 0, f"stages.tvm_trials = {s.tvm_trials}", "a number of trials must not be negative"),
        (bool(s.tvm_schedules) or not s.tvm_trials, "stages.tvm_trials without stages.tvm_schedules",
         "the result of a search depends on timing: without a file of it the build is not reproducible"),
        (s.tvm_device in TVM_DEVICES, f'stages.tvm_device = "{s.tvm_device}"', nearest(s.tvm_device, TVM_DEVICES)),
        (bool(s.tvm) or not gpu, 'stages.tvm_device = "gpu" without stages.tvm', "no stage is compiled by TVM"),
        (not s.tvm_schedules or not gpu, 'stages.tvm_schedules with stages.tvm_device = "gpu"',
         "schedules are tuned for CPUs only; a GPU uses TVM's default schedules"),
        (target is None or not gpu or cuda is not None, 'stages.tvm_device = "gpu"',
         f'target "{target.name if target else ""}" has no known GPU'),
        (not gpu or target is None or target.board is None or target.board.gpu.compute_capability == TVM_GPU,
         'stages.tvm_device = "gpu"', f"TVM's kernels here are made for sm_{TVM_GPU} alone"),
        (not gpu or cuda is None or int(cuda.split(".")[0]) >= TVM_CUDA, 'stages.tvm_device = "gpu"',
         f"TVM's GPU runtime is linked with CUDA {TVM_CUDA}, and {software} has CUDA {cuda}; "
         'choose software with it, or "cpu"'),
    ]


def _consume_checks(action: ActionRecipe) -> list[tuple[bool, str, str]]:
    """(valid, what, why): keys that belong to another kind of consumption, and values out of range."""
    mine = {"ensemble": ("decay",), "realtime": ("delay", "schedule", "horizon", "max_guidance")}
    checks = [(action.consume in CONSUMES, f'action.consume = "{action.consume}"', nearest(action.consume, CONSUMES))]
    for kind, keys in mine.items():
        checks += [(action.consume == kind or getattr(action, k) is None, f"action.{k} is set",
                    f'it belongs to consume = "{kind}", not "{action.consume}"') for k in keys]
    return checks + [
        (action.consume != "ensemble" or action.execute in (None, 1), f"action.execute = {action.execute}",
         "an ensemble replans after every action"),
        (action.decay is None or math.isfinite(action.decay), f"action.decay = {action.decay}", "it is not finite"),
        (action.consume != "realtime" or action.delay is not None, "action.delay is missing",
         "realtime needs the number of ticks that a replan takes"),
        (action.delay is None or action.delay >= 0, f"action.delay = {action.delay}", "a number of ticks must not be "
                                                                                      "negative"),
        (action.max_guidance is None or 0 <= action.max_guidance < math.inf,
         f"action.max_guidance = {action.max_guidance}", "a bound must be finite and not negative"),
        (action.schedule in (None, *SCHEDULES), f'action.schedule = "{action.schedule}"',
         nearest(action.schedule or "", SCHEDULES)),
    ]


def _rate_checks(action: ActionRecipe) -> list[tuple[bool, str, str]]:
    step, velocity, hz = action.max_step, action.max_velocity, action.control_hz
    return [
        (all(0 <= x < math.inf for x in (*step, *velocity)), "action.max_step or action.max_velocity is out of range",
         "a limit is finite and positive, and 0 where a dimension has none"),
        (not step or not velocity or len(step) == len(velocity), "action.max_step and action.max_velocity differ in "
                                                                 "length", "both are per action dimension"),
        (bool(velocity) == (hz != 0) and 0 <= hz < math.inf, f"action.control_hz = {hz:g}",
         "max_velocity needs the number of ticks per second, and nothing else reads it"),
        (action.rate_rule in RATE_RULES, f'action.rate_rule = "{action.rate_rule}"',
         nearest(action.rate_rule, RATE_RULES)),
        (action.rate_rule == "clip" or bool(step or velocity), f'action.rate_rule = "{action.rate_rule}"',
         "there is no max_step or max_velocity"),
    ]


def _safety_checks(s: SafetyRecipe) -> list[tuple[bool, str, str]]:
    checks = [
        (s.ranges in RANGES, f'safety.ranges = "{s.ranges}"', nearest(s.ranges, RANGES)),
        (s.outside in GUARD_RULES, f'safety.outside = "{s.outside}"', nearest(s.outside, GUARD_RULES)),
        (0 <= s.max_age_ms < math.inf, f"safety.max_age_ms = {s.max_age_ms}", "an age must be finite and not negative"),
        (0 <= s.margin < math.inf, f"safety.margin = {s.margin}", "a margin must be finite and not negative"),
    ]
    for r in s.source:
        where = f'safety.source "{r.name}"'
        checks += [
            (r.outside in (None, *GUARD_RULES), f'{where}: outside = "{r.outside}"',
             nearest(r.outside or "", GUARD_RULES)),
            (r.max_age_ms is None or 0 <= r.max_age_ms < math.inf, f"{where}: max_age_ms = {r.max_age_ms}",
             "an age must be finite and not negative"),
            (len(r.low) == len(r.high) and all(a <= b for a, b in zip(r.low, r.high, strict=True)),
             f"{where}: low and high",
             "they must have the same length, and low must not be above high"),
        ]
    return checks
