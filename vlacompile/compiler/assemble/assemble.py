"""Staged policy + emitted stages -> the plan, made once, and the bytes of every file that it names.

Owns numbering, weight deduplication and the arena. Must not write files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import torch

from vlacompile.compiler.assemble.assemble_action import action_of
from vlacompile.compiler.assemble.assemble_guard import guards_of, token_ranges_of
from vlacompile.compiler.emit.onnx.onnx_stage import OnnxStage, externalise
from vlacompile.compiler.emit.tensorrt.build_recipe import board_of, build_of
from vlacompile.compiler.graph.carried import written_in
from vlacompile.compiler.graph.equal_values import content_key
from vlacompile.compiler.staging.known_instructions import KnownInstruction
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.hardware.target import Target
from vlacompile.policy.action_decoding import Decoder, Guidance
from vlacompile.policy.policy import TORCH_DTYPES
from vlacompile.policy.text import TextBuckets
from vlacompile.recipe.recipe import LaneRecipe, Recipe
from vlacompile.tokenize.compile_text import CompiledText
from vlart.bundle.directory import GOLDEN_FILE, WEIGHTS_FILE, file_table, stage_path, tokenizer_path
from vlart.bundle.format.layout import align_up
from vlart.bundle.plan.arena import arena_offsets
from vlart.bundle.plan.plan import (
    Backbone,
    Binding,
    Bucket,
    Build,
    Carried,
    Carry,
    Delay,
    History,
    Initializer,
    Instruction,
    Lane,
    LoopEnd,
    Plan,
    Sampling,
    SourceInput,
    Stage,
    Stored,
    TensorType,
    TextInput,
    Value,
    Weight,
    as_f32,
)
from vlart.errors import ConfigError, nearest
from vlart.files.pieces import Content, Pieces
from vlart.vocabulary import COMPILED


@dataclass
class _WeightStore:
    """Stores each distinct content once, aligned. Arrays are kept as they are given; nothing is copied."""

    rows: list[Weight] = field(default_factory=list)
    arrays: list[tuple[int, np.ndarray]] = field(default_factory=list)  # with the offset of each in bytes
    seen: dict[tuple, int] = field(default_factory=dict)

    def add(self, name: str, array: np.ndarray) -> int:
        narrow = array.dtype == ml_dtypes.bfloat16  # torch does not accept it from NumPy
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if narrow else torch.from_numpy(array)
        key = content_key(tensor)
        if key not in self.seen:
            offset = align_up(len(self.data))
            kind = TensorType(TORCH_DTYPES[tensor.dtype], tuple(array.shape))
            self.seen[key] = len(self.rows)
            self.rows.append(Weight(name, kind, None, offset))
            self.arrays.append((offset, array))
        return self.seen[key]

    @property
    def data(self) -> Pieces:
        """The file's content so far."""
        return Pieces(self.arrays)


@dataclass(frozen=True)
class Parts:
    """Contents of a bundle besides the staged policy. engines: {stage: backend}; default: the target's. compiled: files
    of TVM, which contain the weights of their stages. decoder, guidance, calibration: the policy's. texts: tokenizer
    tables. known: instructions compiled in advance. buckets: the policy's. golden: content of the golden frames'
    file."""

    engines: Mapping[str, str] = field(default_factory=dict)
    compiled: Mapping[str, bytes] = field(default_factory=dict)
    decoder: Decoder | None = None
    guidance: Guidance | None = None
    calibration: tuple[Mapping, ...] = ()
    texts: tuple[CompiledText, ...] = ()
    known: tuple[KnownInstruction, ...] = ()
    buckets: TextBuckets | None = None
    golden: bytes | None = None


@dataclass(frozen=True)
class Assembly:
    """plan: of the bundle. contents: {path in the bundle: content} of every file that the plan names."""

    plan: Plan
    contents: Mapping[str, Content]


