"""The layers of runtime_c: who may include, and call, whom.

The table below is the one place that states the order. A file of a directory may include headers of its own directory,
of the directories in its row, and of include/vlart; an object file may call what these define.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runtime_c.running import BUILD, RUNTIME

# From the bottom to the top. Tokenizer and router know files alone, neither plans nor bundles.
LAYERS = {
    "base": (),
    "container": ("base",),
    "camera": ("base",),
    "tokenizer": ("base", "container"),
    "record": ("base", "container"),
    "router": ("base", "container", "record"),
    "plan": ("base", "container", "tokenizer"),
    "bundle": ("base", "container", "record", "tokenizer", "plan"),
    "session": ("base", "container", "record", "tokenizer", "plan", "bundle"),
    "multirate": ("base", "container", "record", "tokenizer", "plan", "bundle", "session"),
    "backends": ("base", "container", "plan", "bundle"),
}
# What a lower directory calls in a higher one: the session asks for the engines of this build.
SEAM = {"vlart_builtin_backends"}
ENDINGS = (".c", ".h", ".cc")


@dataclass(frozen=True)
class Include:
    """path, header: relative to runtime_c."""

    path: Path
    line: int
    header: Path

    def __str__(self) -> str:
        return f"runtime_c/{self.path}:{self.line}: {layer(self.path)} includes {self.header}, of {layer(self.header)}"


def layer(path: Path) -> str:
    """The directory that a source, header or object file belongs to."""
    parts = path.parts
    return parts[parts.index("src") + 1] if "src" in parts else "backends"


def is_below(mine: str, other: str) -> bool:
    return other == mine or other in LAYERS[mine]


def sources(ending: str, root: Path = RUNTIME) -> list[Path]:
    return [path.relative_to(root) for folder in ("src", "backends")
            for path in sorted((root / folder).rglob(f"*{ending}"))]


def includes(root: Path = RUNTIME) -> list[Include]:
    """Every include of the runtime's own headers; those of include/vlart are below everything."""
    found = []
    for path in [p for ending in ENDINGS for p in sources(ending, root)]:
        for number, line in enumerate((root / path).read_text().splitlines(), 1):
            name = re.match(r'\s*#\s*include\s*["<]([^">]+)[">]', line)
            if name is None or name[1].startswith("vlart/") or ("<" in line and not is_own(name[1], root)):
                continue
            places = [Path("src") / name[1], Path("backends") / name[1]]
            places += [path.parent / name[1]] if path.parts[0] == "backends" else []
            header = next((p for p in places if (root / p).exists()), None)
            assert header, f"runtime_c/{path}:{number}: {name[1]}: name a header as LAYER/HEADER.h"
            found.append(Include(path, number, header))
    return found


def is_own(name: str, root: Path) -> bool:
    """Whether the compiler finds an <include> among the runtime's headers."""
    return any((root / folder / name).exists() for folder in ("src", "backends"))


def upward(found: list[Include]) -> list[str]:
    return [str(i) for i in found if not is_below(layer(i.path), layer(i.header))]


def cycles(found: list[Include]) -> list[str]:
    """Headers that include one another, or what includes them."""
    left = {header: set() for include in found for header in (include.header, include.path) if header.suffix == ".h"}
    for include in found:
        if include.path.suffix == ".h":
            left[include.path].add(include.header)
    while free := [path for path, used in left.items() if not used & set(left)]:
        for path in free:
            del left[path]
    return sorted(map(str, left))


def test_every_directory_has_a_layer():
    assert {path.name for path in (RUNTIME / "src").iterdir()} | {"backends"} == set(LAYERS)
    order = list(LAYERS)
    for name, below in LAYERS.items():
        assert all(order.index(other) < order.index(name) for other in below), name


def test_no_include_runs_upward_and_no_headers_include_each_other(record_property):
    found = includes()
    edges = {(layer(i.path), layer(i.header)) for i in found if layer(i.path) != layer(i.header)}
    report = {"directories": len(LAYERS), "includes": len(found), "edges": len(edges),
              "upward includes": len(upward(found)), "headers in cycles": len(cycles(found))}
    print(report)
    for name, count in report.items():
        record_property(name, count)
    assert len(found) > 150 and not upward(found), "\n".join(upward(found))
    assert not cycles(found), f"headers that include one another: {', '.join(cycles(found))}"


def test_an_include_upward_and_a_cycle_are_found(tmp_path):
    """The control: a tree with both."""
    for folder in ("src", "backends"):
        shutil.copytree(RUNTIME / folder, tmp_path / folder)
    for path, header in (("src/base/arena.h", "plan/plan.h"), ("src/plan/plan.c", "session/session.h")):
        text = (tmp_path / path).read_text()
        (tmp_path / path).write_text(f'#include "{header}"\n{text}')
    found = includes(tmp_path)
    assert upward(found) == ["runtime_c/src/plan/plan.c:1: plan includes src/session/session.h, of session",
                             "runtime_c/src/base/arena.h:1: base includes src/plan/plan.h, of plan"]
    assert {"src/base/arena.h", "src/plan/plan.h"} <= set(cycles(found))


@pytest.mark.parametrize("include", ['#include "session/session.h"', "#include <session/session.h>",
                                     '  #  include\t"session/session.h"'])
def test_each_way_to_include_is_seen(tmp_path, include):
    for name, text in {"src/base/arena.c": f"#include <string.h>\n{include}\n", "src/session/session.h": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert upward(includes(tmp_path)) == [
        "runtime_c/src/base/arena.c:2: base includes src/session/session.h, of session"]


def test_no_call_runs_upward(lib, record_property):
    """A prototype in a low header hides an upward call from the includes; the object files show it."""
    objects = [BUILD / "obj" / path.with_suffix(".o") for path in sources(".c")]
    table = subprocess.run(["nm", "-A", *map(str, objects)], capture_output=True, text=True, check=True).stdout
    defined, used = {}, []
    for name, kind, symbol in re.findall(r"^(.+?\.o):\S* +([A-Za-z]) (\w+)$", table, re.MULTILINE):
        if kind == "U":
            used.append((Path(name), symbol))
        elif kind.isupper():
            defined[symbol] = Path(name)
    calls = [(path.relative_to(BUILD / "obj"), symbol, defined[symbol].relative_to(BUILD / "obj"))
             for path, symbol in used if symbol in defined]
    wrong = [f"{path} calls {symbol} of {other}" for path, symbol, other in calls
             if symbol not in SEAM and not is_below(layer(path), layer(other))]
    print({"calls between files": len(calls), "upward calls": len(wrong)})
    record_property("upward calls", len(wrong))
    assert len(calls) > 300 and not wrong, "\n".join(wrong)
    assert {symbol for path, symbol, other in calls if not is_below(layer(path), layer(other))} == SEAM
