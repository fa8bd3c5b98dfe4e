"""Staged policy + emitted stages -> Plan and the bytes of its weights.

Owns numbering, weight deduplication and the arena. Must not write files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import ml_dtypes
import numpy as np
import torch

from vlacompile.bundle.format.layout import align_up
from vlacompile.bundle.plan.arena import arena_offsets
from vlacompile.bundle.plan.plan import (
    Backbone,
    Binding,
    Carry,
    Delay,
    History,
    Initializer,
    Instruction,
    Lane,
    Plan,
    Sampling,
    SourceInput,
    Stage,
    TensorType,
    TextInput,
    Value,
    Weight,
    as_f32,
)
from vlacompile.compiler.assemble.assemble_action import action_of
from vlacompile.compiler.emit.onnx.onnx_stage import OnnxStage
from vlacompile.compiler.passes.merge_common_subexpressions import content_key
from vlacompile.compiler.staging.known_instructions import KnownInstruction
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.errors import ConfigError, nearest
from vlacompile.hardware.target import Target
from vlacompile.policy.action_decoding import Decoder, Guidance
from vlacompile.policy.policy import TORCH_DTYPES
from vlacompile.recipe.recipe import LaneRecipe, Recipe
from vlacompile.tokenize.compile_text import CompiledText

WEIGHTS_FILE = "stages/weights.bin"


@dataclass
class _WeightStore:
    """Each distinct content once, aligned."""

    rows: list[Weight]
    data: bytearray
    seen: dict[tuple, int]

    def add(self, name: str, array: np.ndarray) -> int:
        narrow = array.dtype == ml_dtypes.bfloat16  # which PyTorch does not take from NumPy
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if narrow else torch.from_numpy(array)
        key = content_key(tensor)
        if key not in self.seen:
            self.data += b"\0" * (align_up(len(self.data)) - len(self.data))
            kind = TensorType(TORCH_DTYPES[tensor.dtype], tuple(array.shape))
            self.seen[key] = len(self.rows)
            self.rows.append(Weight(name, kind, None, len(self.data)))
            self.data += np.ascontiguousarray(array).tobytes()
        return self.seen[key]


@dataclass(frozen=True)
class Assembly:
    """plan: without files. weights: content of WEIGHTS_FILE. offsets: {stage: {initializer: byte offset}}."""

    plan: Plan
    weights: bytes
    offsets: Mapping[str, Mapping[str, int]]


def assemble(staged: Staged, emitted: Mapping[str, OnnxStage], target: Target, recipe: Recipe,
             decoder: Decoder | None = None, guidance: Guidance | None = None,
             compiled: Mapping[str, str] = MappingProxyType({}), texts: tuple[CompiledText, ...] = (),
             known: tuple[KnownInstruction, ...] = (), absent: frozenset[str] = frozenset()) -> Assembly:
    """compiled: {stage: backend} of those whose artefacts hold their weights, TVM's; none of theirs goes to
    WEIGHTS_FILE. absent: stages of which only what they make of `known` is kept."""
    store = _WeightStore([], bytearray(), {})
    constant_weight = {n: store.add(n, t.detach().contiguous().numpy()) for n, t in staged.constants.items()}
    stored = {
        s.name: tuple(Initializer(port, store.add(f"{s.name}/{port}", array))
                      for port, array in emitted[s.name].initializers.items())
        if s.name not in {*compiled, *absent} else ()
        for s in staged.stages}
    backends = {**compiled, **dict.fromkeys(absent, "library")}
    values, index, arena_bytes = _values(staged, constant_weight, target.backend)
    sources = tuple(SourceInput(index[n], s.update, as_f32([s.clock or 0.0])[0])
                    for n, s in staged.program.sources.items())
    stages = tuple(_stage(s, index, backends.get(s.name, target.backend), stored[s.name],
                          frozenset() if s.name in absent else emitted[s.name].own, store.rows) for s in staged.stages)
    action = action_of(staged, index, recipe.action, store.add, decoder, guidance)
    instructions = tuple(Instruction(k.text, index[k.source], tuple(
        (index[n], store.add(f"instruction{i}/{n}", array)) for n, array in k.values.items()))
        for i, k in enumerate(known))
    plan = Plan(staged.program.name, target.name, recipe.name, arena_bytes, (), tuple(store.rows), values, sources,
                stages, action, tuple(Delay(index[a], index[b]) for a, b in staged.delays),
                tuple(History(index[n], s.history) for n, s in staged.program.sources.items() if s.history > 1),
                tuple(TextInput(index[t.tokens], None if t.mask is None else index[t.mask], None, t.max_bytes)
                      for t in texts), instructions, lanes=lanes_of(staged, index, recipe.lane),
                backbones=tuple(Backbone(n, index[v]) for n, v in staged.program.backbones.items()))
    plan.check()
    offsets = {name: {i.port: store.rows[i.weight].offset for i in rows} for name, rows in stored.items()}
    return Assembly(plan, bytes(store.data), offsets)


def lanes_of(staged: Staged, index: Mapping[str, int], wanted: tuple[LaneRecipe, ...]) -> tuple[Lane, ...]:
    """Raises ConfigError for lanes that no stage, or every stage, would be in."""
    if wanted and staged.program.backbones:
        raise ConfigError("lanes and several backbones are not for one bundle", where="recipe, [[lane]]",
                          why=f"it has the backbones {', '.join(staged.program.backbones)}",
                          fix="leave the lanes out, or build each backbone by itself")
    taken: dict[str, str] = {}
    for lane in wanted:
        for name in lane.sources:
            source = staged.program.sources.get(name)
            why = nearest(name, staged.program.sources) if source is None else (
                f'it is in lane "{taken[name]}" too' if name in taken else
                "it has a history, which moves on with the control loop" if source.history > 1 else None)
            if why is not None:
                raise ConfigError(f'"{name}" cannot be in a lane', where=f'recipe, lane "{lane.name}"', why=why,
                                  fix="correct the lane's sources")
            taken[name] = lane.name
    order = [lane.name for lane in wanted] + [""]
    of = {s.name: max((order.index(taken.get(n, "")) for n in s.sources), default=len(wanted)) for s in staged.stages}
    for i, name in enumerate(order if wanted else ()):
        if i not in of.values():
            raise ConfigError(f'no stage runs in lane "{name}"' if name else "nothing is left for the control loop",
                              where="recipe, [[lane]]", why="; ".join(
                                  f"{s.name} depends on {', '.join(s.sources)}" for s in staged.stages)[:400],
                              fix="name other sources; stages.min_flops = 0 keeps small stages apart" if name
                              else "leave a source of the last stage out of the lanes")
    return tuple(Lane(x.name, as_f32([x.clock_hz])[0], x.max_age_ms, tuple(index[n] for n in x.sources))
                 for x in wanted)


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


def _stage(s: StageGraph, index: dict[str, int], backend: str, stored: tuple[Initializer, ...], own: frozenset[str],
           weights: list[Weight]) -> Stage:
    return Stage(
        s.name, backend, None, s.iterations, tuple(sorted(index[n] for n in s.sources)),
        tuple(Binding(p.name, index[p.value], p.mode) for p in s.inputs),
        tuple(Binding(p.name, index[p.value], p.mode) for p in s.outputs),
        tuple(i for i in stored if i.port not in own),
        tuple(Carry(index[c.initial], index[c.result], index[f"{c.result}.scratch"], c.input, c.output)
              for c in s.carries),
        0 if backend == "library" else s.flops, sum(weights[i].type.bytes for i in sorted({i.weight for i in stored})),
        _rounded(s.sampling),
        s.precisions)


def _rounded(sampling: Sampling | None) -> Sampling | None:
    """Its numbers as the bundle holds them."""
    if sampling is None:
        return None
    error, budget = as_f32((sampling.error, sampling.budget))
    return replace(sampling, error=error, budget=budget)