def assemble(staged: Staged, emitted: Mapping[str, OnnxStage], target: Target, recipe: Recipe,
             parts: Parts = Parts()) -> Assembly:
    """Raises ConfigError if lanes, actions or guards of the recipe do not fit the policy."""
    engines = {s.name: parts.engines.get(s.name, target.backend) for s in staged.stages}
    store = _WeightStore()
    constants = {n: store.add(n, t.detach().contiguous().numpy()) for n, t in staged.constants.items()}
    inside = {*COMPILED, "library"}  # stages whose weights are not passed to an engine
    stored = {
        s.name: () if engines[s.name] in inside else tuple(
            Initializer(port, store.add(f"{s.name}/{port}", array))
            for port, array in emitted[s.name].initializers.items())
        for s in staged.stages}
    values, index, arena_bytes = _values(staged, constants, target.backend)
    sources = tuple(SourceInput(index[n], s.update, as_f32([s.clock or 0.0])[0])
                    for n, s in written_in(staged.program.sources).items())
    carried = tuple(Carried(index[n], index[s.next], store.add(f"initial/{n}", s.initial.contiguous().numpy())
                            if bool(s.initial.count_nonzero()) else None, s.until)
                    for n, s in staged.program.carried.items())
    action = action_of(staged, index, recipe.action, store.add, parts.decoder, parts.guidance)
    instructions = tuple(Instruction(k.text, index[k.source], tuple(
        Stored(index[n], store.add(f"instruction{i}/{n}", array)) for n, array in k.values.items()))
        for i, k in enumerate(parts.known))
    builds = {} if target.board is None else {s.name: build_of(s, emitted[s.name]) for s in staged.stages
                                              if engines[s.name] == "tensorrt"}
    contents = _contents(emitted, engines, stored, store, parts)
    files = file_table(contents, len(parts.texts))
    place = {f.path: i for i, f in enumerate(files)}
    stages = tuple(_stage(s, index, engines[s.name], stored[s.name], emitted.get(s.name), store.rows, place,
                          builds.get(s.name), values, staged.program.carried) for s in staged.stages)
    plan = Plan(
        staged.program.name, target.name, recipe.name, arena_bytes, files,
        tuple(replace(w, file=place[WEIGHTS_FILE]) for w in store.rows), values, sources, stages, action,
        delays=tuple(Delay(index[a], index[b]) for a, b in staged.delays),
        carried=carried,
        histories=tuple(History(index[n], s.history) for n, s in staged.program.sources.items() if s.history > 1),
        texts=tuple(TextInput(index[t.tokens], None if t.mask is None else index[t.mask], place[tokenizer_path(i)],
                              t.max_bytes) for i, t in enumerate(parts.texts)),
        instructions=instructions, lanes=lanes_of(staged, index, recipe.lane),
        board=None if target.board is None else board_of(target),
        guards=guards_of(sources, values, action, recipe.safety, parts.calibration),
        token_ranges=token_ranges_of(staged.program, index),
        backbones=tuple(Backbone(n, index[v]) for n, v in staged.program.backbones.items()),
        buckets=() if parts.buckets is None else tuple(
            Bucket(index[parts.buckets.mask], parts.buckets.side, n) for n in parts.buckets.lengths))
    plan.check()
    return Assembly(plan, contents)


def _contents(emitted: Mapping[str, OnnxStage], engines: Mapping[str, str],
              stored: Mapping[str, tuple[Initializer, ...]], store: _WeightStore, parts: Parts) -> dict[str, Content]:
    offsets = {name: {i.port: store.rows[i.weight].offset for i in rows} for name, rows in stored.items()}
    contents: dict[str, Content] = {
        stage_path(n): externalise(e, Path(WEIGHTS_FILE).name, offsets[n]) for n, e in emitted.items()
        if engines[n] not in COMPILED}
    contents |= {tokenizer_path(i): t.table for i, t in enumerate(parts.texts)}
    contents |= {**parts.compiled, WEIGHTS_FILE: store.data}
    return contents if parts.golden is None else contents | {GOLDEN_FILE: parts.golden}


