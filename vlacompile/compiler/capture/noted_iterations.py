"""Notes on traced ops in which iteration they were recorded, of a loop whose later iterations are not traced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch.fx.experimental.proxy_tensor import get_proxy_mode

from vlacompile.compiler.graph.program import ITERATION


@contextlib.contextmanager
def noted_iteration(loop: int, iteration: int) -> Iterator[None]:
    """Within this context one iteration of the loop is traced. The exporter keeps what is "custom"."""
    mode = get_proxy_mode()
    assert mode is not None, "within a trace"
    graph = mode.tracer.graph
    last = next(reversed(graph.nodes), None)
    yield
    for node in reversed(graph.nodes):
        if node is last:
            return
        node.meta["custom"] = {**node.meta.get("custom", {}), ITERATION: (loop, iteration)}
