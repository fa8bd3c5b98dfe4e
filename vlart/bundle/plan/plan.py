"""The plan: what a bundle is, as frozen data. The only intermediate representation of our own.

Owns the types and their invariants. `text.py` prints and parses them, `binary.py` writes and reads them, both by the
records of `bundle/format` (`record_types.py`); `arena.py` places values in the arena. Must not know how a plan came
about.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from vlart.bundle.plan.action import Consumption, DecodeStep, Delta, Queue, RateLimit
from vlart.bundle.plan.guard import Guard, TokenRange
from vlart.bundle.plan.invariants import check
from vlart.vocabulary import DTYPE_BYTES


@dataclass(frozen=True)
class TensorType:
    dtype: str  # a key of vocabulary.DTYPES
    dims: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return DTYPE_BYTES[self.dtype] * math.prod(self.dims)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclass(frozen=True)
class File:
    path: str  # relative to the bundle, '/'-separated
    kind: str  # a key of vocabulary.FILE_KINDS
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Weight:
    name: str
    type: TensorType
    file: int | None  # index into Plan.files
    offset: int  # bytes


@dataclass(frozen=True)
class Value:
    """A tensor that crosses a stage boundary: in the arena at `offset`, or a weight."""

    name: str
    type: TensorType
    offset: int = 0
    weight: int | None = None

    @property
    def storage(self) -> str:
        """A key of vocabulary.STORAGES."""
        return "arena" if self.weight is None else "weight"


@dataclass(frozen=True)
class SourceInput:
    value: int
    update: str
    clock_hz: float = 0.0  # 0: not stated


@dataclass(frozen=True)
class Binding:
    """A port of a stage's engine and the value behind it; `mode` as vocabulary.BINDING_MODES."""

    port: str
    value: int
    mode: str = "whole"


@dataclass(frozen=True)
class Initializer:
    port: str
    weight: int


@dataclass(frozen=True)
class Carry:
    """A loop-carried value; `input` and `output` are positions in the stage's inputs and outputs."""

    initial: int
    result: int
    scratch: int
    input: int
    output: int


@dataclass(frozen=True)
class Sampling:
    """How a loop is run, and what was given up for it.

    form: a key of vocabulary.LOOP_FORMS. iterations: how often the body is evaluated. solver: AS_WRITTEN, or the one
    that replaces it. written: iterations of the policy as it was given. error: of the action chunk, in units of each
    action dimension's spread (see compiler/staging/choose_solver.py). budget: the recipe's.
    """

    form: str
    iterations: int
    solver: str
    written: int
    error: float = 0.0
    budget: float = 0.0


@dataclass(frozen=True)
class LoopEnd:
    """The data decides how many iterations a loop runs; as layout.LOOP_END. condition: a value."""

    condition: int
    must_end: bool


@dataclass(frozen=True)
class Precision:
    """What the layers of one block of a stage became; as layout.PRECISION. scheme, decider: keys of vocabulary.SCHEMES
    and vocabulary.DECIDERS."""

    group: str
    scheme: str
    decider: str
    layers: int
    error: float = 0.0
    time_us: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class Build:
    """How a stage's engine is built on its board, and what it must come out as; as layout.BUILD. flags: keys of
    vocabulary.BUILD_FLAGS, in their order."""

    flags: tuple[str, ...]
    level: int
    aux_streams: int
    workspace_bytes: int
    weight_bytes: int
    engine_bytes_min: int
    engine_bytes_max: int
    activation_bytes: int
    int8_gemms: int = 0
    int4_dequants: int = 0
    attentions: int = 0


@dataclass(frozen=True)
class BuildBoard:
    """Where engines are built and run; as layout.BOARD."""

    name: str
    compute_capability: int
    jetpack: str
    l4t: str
    tensorrt: str
    timing_cache: str


@dataclass(frozen=True)
class Concurrency:
    """How many threads the stages were timed with; as layout.CONCURRENCY."""

    threads: int
    parallel: int


@dataclass(frozen=True)
class Delay:
    """`output` is what `input` was one observation ago. Records are in the order of chains."""

    input: int
    output: int


@dataclass(frozen=True)
class History:
    """A source (its value) of which the policy sees the last `frames` observations; the newest is written."""

    source: int
    frames: int


