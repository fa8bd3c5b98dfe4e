"""Nodes that a trace did not have, written into its program while it becomes one. Must not know what they are for."""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.graph.program import KEPT, infer_val, to_meta


class NodeWriter:
    """graph, constants: of the program. prefix: of the names of new constants. like: the traced node whose place in the
    policy new nodes have."""

    def __init__(self, graph: Graph, constants: dict[str, torch.Tensor], prefix: str):
        self.graph, self.constants, self.prefix = graph, constants, prefix
        self.like: Node | None = None

    def constant(self, tensor: torch.Tensor) -> Node:
        name = f"{self.prefix}__{len(self.constants)}"
        self.constants[name] = tensor.contiguous()
        node = self.graph.get_attr(name)
        node.meta["val"] = to_meta(tensor)
        return node

    def emit(self, target, *args, **kwargs) -> Node:
        new = self.graph.call_function(target, args, kwargs)
        meta = self.like.meta
        new.meta = {k: v for k, v in {**meta, **meta.get("custom", {})}.items() if k in KEPT}
        new.meta["val"] = infer_val(new)
        return new
