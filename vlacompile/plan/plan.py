"""The plan: what a bundle is, as frozen data. The only intermediate representation of our own.

Owns the types and their invariants. `text.py` prints and parses them, `binary.py` writes and reads
them, `memory.py` places values in the arena. Must not know how a plan came about.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from vlacompile.bundle.layout import DTYPE_BYTES, MAX_RANK
from vlacompile.plan.action import Consumption, DecodeStep, Queue


@dataclass(frozen=True)
class TensorType:
    dtype: str  # a key of layout.DTYPES
    dims: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return DTYPE_BYTES[self.dtype] * math.prod(self.dims)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclass(frozen=True)
class File:
    path: str  # relative to the bundle, '/'-separated
    kind: str  # a key of layout.FILE_KINDS
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


@dataclass(frozen=True)
class SourceInput:
    value: int
    update: str
    clock_hz: float = 0.0  # 0: not stated


@dataclass(frozen=True)
class Binding:
    """A port of a stage's engine and the value behind it; `mode` as layout.BINDING_MODES."""

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

    form: a key of layout.LOOP_FORMS. iterations: how often the body is evaluated. solver: AS_WRITTEN, or the one that
    replaces it. written: iterations of the policy as it was given. error: of the action chunk, in units of each
    action dimension's spread (see staging/choose_solver.py). budget: the recipe's.
    """

    form: str
    iterations: int
    solver: str
    written: int
    error: float = 0.0
    budget: float = 0.0


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
    consume: Consumption = Queue()


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