@dataclass(frozen=True)
class Carried:
    """`value` is what `next` was after the last step; as layout.CARRIED. initial: a weight; None: zeros. until: a key
    of vocabulary.LIFETIMES."""

    value: int
    next: int
    initial: int | None
    until: str


@dataclass(frozen=True)
class TextInput:
    """A text that fills the source (its value) `tokens`, and `mask`; tokenizer: index into Plan.files."""

    tokens: int
    mask: int | None
    tokenizer: int | None
    max_bytes: int


class Stored(NamedTuple):
    """What a value holds after an instruction, and the weight that holds it."""

    value: int
    weight: int


@dataclass(frozen=True)
class Instruction:
    """A text whose values are known. source: value of the token ids."""

    text: str
    source: int
    stored: tuple[Stored, ...]


@dataclass(frozen=True)
class Lane:
    """A slower clock than the control loop's. sources: values of sources. max_age_ms: what others read of it may be so
    old; 0: any age."""

    name: str
    clock_hz: float
    max_age_ms: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Backbone:
    """One of the policies that a session can run; value: its action chunk."""

    name: str
    value: int


@dataclass(frozen=True)
class Bucket:
    """Tokens of text that a backbone is compiled for: it reads `length` of them, the padding on `side` cut off. mask:
    the source (its value) that says where there is a token."""

    mask: int
    side: str
    length: int


@dataclass(frozen=True)
class Stage:
    name: str
    backend: str
    artefact: int | None  # index into Plan.files
    iterations: int
    depends: tuple[int, ...]  # values of sources
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    initializers: tuple[Initializer, ...]
    carries: tuple[Carry, ...]
    flops: int  # per iteration
    weight_bytes: int  # read per iteration
    sampling: Sampling | None = None  # of the loop that the stage is, or has fused
    precisions: tuple[Precision, ...] = field(default=())  # of its layers, where a recipe chose any
    build: Build | None = None  # of a TensorRT stage
    end: LoopEnd | None = None  # of a loop; iterations: the largest number then

    @property
    def iterations_text(self) -> str:
        return str(self.iterations) if self.end is None else f"up to {self.iterations}"


AS_WRITTEN = "as-written"


def as_f32(numbers: Iterable[float]) -> tuple[float, ...]:
    """Rounded to what an f32 field holds."""
    return tuple(struct.unpack("<f", struct.pack("<f", x))[0] for x in numbers)


@dataclass(frozen=True)
class Action:
    """Which value feeds the action queue, and how: decode steps in order, H steps predicted, h executed,
    and how successive chunks are consumed. Bounds are f32."""

    value: int
    chunk_steps: int
    execute_steps: int
    action_dim: int
    deadline_us: int = 0
    low: tuple[float, ...] = field(default=())
    high: tuple[float, ...] = field(default=())
    decode: tuple[DecodeStep, ...] = field(default=())
    consume: Consumption = Queue()  # noqa: RUF009  frozen
    rate_limit: RateLimit | None = field(default=None)


