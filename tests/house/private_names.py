"""Where tests touch names that vlacompile keeps to itself: read off the sources, with the place of every use."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house.layers import ROOT, modules


def defined(root: Path = ROOT) -> set[str]:
    """Every private name that a module of the package defines: functions, classes, variables and attributes of self."""
    found = set()
    for path in modules(root).values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return {name for name in found if is_private(name)}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name != "_"


def called(call: ast.Call) -> str:
    """The last name of what is called: "setattr" of monkeypatch.setattr(...)."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def uses(path: Path, private: set[str]) -> list[str]:
    """In one file: imports of the package's private names, their dotted names in strings, and attributes of others than
    self that have such a name. What a file defines itself is its own, and so is torch's."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    own = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
            and isinstance(n.value, ast.Name) and n.value.id == "self"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vlacompile":
            found += [(node.lineno, f"{node.module}.{a.name}") for a in node.names
                      if any(map(is_private, f"{node.module}.{a.name}".split(".")))]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("vlacompile."):
            found += [(node.lineno, node.value)] if any(map(is_private, node.value.split("."))) else []
        elif isinstance(node, ast.Call) and called(node) in ("getattr", "setattr", "delattr", "hasattr", "object"):
            found += [(node.lineno, a.value) for a in node.args[1:2] if isinstance(a, ast.Constant)
                      and a.value in private]
        elif (isinstance(node, ast.Attribute) and node.attr in private - own
              and not ast.unparse(node).startswith(("self.", "cls.", "nn.", "torch."))):
            found.append((node.lineno, ast.unparse(node)))
    return [f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}:{line}: {name}"
            for line, name in sorted(found)]
