"""Who imports whom among the packages of vlart and vlacompile: read off the sources, with the place of every import.

`python -m tests.house.layers [ROOT]` prints how many packages there are, which imports run upward and which packages
import each other in a cycle.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parents[2]

# From the bottom up: a package imports only what stands before it. A name without files of its own (`compiler`) is its
# modules alone, its folders stand for themselves; of `frontends` the folders belong to it. vlart is the runtime, below
# everything of the compiler.
LAYERS = (
    "vlart/errors", "vlart/vocabulary", "vlart/standard_output",
    "vlart/files",
    "vlart/runtime/library",
    "vlart/bundle/format", "vlart/bundle/plan", "vlart/bundle",
    "vlart/arguments",
    "vlart/runtime",
    "vlart/verify",
    "vlart/recording",
    "vlart/serve",
    "vlart/ros",
    "errors",
    "files",
    "workers",
    "policy",
    "hardware",
    "recipe",
    "tokenize",
    "deploy",
    "compiler/graph", "compiler/capture", "compiler/passes/rules", "compiler/passes", "compiler/staging",
    "compiler/precision/quantise", "compiler/precision/rotate", "compiler/precision/fp16", "compiler/precision/assign",
    "compiler/fit",
    "compiler/emit/onnx", "compiler/emit/tensorrt", "compiler/emit/tvm",
    "compiler/assemble",
    "compiler",
    "check",
    "frontends",
    "zoo/names", "zoo/checkpoint", "zoo/system", "zoo/blocks", "zoo",
    "phases",
    "routing", "profile", "report", "episodes", "export",
    "view",
    "pipeline",
    "doctor",
    "cli",
)
PUBLIC = "__init__"  # `vlacompile` and `vlart` themselves, of names from all layers: nothing inside imports them
PREFIXES = {"vlart": ("vlart",), "vlacompile": ()}  # {package: what its modules' names begin with}
NOT_MODULES = ("vlart/setup.py",)
DOTTED = re.compile(r"(vlart|vlacompile)(\.\w+)+\.?")


@dataclass(frozen=True)
class Import:
    """One import statement's one name. file: relative to the root; importer, imported: modules, as
    "bundle/plan/text"."""

    file: str
    line: int
    importer: str
    imported: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.importer} imports {self.imported}"


def modules(root: Path = ROOT) -> dict[str, Path]:
    """{"vlart/bundle/plan/text": path, "policy/policy": path} of the modules; a package's __init__ is the package's own
    name."""
    found = {}
    for package, prefix in PREFIXES.items():
        for path in sorted((root / package).rglob("*.py")):
            inside = path.relative_to(root / package).with_suffix("").parts
            if inside != (PUBLIC,) and path.relative_to(root).as_posix() not in NOT_MODULES:
                found["/".join((*prefix, *inside)).removesuffix(f"/{PUBLIC}")] = path
    return found


def imports(root: Path = ROOT) -> list[Import]:
    """Every import of one of the package's modules by another: those inside functions, relative ones and those by name
    (importlib) too."""
    known, found = modules(root), []
    for importer, path in known.items():
        file = path.relative_to(root).as_posix()
        package = list(path.relative_to(root).parent.parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), file)):
            found += [Import(file, node.lineno, importer, of) for of in _imported(node, package, known)
                      if of not in (None, importer)]
    return found


def _imported(node: ast.AST, package: list[str], known: dict[str, Path]) -> list[str | None]:
    """package: of the module, which relative imports count from. A string that names a module counts as well:
    importlib takes it."""
    if isinstance(node, ast.Import):
        return [_module(a.name, known, PUBLIC) for a in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package[:len(package) + 1 - node.level] if node.level else []
        return [_module(".".join([*base, *filter(None, [node.module]), a.name]), known, PUBLIC) for a in node.names]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and DOTTED.fullmatch(node.value):
        return [_module(node.value.removesuffix("."), known)]
    return []


def _module(name: str, known: dict[str, Path], otherwise: str | None = None) -> str | None:
    """The module of the package that a dotted name is, or is in. otherwise: of the package's own names."""
    first, *rest = name.split(".")
    if first not in PREFIXES:
        return None
    longest = ("/".join((*PREFIXES[first], *rest[:end])) for end in range(len(rest), 0, -1))
    return next((m for m in longest if m in known), otherwise)


def layer_of(module: str, layers: tuple[str, ...] = LAYERS) -> str:
    """The package that a module belongs to. Raises KeyError where no layer is its."""
    parts = module.split("/")
    if module == PUBLIC:
        return PUBLIC
    for end in range(len(parts), 0, -1):
        if (name := "/".join(parts[:end])) in layers:
            return name
    raise KeyError(f"{module} belongs to no layer: tests/house/layers.py lists them")


def upward(found: list[Import], layers: tuple[str, ...] = LAYERS) -> list[Import]:
    """Imports of what stands above the importer."""
    rank = {name: i for i, name in enumerate((*layers, PUBLIC))}
    return [i for i in found if rank[layer_of(i.imported, layers)] > rank[layer_of(i.importer, layers)]]


def cycles(found: list[Import], package_of) -> list[set[str]]:
    """Sets of packages that import each other, directly or through others."""
    graph = nx.DiGraph((package_of(i.importer), package_of(i.imported)) for i in found)
    return [c for c in nx.strongly_connected_components(graph) if len(c) > 1]


def folder_of(module: str, known: dict[str, Path]) -> str:
    """The package of a module by its folder alone, for trees that have other layers."""
    return module if module == PUBLIC or known[module].name == "__init__.py" else module.rpartition("/")[0] or module


def main(root: Path) -> None:
    found, known = imports(root), modules(root)
    try:
        ranked = f"{len(upward(found))} run upward"
    except KeyError:
        ranked = "its layers are not those of tests/house/layers.py"
    circles = cycles(found, lambda module: folder_of(module, known))
    packages = {folder_of(m, known) for m in known if "/" in m}
    print(f"{len(packages)} packages, {len(known)} modules, {len(found)} imports, "
          f"{ranked}")
    print(f"{len(circles)} cycles" + "".join(f"\n  {len(c)} packages: {', '.join(sorted(c))}" for c in circles))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
