"""Where tests touch names that the packages keep to themselves: read off the sources, with the place of every use."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house.layers import PREFIXES, ROOT, modules


def defined(root: Path = ROOT) -> set[str]:
    """Every private name that a module of the package defines: functions, classes, variables and attributes of self."""
    found = set()
    for path in modules(root).values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_self(node):
                found.add(node.attr)
    return {name for name in found if is_private(name)}


def of_self(node: ast.Attribute) -> bool:
    """An attribute that is set on another object may be a library's."""
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def is_private(name: str) -> bool:
    """Names like _fields_ are the protocol of ctypes and enum."""
    return name.startswith("_") and not name.endswith("_")


def called(call: ast.Call) -> str:
    """The last name of what is called: "setattr" of monkeypatch.setattr(...)."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def uses(path: Path, private: set[str]) -> list[str]:
    """In one file: imports of the package's private names, their dotted names in strings, and attributes of others than
    self that have such a name. What a file defines itself is its own, and so is torch's."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    own = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
            and of_self(n)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PREFIXES:
            found += [(node.lineno, f"{node.module}.{a.name}") for a in node.names
                      if any(map(is_private, f"{node.module}.{a.name}".split(".")))]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            first, *rest = node.value.split(".")
            found += [(node.lineno, node.value)] if first in PREFIXES and any(map(is_private, rest)) else []
        elif isinstance(node, ast.Call) and called(node) in ("getattr", "setattr", "delattr", "hasattr", "object"):
            found += [(node.lineno, a.value) for a in node.args[1:2] if isinstance(a, ast.Constant)
                      and a.value in private]
        elif (isinstance(node, ast.Attribute) and node.attr in private - own
              and not ast.unparse(node).startswith(("self.", "cls.", "nn.", "torch."))):
            found.append((node.lineno, ast.unparse(node)))
    return [f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}:{line}: {name}"
            for line, name in sorted(found)]
