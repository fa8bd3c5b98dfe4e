"""Which augmented assignments of a cost function change an array that another name may hold as well.

NumPy computes `a -= 1` in the array itself: whoever else holds it, or a view of it, sees the change. Must not know
values: of a number, which nothing can change, `a -= 1` is always an assignment.
"""

from __future__ import annotations

import ast

from vlacompile.frontends.cost_language import BUILTINS, numpy_name


def shared_targets(function: ast.FunctionDef) -> set[ast.AugAssign]:
    """Those whose target is not surely its array's only name. function: one that was checked."""
    alone: set[str] = set()
    found: set[ast.AugAssign] = set()
    for statement in function.body:
        if isinstance(statement, ast.AugAssign):
            assert isinstance(statement.target, ast.Name), "checked"
            if statement.target.id not in alone:
                found.add(statement)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            held = _held(statement.value)
            alone -= held | {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            if not held and len(targets) == 1 and isinstance(targets[0], ast.Name):
                alone.add(targets[0].id)
    return found


def _held(node: ast.expr) -> set[str]:
    """The names whose array, or a part of it, an expression's value may be or have in it."""
    if isinstance(node, ast.Name):
        return {node.id}
    parts: list[ast.expr] = []
    if isinstance(node, ast.Subscript):
        parts = [node.value]
    elif isinstance(node, (ast.List, ast.Tuple)):
        parts = node.elts
    elif isinstance(node, (ast.ListComp, ast.GeneratorExp)):
        parts = [node.elt, node.generators[0].iter]
    elif isinstance(node, ast.IfExp):
        parts = [node.body, node.orelse]
    elif isinstance(node, ast.BoolOp):
        parts = node.values
    elif isinstance(node, ast.Call) and numpy_name(node.func) is None and not _makes_a_number(node.func):
        parts = node.args
    return {name for part in parts for name in _held(part)}


def _makes_a_number(function: ast.expr) -> bool:
    """max and min give one of their arguments."""
    return isinstance(function, ast.Name) and function.id in BUILTINS and function.id not in ("max", "min")