def lanes_of(staged: Staged, index: Mapping[str, int], wanted: tuple[LaneRecipe, ...]) -> tuple[Lane, ...]:
    """Raises ConfigError for lanes that would contain no stage, or every stage."""
    if wanted and staged.program.backbones:
        raise ConfigError("a bundle cannot have both lanes and several backbones", where="recipe, [[lane]]",
                          why=f"it has the backbones {', '.join(staged.program.backbones)}",
                          fix="leave the lanes out, or build each backbone by itself")
    taken: dict[str, str] = {}
    for lane in wanted:
        for name in lane.sources:
            source = written_in(staged.program.sources).get(name)
            why = nearest(name, written_in(staged.program.sources)) if source is None else (
                f'it is in lane "{taken[name]}" too' if name in taken else
                "it has a history, which moves on with the control loop" if source.history > 1 else None)
            if why is not None:
                raise ConfigError(f'"{name}" cannot be in a lane', where=f'recipe, lane "{lane.name}"', why=why,
                                  fix="correct the lane's sources")
            taken[name] = lane.name
    order = [lane.name for lane in wanted] + [""]
    written = {s.name: [n for n in s.sources if n not in staged.program.carried] for s in staged.stages}
    of = {s: max((order.index(taken.get(n, "")) for n in names), default=len(wanted)) for s, names in written.items()}
    _require_no_carried(staged, of, wanted)
    for i, name in enumerate(order if wanted else ()):
        if i not in of.values():
            raise ConfigError(f'no stage runs in lane "{name}"' if name else "no stage is left for the control loop",
                              where="recipe, [[lane]]", why="; ".join(
                                  f"{s.name} depends on {', '.join(s.sources)}" for s in staged.stages)[:400],
                              fix="name other sources; stages.min_flops = 0 prevents merging of small stages" if name
                              else "leave a source of the last stage out of the lanes")
    return tuple(Lane(x.name, as_f32([x.clock_hz])[0], x.max_age_ms, tuple(index[n] for n in x.sources))
                 for x in wanted)


def _require_no_carried(staged: Staged, lane_of: Mapping[str, int], wanted: tuple[LaneRecipe, ...]) -> None:
    for stage in staged.stages:
        kept = [n for n in stage.sources if n in staged.program.carried]
        if kept and lane_of[stage.name] < len(wanted):
            lane = wanted[lane_of[stage.name]]
            mine = ", ".join(n for n in stage.sources if n not in kept)
            raise ConfigError(f'"{kept[0]}" cannot be carried in lane "{lane.name}"',
                              where=f'recipe, lane "{lane.name}"',
                              why=f"stage {stage.name} depends on it and on sources of the lane alone ({mine}), and "
                                  "what is carried goes from step to step of the control loop",
                              fix=f"leave {mine} out of the lanes")


def _values(staged: Staged, constant_weight: dict[str, int], backend: str) \
        -> tuple[tuple[Value, ...], dict[str, int], int]:
    types = dict(staged.types)
    for stage in staged.stages:
        types |= {f"{c.result}.scratch": staged.types[c.result] for c in stage.carries}
    placed = {n: t for n, t in types.items() if n not in constant_weight}
    offsets, arena_bytes = arena_offsets(placed.values(), backend)
    where = dict(zip(placed, offsets, strict=True))
    values = tuple(Value(n, t, where.get(n, 0), constant_weight.get(n)) for n, t in types.items())
    return values, {v.name: i for i, v in enumerate(values)}, arena_bytes


def _stage(s: StageGraph, index: dict[str, int], backend: str, stored: tuple[Initializer, ...],
           emitted: OnnxStage | None, weights: list[Weight], place: Mapping[str, int], build: Build | None,
           values: tuple[Value, ...], carried: Collection[str]) -> Stage:
    own = frozenset() if emitted is None else emitted.own
    return Stage(
        s.name, backend, place.get(stage_path(s.name, backend)), s.iterations,
        tuple(sorted(index[n] for n in s.sources if n not in carried)),
        tuple(Binding(p.name, index[p.value], p.mode) for p in s.inputs),
        tuple(Binding(p.name, index[p.value], p.mode) for p in s.outputs),
        tuple(i for i in stored if i.port not in own),
        tuple(Carry(index[c.initial], index[c.result], index[f"{c.result}.scratch"], c.input, c.output)
              for c in s.carries),
        0 if backend == "library" else s.flops,
        sum(weights[i].type.bytes for i in sorted({i.weight for i in stored})) + _of_a_layer(s, values),
        _rounded(s.sampling), s.precisions, build,
        None if s.end is None else LoopEnd(index[s.carries[s.end.carried].result], s.end.must_end))


def _of_a_layer(s: StageGraph, values: tuple[Value, ...]) -> int:
    """Bytes of the weights that one iteration of a loop over layers is bound to: it is no loop that samples."""
    if s.iterations == 1 or s.sampling is not None:
        return 0
    of = {v.name: v for v in values}
    return sum(of[p.value].type.bytes // s.iterations for p in s.inputs
               if p.mode == "row" and of[p.value].weight is not None)


def _rounded(sampling: Sampling | None) -> Sampling | None:
    """With numbers rounded to f32, as the bundle stores them."""
    if sampling is None:
        return None
    error, budget = as_f32((sampling.error, sampling.budget))
    return replace(sampling, error=error, budget=budget)
