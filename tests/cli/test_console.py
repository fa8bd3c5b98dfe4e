"""Whatever a table or a line of the command line holds, a terminal shows it and acts on nothing of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vlacompile.cli.terminal import Terminal
from vlart.errors import VlaError

ROUNDS = 200


def hostile(draw: np.random.Generator) -> str:
    """As a name comes from a file system, a pickle or a JSON document: any bytes, any code points."""
    data = draw.integers(0, 256, 24, dtype=np.uint8).tobytes()
    points = "".join(map(chr, draw.choice([0x1B, 0x9B, 0x7F, 0x0D, 0x0A, 0x202E, 0x2028, 0xD800, 0x41, 0xE9], 8)))
    return data.decode(errors="surrogateescape") + points + "\x1b]0;title\x07\x1b[2J"


def harmless(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


def drawn(name: str, console: Console) -> None:
    table = Table("a", "b")
    table.add_row(name, Text(name))
    for what in (name, Text(name, style="bold"), table, Panel(name)):
        console.print(what)
    console.print(name, style="dim", soft_wrap=True)


@pytest.mark.parametrize("seed", range(4))
def test_any_name(capsys, seed):
    draw = np.random.default_rng(seed)
    for _ in range(ROUNDS // 4):
        name = hostile(draw)
        terminal = Terminal(as_json=False)
        terminal.show({"name": name}, lambda console, name=name: drawn(name, console))
        terminal.error(VlaError(name, where=name, why=name, fix=name))
        with terminal.phases() as phase:
            phase(f"read: {name}")
        terminal.finish()
        out, err = capsys.readouterr()
        assert out and err and harmless(out) and harmless(err)


def test_any_name_as_json(capsys):
    """It comes back as it was, apart from what is no Unicode."""
    draw = np.random.default_rng(0)
    for _ in range(ROUNDS):
        name = hostile(draw)
        terminal = Terminal(as_json=True)
        terminal.show({name: [name]}, print)
        terminal.error(VlaError(name, where="", why="", fix=""))
        terminal.finish()
        out = capsys.readouterr().out
        found = json.loads(out)
        expected = name.encode(errors="backslashreplace").decode()
        assert harmless(out) and found[expected] == [expected] and harmless(found["what"])
        json.dumps(found, ensure_ascii=False).encode()


def test_an_error_is_four_lines_of_printable_text():
    draw = np.random.default_rng(1)
    for _ in range(ROUNDS):
        name = hostile(draw)
        error = VlaError(name, where=name, why=name, fix=name)
        assert harmless(str(error)) and len(str(error).splitlines()) == 4
        assert all(map(harmless, error.as_dict().values())) and harmless(error.args[0])


def test_a_console_of_rich_would_act_on_it(capsys):
    """Negative control."""
    drawn(hostile(np.random.default_rng(0)).encode(errors="replace").decode(),
          Console(markup=False, emoji=False, highlight=False))
    assert not harmless(capsys.readouterr().out)