@dataclass(frozen=True)
class Plan:
    name: str
    target: str
    recipe: str
    arena_bytes: int
    files: tuple[File, ...]
    weights: tuple[Weight, ...]
    values: tuple[Value, ...]
    sources: tuple[SourceInput, ...]
    stages: tuple[Stage, ...]
    action: Action | None
    delays: tuple[Delay, ...] = field(default=())
    histories: tuple[History, ...] = field(default=())
    texts: tuple[TextInput, ...] = field(default=())
    instructions: tuple[Instruction, ...] = field(default=())
    board: BuildBoard | None = None  # of a bundle with engines to build
    concurrency: Concurrency | None = None  # of a bundle whose stages were timed
    lanes: tuple[Lane, ...] = field(default=())  # from slow to fast
    guards: tuple[Guard, ...] = field(default=())  # in the order of sources, at most one of each
    token_ranges: tuple[TokenRange, ...] = field(default=())  # the same
    backbones: tuple[Backbone, ...] = field(default=())  # none, or two and more; the default first
    carried: tuple[Carried, ...] = field(default=())
    buckets: tuple[Bucket, ...] = field(default=())  # none, or one for each backbone: then a text decides which is run

    def lane_of(self, stage: Stage) -> int:
        """Index of the lane that runs it; len(lanes): the control loop."""
        own = {s: i for i, lane in enumerate(self.lanes) for s in lane.sources}
        return max((own.get(s, len(self.lanes)) for s in stage.depends), default=len(self.lanes))

    def value_index(self, name: str) -> int:
        return next(i for i, v in enumerate(self.values) if v.name == name)

    def looking_back(self) -> frozenset[str]:
        """Names of the stages that depend on an earlier observation: they run whenever the histories advance."""
        earlier, names = {d.output for d in self.delays}, set()
        for stage in self.stages:
            if any(b.value in earlier for b in stage.inputs):
                names.add(stage.name)
                earlier |= {b.value for b in stage.outputs}
        return frozenset(names)

    def depends_on_carried(self) -> dict[str, tuple[str, ...]]:
        """{stage: names of the carried values that it depends on}, of those stages that depend on one: they run in
        every step."""
        reached: dict[int, set[int]] = {c.value: {c.value} for c in self.carried}
        found: dict[str, tuple[str, ...]] = {}
        for stage in self.stages:
            own = set().union(*(reached.get(b.value, set()) for b in stage.inputs))
            if own:
                found[stage.name] = tuple(self.values[v].name for v in sorted(own))
                reached |= {b.value: own for b in stage.outputs}
        return found

    def source_names(self) -> tuple[str, ...]:
        return tuple(self.values[s.value].name for s in self.sources)

    def served_by(self, stage: Stage) -> tuple[str, ...]:
        """Names of the backbones that a stage serves; as libvlart finds them when it opens the bundle."""
        return self._serving[stage.name]

    def of_backbone(self, name: str) -> Plan:
        """What a session with this backbone selected runs, reads and gives; `backbones` names it alone. Values keep
        their numbers. To describe, not to write: a bundle has one backbone or several."""
        assert self.action is not None, "a policy of backbones gives actions"
        chosen = next(b for b in self.backbones if b.name == name)
        buckets = tuple(b for x, b in zip(self.backbones, self.buckets, strict=False) if x is chosen)
        stages = tuple(s for s in self.stages if name in self.served_by(s))
        made = {b.value for s in stages for b in s.outputs}
        needed = {v for s in stages for v in s.depends} | {d.value for d in self.action.decode if isinstance(d, Delta)}
        return replace(self, stages=stages, backbones=(chosen,), buckets=buckets,
                       action=replace(self.action, value=chosen.value),
                       sources=tuple(s for s in self.sources if s.value in needed),
                       histories=tuple(h for h in self.histories if h.source in needed),
                       texts=tuple(t for t in self.texts if t.tokens in needed),
                       instructions=tuple(i for i in self.instructions if i.source in needed),
                       guards=tuple(g for g in self.guards if g.source in needed),
                       carried=tuple(c for c in self.carried if c.next in made),
                       token_ranges=tuple(t for t in self.token_ranges if t.source in needed))

    @cached_property
    def _serving(self) -> dict[str, tuple[str, ...]]:
        every = tuple(b.name for b in self.backbones)
        reads: dict[int, set[str]] = {b.value: {b.name} for b in self.backbones}
        delayed = {d.input for d in self.delays}
        found: dict[str, set[str]] = {}
        for rest in (False, True):  # stages that serve none serve all, once it is known which those are
            changed = True
            while changed:
                for stage in reversed(self.stages):
                    outs = {b.value for b in stage.outputs}
                    names = set().union(*(reads.get(v, set()) for v in outs))
                    names = set(every) if rest and (not names or outs & delayed) else names
                    found[stage.name] = names
                    for value in [b.value for b in stage.inputs] + [c.initial for c in stage.carries]:
                        reads.setdefault(value, set()).update(names)
                changed = False
                for c in self.carried:  # who reads it needs in the step before what makes it
                    more = reads.get(c.value, set()) - reads.setdefault(c.next, set())
                    reads[c.next] |= more
                    changed = changed or bool(more)
        return {stage: tuple(n for n in every if n in names) for stage, names in found.items()}

    def check(self) -> None:
        """Assert the invariants that libvlart checks again when it opens the bundle."""
        check(self)
