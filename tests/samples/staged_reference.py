"""Runs staged policies in PyTorch, stage by stage, reading nothing but what the ports say."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from vlacompile.compiler.staging.stages import Staged, StageGraph


def run_staged(staged: Staged, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """{value name: tensor} of every value after all stages."""
    values = {**staged.constants, **{n: t for n, t in inputs.items() if n in staged.types}}
    for stage in staged.stages:
        values |= run_stage(stage, values)
    return values


def run_stage(stage: StageGraph, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    root = torch.nn.Module()
    for name, tensor in stage.constants.items():
        root.register_buffer(name, tensor)
    module = GraphModule(root, stage.graph)
    carried = [values[c.initial] for c in stage.carries]
    with torch.no_grad():
        for k in range(stage.iterations):
            carry = iter(carried)
            arguments = [next(carry) if p.mode == "carry" else values[p.value][k] if p.mode == "row"
                         else values[p.value]
                         for p in stage.inputs]
            outputs = module(*arguments)
            carried = list(outputs) if stage.carries else carried
    return {p.value: t for p, t in zip(stage.outputs, outputs, strict=True)}
