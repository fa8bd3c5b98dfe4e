"""The source text of a random policy while it is being written: an ordinary nn.Module whose shapes are tracked.

Owns `Choices`, `Value` and `Text`. Must not know which lines there are to write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Option = TypeVar("Option")
WIDTH = 8  # of most values, so that they fit each other

HEAD = """import math

import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc
"""


class Choices:
    """Drawn numbers that decide what is written. With none left the first option is taken: fewer and smaller numbers
    make a simpler text."""

    def __init__(self, numbers: Sequence[int]):
        self._left = list(numbers)

    def pick(self, options: Sequence[Option]) -> Option:
        number = self._left.pop(0) if self._left else 0
        return options[number % len(options)]

    def once_in(self, n: int) -> bool:
        return self.pick(range(n)) == n - 1


@dataclass(frozen=True)
class Value:
    """A tensor of the policy: name of its variable; shape [1,D] (vector), [1,T,D] (tokens) or [1,C,H,W] (image), or of
    a mask or of ids [1,T]."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return self.name


@dataclass
class Text:
    """top: lines before the class. setup: of __init__. lines: of forward. sources: {name: (Source(...), example,
    range)}, as text. pool: float values to compute with. masks, ids: of tokens. outputs: {name: expression}."""

    top: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    sources: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    pool: list[Value] = field(default_factory=list)
    masks: list[Value] = field(default_factory=list)
    ids: list[Value] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    linears: list[tuple[str, int, int]] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _indent: int = 0

    def fresh(self, prefix: str) -> str:
        """A name that is not taken: prefix0, prefix1, ..."""
        number = self._numbers.get(prefix, 0)
        self._numbers[prefix] = number + 1
        return f"{prefix}{number}"

    def line(self, code: str) -> None:
        self.lines.append("    " * self._indent + code)

    @contextmanager
    def block(self, opening: str) -> Iterator[None]:
        self.line(opening)
        self._indent += 1
        yield
        self._indent -= 1

    def let(self, expression: str, shape: Sequence[int], dtype: str = "float32") -> Value:
        name = self.fresh("v")
        self.line(f"{name} = {expression}")
        return Value(name, tuple(shape), dtype)

    def member(self, prefix: str, constructor: str) -> str:
        """A module or a parameter of the class: "self.prefix0"."""
        name = f"self.{self.fresh(prefix)}"
        self.setup.append(f"{name} = {constructor}")
        return name

    def buffer(self, tensor: str) -> str:
        name = self.fresh("table")
        self.setup.append(f'self.register_buffer("{name}", {tensor})')
        return f"self.{name}"

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> str:
        name = self.member("linear", f"nn.Linear({inputs}, {outputs}{'' if bias else ', bias=False'})")
        self.linears.append((name, inputs, outputs))
        return name

    def add(self, value: Value) -> Value:
        self.pool.append(value)
        return value

    def any(self, choices: Choices) -> Value:
        """A value of the pool, the newest first."""
        return choices.pick(self.pool[::-1])

    def tokens(self, value: Value, width: int | None = WIDTH) -> Value:
        """The value as [1,T,D]; width: D, by a linear layer where it is another."""
        if len(value.shape) == 2:
            value = self.let(f"{value}.unsqueeze(1)", (1, 1, value.shape[1]))
        elif len(value.shape) == 4:
            _, c, h, w = value.shape
            value = self.let(f"{value}.flatten(2).transpose(1, 2)", (1, h * w, c))
        return self.of_width(value, width)

    def vector(self, value: Value, choices: Choices, width: int | None = WIDTH) -> Value:
        """The value as [1,D]."""
        if len(value.shape) == 4:
            value = self.let(choices.pick([f"{value}.mean((2, 3))", f"{value}.amax((2, 3))",
                                           f"F.adaptive_avg_pool2d({value}, 1).flatten(1)"]), value.shape[:2])
        elif len(value.shape) == 3:
            _, t, d = value.shape
            how = choices.pick([f"{value}.mean(1)", f"{value}[:, 0]", f"{value}[:, -1]", f"{value}.amax(1)", "flat"])
            value = (self.let(f"{value}.flatten(1)", (1, t * d)) if how == "flat" else self.let(how, (1, d)))
        return self.of_width(value, width)

    def of_width(self, value: Value, width: int | None) -> Value:
        if width is None or value.shape[-1] == width:
            return value
        layer = self.linear(value.shape[-1], width)
        return self.let(f"{layer}({value})", (*value.shape[:-1], width))

    def written(self) -> str:
        """The whole text: a module with the class Net and the function make() -> vlacompile.Policy."""
        indent = "        "
        ranges = {n: r for n, (_, _, r) in self.sources.items() if r}
        made = [f'"{n}": {example}' for n, (_, example, _) in self.sources.items()]
        declared = [f'"{n}": vc.Source({source})' for n, (source, _, _) in self.sources.items()]
        returned = ", ".join(f'"{n}": {e}' for n, e in self.outputs.items())
        names = ", ".join(f'"{n}"' for n in self.outputs)
        return "\n".join([
            HEAD, *(["\n", *self.top] if self.top else []), "", "class Net(nn.Module):",
            "    def __init__(self):", indent + "super().__init__()", indent + "torch.default_generator.manual_seed(0)",
            *(indent + x for x in self.setup), "",
            f"    def forward(self, {', '.join(self.sources)}):", *(indent + x for x in self.lines),
            indent + f"return {{{returned}}}", "", "",
            "def make():", "    g = torch.Generator().manual_seed(1)", "    examples = {",
            *(f"        {x}," for x in made), "    }", "    sources = {", *(f"        {x}," for x in declared),
            "    }", f'    return vc.Policy("random", Net().eval(), sources, examples, outputs=({names},))', "", "",
            "# Numbers of each input: (low, high) of integers, (mean, spread) of floats",
            "RANGES = {" + ", ".join(f'"{n}": {r}' for n, r in ranges.items()) + "}", ""])
