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

from vlacompile.bundle.format.layout import MAX_RANK
from vlacompile.bundle.plan.action import Consumption, DecodeStep, Delta, Queue
from vlacompile.bundle.plan.guard import Guard
from vlacompile.vocabulary import DTYPE_BYTES


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
    lanes: tuple[Lane, ...] = field(default=())  # from slow to fast
    guards: tuple[Guard, ...] = field(default=())  # in the order of sources, at most one of each
    backbones: tuple[Backbone, ...] = field(default=())  # none, or two and more; the default first

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
        stages = tuple(s for s in self.stages if name in self.served_by(s))
        needed = {v for s in stages for v in s.depends} | {d.value for d in self.action.decode if isinstance(d, Delta)}
        return replace(self, stages=stages, backbones=(chosen,), action=replace(self.action, value=chosen.value),
                       sources=tuple(s for s in self.sources if s.value in needed),
                       histories=tuple(h for h in self.histories if h.source in needed),
                       texts=tuple(t for t in self.texts if t.tokens in needed),
                       instructions=tuple(i for i in self.instructions if i.source in needed),
                       guards=tuple(g for g in self.guards if g.source in needed))

    @cached_property
    def _serving(self) -> dict[str, tuple[str, ...]]:
        every = tuple(b.name for b in self.backbones)
        reads: dict[int, set[str]] = {b.value: {b.name} for b in self.backbones}
        delayed = {d.input for d in self.delays}
        found = {}
        for stage in reversed(self.stages):
            outs = {b.value for b in stage.outputs}
            names = set().union(*(reads.get(v, set()) for v in outs))
            names = set(every) if not names or outs & delayed else names
            found[stage.name] = tuple(n for n in every if n in names)
            for value in [b.value for b in stage.inputs] + [c.initial for c in stage.carries]:
                reads.setdefault(value, set()).update(names)
        return found

    def check(self) -> None:
        """Assert the invariants that libvlart checks again when it opens the bundle."""
        names = [v.name for v in self.values]
        assert len(set(names)) == len(names), "value names are unique"
        assert all(len(v.type.dims) <= MAX_RANK for v in self.values)
        sources = {s.value for s in self.sources}
        deps: dict[int, frozenset[int]] = {v: frozenset({v}) for v in sources}
        deps |= {i: frozenset() for i, v in enumerate(self.values) if v.weight is not None}
        root_of = self._check_delays(names, sources)
        earlier: set[int] = set()  # values that depend on an observation before the newest
        for stage in self.stages:
            own = frozenset(stage.depends)
            assert own <= sources, f"{stage.name} depends on a value that is no source"
            reads = [b.value for b in stage.inputs if b.mode != "carry"] + [c.initial for c in stage.carries]
            for value in reads:
                if value in root_of:
                    earlier.add(value)
                    deps[value] = deps.get(root_of[value], frozenset({-1}))
                assert value in deps, f"{stage.name} reads {names[value]} before it is written"
                assert deps[value] <= own, f"{stage.name} reads {names[value]}, which depends on more than it does"
            for binding in stage.outputs:
                assert binding.value not in deps | root_of, f"{names[binding.value]} is written twice"
                deps[binding.value] = own
            if earlier & set(reads):
                earlier |= {b.value for b in stage.outputs}
        histories = {h.source for h in self.histories}
        for root in root_of.values():
            assert root in deps and deps[root] <= histories, f"{names[root]} depends on more than histories"
            assert root not in earlier, f"{names[root]} is delayed and depends on an earlier observation"

        taken = [s for lane in self.lanes for s in lane.sources]
        assert len(set(taken)) == len(taken) and set(taken) <= sources - histories, "sources of lanes"
        types = {self.values[b.value].type for b in self.backbones}
        assert not self.backbones or (len(self.backbones) > 1 and len(types) == 1 and not self.lanes
                                      and self.action is not None
                                      and self.backbones[0].value == self.action.value), "backbones"
        running = {self.lane_of(s) for s in self.stages}
        assert not self.lanes or running == set(range(len(self.lanes) + 1)), "every lane runs a stage"

    def _check_delays(self, names: list[str], sources: set[int]) -> dict[int, int]:
        """{delayed value: the value at the beginning of its chain}"""
        assert all(h.source in sources and h.frames >= 2 for h in self.histories)
        root_of: dict[int, int] = {}
        outputs = {d.output for d in self.delays}
        for d in self.delays:
            assert self.values[d.input].type == self.values[d.output].type, f"{names[d.output]} has another type"
            assert d.input in root_of or d.input not in outputs, f"{names[d.input]} is delayed later"
            taken = d.output in root_of or d.output in sources or self.values[d.output].weight is not None
            assert not taken, f"{names[d.output]} is written twice"
            root_of[d.output] = root_of.get(d.input, d.input)
        return root_of
