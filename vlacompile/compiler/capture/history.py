"""Histories: the frames of a source of which a policy reads several observations, and values of earlier observations.

Owns the replacement of a stacked source by its frames, and the conversion between stacked inputs and the newest
observation. Must not know stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.fx import Node

from vlacompile.compiler.graph.delay import EarlierFrame, frame_name
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.policy.policy import Source, as_taken

_ATEN = torch.ops.aten


def frames_of(sources: Mapping[str, Source], inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Inputs of the inference function -> inputs of a bundle (and of its program, once dtypes are those of engines):
    stacked histories [1,n,...] are split into frames."""
    out: dict[str, torch.Tensor] = {}
    for name, tensor in inputs.items():
        tensor = as_taken(tensor)
        count = sources[name].history if name in sources else 1
        if count == 1:
            out[name] = tensor
        else:
            out |= {frame_name(name, age): tensor[:, count - 1 - age].contiguous() for age in range(count)}
    return out


def newest_of(sources: Mapping[str, Source], inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of these inputs that the robot writes: the newest observation of each history."""
    return {n: t for n, t in frames_of(sources, inputs).items() if n in inputs}


def append(stacked: torch.Tensor | None, newest: torch.Tensor, count: int) -> torch.Tensor:
    """The history [1,n,...] after another observation [1,...]; the first observation fills all n places."""
    if stacked is None:
        return torch.stack([newest] * count, 1)
    return torch.cat([stacked[:, 1:], newest[:, None]], 1)


def with_frames(program: Program) -> Program:
    """Replaces every source with a history by its frames, stacked, oldest first."""
    histories = {n: s for n, s in program.sources.items() if s.history > 1}
    if not histories:
        return program
    editor, inputs, sources, frames = ProgramEditor(program), dict(program.inputs), dict(program.sources), {}
    for node in (n for n in program.graph.nodes if n.op == "placeholder"):
        newest = editor.copy(node)
        name = program.inputs[node.name]
        if name not in histories:
            continue
        source, val = histories[name], node.meta["val"]
        newest.meta = {"val": torch.empty_like(val[:, 0], memory_format=torch.contiguous_format)}
        row = [newest]
        for age in range(1, source.history):
            earlier = editor.graph.placeholder(f"{node.name}_{age}_ago")
            earlier.meta = dict(newest.meta)
            assert frame_name(name, age) not in sources, f"{frame_name(name, age)} is the name of a frame"
            sources[frame_name(name, age)] = EarlierFrame(source.update, source.clock, of=name, age=age)
            inputs[earlier.name] = frame_name(name, age)
            row.insert(0, earlier)
        frames[node] = row
    for node, row in frames.items():
        editor.replace(node, editor.emit(_ATEN.stack.default, (row, 1)))
    for node in program.graph.nodes:
        frame = _selected(node, frames)
        if frame is not None:
            editor.replace(node, frame)
        elif node.op not in ("placeholder", "output"):
            editor.copy(node)
    return replace(editor.finish(), inputs=inputs, sources=sources)


def _selected(node: Node, frames: Mapping[Node, list[Node]]) -> Node | None:
    """The frame that `node` reads from a stacked history."""
    if node.op != "call_function" or node.target is not _ATEN.select.int or node.args[0] not in frames:
        return None
    source, axis, index = node.args
    return frames[source][index] if axis % source.meta["val"].dim() == 1 else None
