"""Staged policy + emitted stages -> Plan and the bytes of its weights.

Owns numbering, weight deduplication and the arena. Must not write files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from vlacompile.bundle.layout import align_up
from vlacompile.decoding import Decoder, Guidance
from vlacompile.emit.onnx_stage import OnnxStage
from vlacompile.passes.merge_common_subexpressions import content_key
from vlacompile.plan.assemble_action import action_of
from vlacompile.plan.memory import arena_offsets
from vlacompile.plan.plan import (Binding, Carry, Delay, History, Initializer, Plan, Sampling, SourceInput, Stage,
                                  TensorType, Value, Weight, as_f32)
from vlacompile.policy import TORCH_DTYPES
from vlacompile.recipe import Recipe
from vlacompile.staging.stages import Staged, StageGraph
from vlacompile.target import Target

WEIGHTS_FILE = "stages/weights.bin"


@dataclass
class _WeightStore:
    """Each distinct content once, aligned."""

    rows: list[Weight]
    data: bytearray
    seen: dict[tuple, int]

    def add(self, name: str, array: np.ndarray) -> int:
        tensor = torch.from_numpy(array)
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
             decoder: Decoder | None = None, guidance: Guidance | None = None) -> Assembly:
    store = _WeightStore([], bytearray(), {})
    constant_weight = {n: store.add(n, t.detach().contiguous().numpy()) for n, t in staged.constants.items()}
    initializers = {
        s.name: tuple(Initializer(port, store.add(f"{s.name}/{port}", array))
                      for port, array in emitted[s.name].initializers.items()) for s in staged.stages}
    values, index, arena_bytes = _values(staged, constant_weight)
    sources = tuple(SourceInput(index[n], s.update, as_f32([s.clock or 0.0])[0])
                    for n, s in staged.program.sources.items())
    stages = tuple(_stage(s, index, target, initializers[s.name], store.rows) for s in staged.stages)
    action = action_of(staged, index, recipe.action, store.add, decoder, guidance)
    plan = Plan(staged.program.name, target.name, recipe.name, arena_bytes, (), tuple(store.rows), values, sources,
                stages, action, tuple(Delay(index[a], index[b]) for a, b in staged.delays),
                tuple(History(index[n], s.history) for n, s in staged.program.sources.items() if s.history > 1))
    plan.check()
    offsets = {name: {i.port: store.rows[i.weight].offset for i in rows} for name, rows in initializers.items()}
    return Assembly(plan, bytes(store.data), offsets)


def _values(staged: Staged, constant_weight: dict[str, int]) -> tuple[tuple[Value, ...], dict[str, int], int]:
    types = dict(staged.types)
    for stage in staged.stages:
        types |= {f"{c.result}.scratch": staged.types[c.result] for c in stage.carries}
    placed = {n: t for n, t in types.items() if n not in constant_weight}
    offsets, arena_bytes = arena_offsets(placed.values())
    where = dict(zip(placed, offsets, strict=True))
    values = tuple(Value(n, t, where.get(n, 0), constant_weight.get(n)) for n, t in types.items())
    return values, {v.name: i for i, v in enumerate(values)}, arena_bytes


def _stage(s: StageGraph, index: dict[str, int], target: Target, initializers: tuple[Initializer, ...],
           weights: list[Weight]) -> Stage:
    return Stage(
        s.name, target.backend, None, s.iterations, tuple(sorted(index[n] for n in s.sources)),
        tuple(Binding(p.name, index[p.value], p.mode) for p in s.inputs),
        tuple(Binding(p.name, index[p.value], p.mode) for p in s.outputs),
        initializers,
        tuple(Carry(index[c.initial], index[c.result], index[f"{c.result}.scratch"], c.input, c.output)
              for c in s.carries),
        s.flops, sum(weights[i].type.bytes for i in sorted({i.weight for i in initializers})), _rounded(s.sampling))


def _rounded(sampling: Sampling | None) -> Sampling | None:
    """Its numbers as the bundle holds them."""
    if sampling is None:
        return None
    error, budget = as_f32((sampling.error, sampling.budget))
    return replace(sampling, error=error, budget=budget)
