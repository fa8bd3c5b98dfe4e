"""Graph modules without Python code of their graphs: the exporter has it written several times, and nothing calls it.

Must not know policies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch.fx import GraphModule
from torch.fx.graph import _PyTreeCodeGen


@contextlib.contextmanager
def uncompiled_graphs() -> Iterator[None]:
    """Within this context a graph module's code is written when it is first called. The method is overridden in its
    class because the exporter has no option for it."""
    recompile = GraphModule.recompile

    def later(module: GraphModule) -> None:
        codegen = module.graph._codegen
        if isinstance(codegen, _PyTreeCodeGen):
            module._in_spec, module._out_spec = codegen.pytree_info.in_spec, codegen.pytree_info.out_spec
        type(module).forward = first_call  # every graph module has a class of its own

    def first_call(module: GraphModule, *args, **kwargs):
        recompile(module)
        return type(module).forward(module, *args, **kwargs)

    GraphModule.recompile = later
    try:
        yield
    finally:
        GraphModule.recompile = recompile
