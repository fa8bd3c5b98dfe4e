"""The layers of runtime_c: who may include, and call, whom.

The table below is the one place that states the order. A file of a directory may include headers of its own directory, of
the directories in its row, and of include/vlart; an object file may call what these define.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.runtime_c.running import BUILD, RUNTIME

# From the bottom to the top. Tokenizer and router know files alone, neither plans nor bundles.
LAYERS = {
    "base": (),
    "container": ("base",),
    "tokenizer": ("base", "container"),
    "router": ("base", "container"),
    "plan": ("base", "container", "tokenizer"),
    "bundle": ("base", "container", "tokenizer", "plan"),
    "session": ("base", "container", "tokenizer", "plan", "bundle"),
    "multirate": ("base", "container", "tokenizer", "plan", "bundle", "session"),
    "backends": ("base", "container", "plan", "bundle"),
}
# What a lower directory calls in a higher one: the session asks for the engines of this build.
SEAM = {"vlart_builtin_backends"}


def layer(path: Path) -> str:
    """The directory that a source, header or object file belongs to."""
    parts = path.parts
    return parts[parts.index("src") + 1] if "src" in parts else "backends"


def sources(suffix: str) -> list[Path]:
    return [path.relative_to(RUNTIME) for folder in ("src", "backends")
            for path in sorted((RUNTIME / folder).rglob(f"*{suffix}"))]


def includes(path: Path) -> list[tuple[int, Path]]:
    """(line, header relative to runtime_c) of every quoted include; those of include/vlart are below everything."""
    found = []
    for number, line in enumerate((RUNTIME / path).read_text().splitlines(), 1):
        name = re.match(r'#include "([^"]+)"', line)
        if name and not name[1].startswith("vlart/"):
            own = path.parent / name[1]
            header = own if path.parts[0] == "backends" and (RUNTIME / own).exists() else Path("src") / name[1]
            assert (RUNTIME / header).exists(), f"{path}:{number}: {name[1]}: name a header as LAYER/HEADER.h"
            found.append((number, header))
    return found


def test_every_directory_has_a_layer():
    assert {path.name for path in (RUNTIME / "src").iterdir()} | {"backends"} == set(LAYERS)
    order = list(LAYERS)
    for name, below in LAYERS.items():
        assert all(order.index(other) < order.index(name) for other in below), name


def test_no_include_runs_upward(record_property):
    files = [*sources(".c"), *sources(".h")]
    upward, edges = [], set()
    for path in files:
        for number, header in includes(path):
            mine, other = layer(path), layer(header)
            if mine != other:
                edges.add((mine, other))
                if other not in LAYERS[mine]:
                    upward.append(f"runtime_c/{path}:{number}: {mine} includes {header}, of {other}")
    report = {"directories": len(LAYERS), "files": len(files), "edges": len(edges), "upward includes": len(upward)}
    print(report)
    for name, count in report.items():
        record_property(name, count)
    assert len(files) > 80 and not upward, "\n".join(upward)


def test_headers_form_no_cycle(record_property):
    graph = {path: {header for _, header in includes(path)} for path in sources(".h")}
    cycles = []
    left = dict(graph)
    while left:
        free = [path for path, used in left.items() if not used & set(left)]
        if not free:
            cycles = sorted(str(path) for path in left)
            break
        for path in free:
            del left[path]
    record_property("headers in cycles", len(cycles))
    assert not cycles, f"headers that include one another: {', '.join(cycles)}"


def test_no_call_runs_upward(lib, record_property):
    """A prototype in a low header hides an upward call from the includes; the object files show it."""
    objects = [BUILD / "obj" / path.with_suffix(".o") for path in sources(".c")]
    table = subprocess.run(["nm", "-A", *map(str, objects)], capture_output=True, text=True, check=True).stdout
    defined, used = {}, []
    for name, kind, symbol in re.findall(r"^(.+?\.o):\S* +([A-Za-z]) (vlart_\w+)$", table.replace("\t", " "), re.M):
        if kind == "U":
            used.append((Path(name), symbol))
        elif kind.isupper():
            defined[symbol] = Path(name)
    upward = [f"{path.relative_to(BUILD / 'obj')} calls {symbol} of {defined[symbol].relative_to(BUILD / 'obj')}"
              for path, symbol in used if symbol in defined and symbol not in SEAM
              and layer(defined[symbol]) not in (layer(path), *LAYERS[layer(path)])]
    calls = sum(symbol in defined for _, symbol in used)
    print({"calls between files": calls, "upward calls": len(upward)})
    record_property("upward calls", len(upward))
    assert calls > 300 and SEAM <= set(defined) and not upward, "\n".join(upward)
