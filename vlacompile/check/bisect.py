"""Finds the first layer of a stage whose output in reduced precision leaves its limit.

Both forms of the stage, reduced and in full precision, are run on the same inputs (the golden frames' and, in a loop,
the full form's carried values), and their values are compared by name: what an op of the policy gives has its name in
both. A layer's limit is the tolerance table's for arithmetic of its digits (fp16; 8 bits: those of bf16), relative to
what the value holds over all frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from vlacompile.check.layer_runners import best_engine, open_runner
from vlacompile.check.stage_cases import run_cases
from vlart.bundle.directory import Bundle
from vlart.bundle.plan.plan import Stage
from vlart.errors import ConfigError, ParityError, nearest
from vlart.verify.frames import Frame, golden_frames
from vlart.verify.replay import Tally, ValueParity
from vlart.verify.tolerances import F32, TOLERANCES, Scale, Tolerance, cosine_of

NUMBERED = re.compile(r"val_\d+")  # of a translation's inner values, counted anew in each form
SAME = ("Cast", "QuantizeLinear", "DequantizeLinear")  # their input in another type; numbered likewise
DIGITS = {"fp32": ("f32", "stage"), "fp16": ("f16", "chunk"), "int8": ("bf16", "chunk"), "int4": ("bf16", "chunk")}


@dataclass(frozen=True)
class Full:
    """The stage in full precision. path: of its ONNX file. lines: {value: the policy's line}, where the files do not
    have them. name: for a person."""

    path: Path
    name: str
    frames: Sequence[Frame]
    lines: Mapping[str, str]


@dataclass(frozen=True)
class Layer:
    """A value that both forms have. ops: what computes it from the values compared before it. comes_back: it is over
    its limit, and all that is computed of it is within: another scale of the same numbers, or an error that the next
    layers absorb."""

    value: str
    ops: tuple[str, ...]
    weights: tuple[str, ...]
    line: str
    parity: ValueParity
    comes_back: bool = False

    @property
    def at_fault(self) -> bool:
        return not self.parity.passed and not self.comes_back


@dataclass(frozen=True)
class Bisection:
    """layers: in topological order. values: how many the reduced stage computes; those without the same name in the
    full form are in the ops of the next one."""

    bundle: str
    stage: str
    full: str
    engine: str
    scheme: str
    runs: int
    values: int
    layers: tuple[Layer, ...]

    @property
    def first(self) -> Layer | None:
        return next((x for x in self.layers if x.at_fault), None)

    def as_dict(self) -> dict:
        return asdict(self) | {"first": None if self.first is None else self.first.value}

    def require(self) -> None:
        """Raises ParityError naming the first layer that leaves its limit."""
        if self.first is None:
            return
        assert self.first.parity.failed is not None
        label, found = self.first.parity.failed
        raise ParityError(f'"{self.first.value}" is the first in stage "{self.stage}" that leaves its limit',
                          where=", ".join([self.first.line or " ".join(self.first.ops), f'frame "{label}"']),
                          why=found.text(),
                          fix="keep this layer in fp32 by a [[precision.rule]] of the recipe, or look at its weights: "
                              + (", ".join(self.first.weights) or "it has none"))


def stage_of(bundle: Bundle, name: str) -> Stage:
    """Raises ConfigError for a stage that the bundle does not have, or that is no ONNX graph."""
    names = [s.name for s in bundle.plan.stages]
    if name not in names:
        raise ConfigError(f'the bundle has no stage "{name}"', where=str(bundle.path), why=nearest(name, names),
                          fix="`vlacompile inspect` lists them")
    stage = bundle.plan.stages[names.index(name)]
    if stage.artefact is None or not bundle.plan.files[stage.artefact].path.endswith(".onnx"):
        raise ConfigError(f'stage "{name}" has no layers to look into', where=str(bundle.path),
                          why=f"it runs on {stage.backend}, without an ONNX graph in the bundle",
                          fix="build the bundle without stages.tvm, and compare that one")
    return stage


def graph_path(bundle: Bundle, stage: Stage) -> Path:
    assert stage.artefact is not None
    return bundle.path / bundle.plan.files[stage.artefact].path


def full_of_bundle(bundle: Bundle, name: str) -> Full:
    """Raises ConfigError for a bundle whose stage is reduced itself."""
    stage = stage_of(bundle, name)
    if schemes := sorted({p.scheme for p in stage.precisions} - {"fp32"}):
        raise ConfigError("the bundle to compare with is not in full precision", where=str(bundle.path),
                          why=f'its stage "{name}" has layers in {", ".join(schemes)}',
                          fix='build one whose recipe has base = "fp32" and a [[precision.rule]] with layers = "*" and '
                              'scheme = "fp32", or use --source')
    return Full(graph_path(bundle, stage), str(bundle.path), golden_frames(bundle.path), {})


def bisect(bundle: Bundle, name: str, full: Full, *, engine: str | None = None, limit: float | None = None,
           progress=lambda words: None) -> Bisection:
    """engine: of ENGINES; None: the best here. limit: the largest error as a share of what a value reaches, and of its
    length; None: by the stage's precision. Raises ConfigError, and BundleError if no golden frame has the stage's
    inputs."""
    stage = stage_of(bundle, name)
    path = graph_path(bundle, stage)
    engine = engine or best_engine(stage.backend)
    mine, other = (onnx.load(p, load_external_data=False).graph for p in (path, full.path))
    _require_same_ports(bundle, name, mine, other, full)
    compared = _compared(mine, other)
    scheme = max((p.scheme for p in stage.precisions), key=list(DIGITS).index, default="fp32")
    allowed = TOLERANCES[DIGITS[scheme]]
    if limit is not None:
        allowed = Tolerance(limit, limit, cosine_of(limit, 1.0), F32)
    flags, ports = (() if stage.build is None else stage.build.flags), [b.port for b in stage.outputs]
    read = list(dict.fromkeys([*compared, *ports]))
    tally, cases, scales = Tally(), [], {}
    progress(f"compare {len(compared)} values in {engine}")
    with open_runner(engine, path, read, flags) as reduced, open_runner(engine, full.path, read, flags) as whole:
        for case, want, feed in run_cases(bundle, stage, full.frames, whole):
            cases.append((case.label, feed))
            for value in (v for v in compared if want[v].dtype.kind == "f"):
                scales[value] = scales[value].beside(want[value]) if value in scales else Scale.alone(want[value])
        for label, feed in cases:  # the full form runs again: its values of all frames at once may be gigabytes
            want, got = whole(feed), reduced(feed)
            for value in (v for v in compared if v in scales and want[v].shape == got[v].shape):
                tally.add(value, "layer", got[value], want[value], allowed.limit(want[value], scales[value]), label)
    rows = {r.value: r for r in tally.rows()}
    layers = tuple(_layers(mine, other, rows, full.lines))
    return Bisection(str(bundle.path), name, full.name, engine, scheme, len(cases), len(mine.node), layers)


def _require_same_ports(bundle: Bundle, name: str, mine, other, full: Full) -> None:
    of = [({i.name for i in g.input}, {o.name for o in g.output}) for g in (mine, other)]
    if of[0] != of[1]:
        differ = sorted((of[0][0] ^ of[1][0]) | (of[0][1] ^ of[1][1]))
        raise ConfigError(f'stage "{name}" is another one there', where=full.name,
                          why=f"inputs and outputs that one of both lacks: {', '.join(differ)}",
                          fix=f"the same policy and recipe as of {bundle.path}, but for [precision]")


def _compared(mine, other) -> list[str]:
    """Values that both compute, in the reduced form's order."""
    outputs = {o.name for o in mine.output}
    def named(graph) -> dict[str, None]:
        return {v: None for n in graph.node for v in n.output
                if v in outputs or (v and not NUMBERED.fullmatch(v) and n.op_type not in SAME)}
    theirs = named(other)
    return [v for v in named(mine) if v in theirs]


def _layers(mine, other, rows: Mapping[str, ValueParity], lines: Mapping[str, str]) -> Iterator[Layer]:
    made = {v: n for n in mine.node for v in n.output if v}
    constants = {i.name for i in mine.initializer}
    theirs = {v: n.doc_string for n in other.node for v in n.output}
    between = {value: _between(value, made, rows) for value in rows}
    after: dict[str, list[str]] = {}
    for value, nodes in between.items():
        for v in {i for n in nodes for i in n.input}:
            after.setdefault(v, []).append(value)
    outputs = {o.name for o in mine.output}
    for value, row in rows.items():
        nodes = between[value]
        said = next((n.doc_string for n in nodes if n.doc_string), "") or theirs.get(value, "") or lines.get(value, "")
        later = [rows[v] for v in after.get(value, ())]
        weights = tuple(dict.fromkeys(i for n in reversed(nodes) for i in n.input
                                      if i in constants and not NUMBERED.fullmatch(i)))
        yield Layer(value, tuple(n.op_type for n in reversed(nodes)), weights, said, row,
                    not row.passed and value not in outputs and bool(later) and all(r.passed for r in later))


def _between(value: str, made: Mapping[str, onnx.NodeProto], stop: Mapping[str, ValueParity]) \
        -> list[onnx.NodeProto]:
    """The nodes from the compared values before it to this one, itself first."""
    found, todo, seen = [], [value], set()
    while todo:
        node = made.get(todo.pop(0))
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        found.append(node)
        todo += [i for i in node.input if i in made and i not in stop]
    return found
