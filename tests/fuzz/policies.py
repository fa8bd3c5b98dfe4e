"""Random policies, as a hypothesis strategy: what is drawn are lists of small numbers, so that a failure shrinks to few
sources, few lines and the first option of every choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.fuzz import attention, constants, geometry, integers, loops, sources, steps
from tests.fuzz.loops import DIM, STEPS
from tests.fuzz.text import WIDTH, Choices, Text, Value

KINDS = (steps.feed_forward, steps.combine, attention.attend, steps.normalise, steps.join_and_take, steps.modulate,
         steps.write_in_place, steps.table, steps.reduce, steps.product, steps.extreme, steps.reshape, steps.convolve,
         attention.recur, steps.dead_branch, steps.from_mask, attention.attend, attention.transformer, steps.halves,
         integers.of_ids, integers.of_signs, integers.indexed, integers.of_bytes, integers.mask_of_mask,
         geometry.rotate, geometry.measure, geometry.solve, geometry.image, geometry.filtered,
         constants.known, constants.known)
LOOPS = (*loops.LOOPS, constants.scheduled)

# How a policy is built: (target, recipe). The share of each is how often it stands here.
BUILDS = (*[("host", None)] * 12, *[("host", "every-stage")] * 5, ("host", "fp16"), ("host", "int8"),
          ("orin-nano-8gb", None))


def _numbers(count: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(0, 359)] * count)


@dataclass(frozen=True)
class RandomPolicy:
    """text: the source of a module with make() and RANGES. target, recipe: how it is built ("every-stage": no stage
    merges into another)."""

    text: str
    target: str = "host"
    recipe: str | None = None


@st.composite
def random_policies(draw: st.DrawFn) -> RandomPolicy:
    given = draw(st.lists(_numbers(8), min_size=1, max_size=4))
    lines = draw(st.lists(st.tuples(st.integers(0, len(KINDS) - 1), _numbers(8)), max_size=10))
    looped = draw(st.none() | _numbers(16))
    heads = draw(st.lists(_numbers(8), min_size=1, max_size=3))
    target, recipe = draw(st.sampled_from(BUILDS))
    return RandomPolicy(write(given, lines, looped, heads), target, recipe)


def write(given: Sequence[Sequence[int]], lines: Sequence[tuple[int, Sequence[int]]], looped: Sequence[int] | None,
          heads: Sequence[Sequence[int]]) -> str:
    """The text of a policy: its sources, lines, loop and outputs, each decided by its own numbers."""
    text = Text()
    for numbers in given:
        sources.source(text, Choices(numbers))
    for kind, numbers in lines:
        KINDS[kind](text, Choices(numbers))
    chunk = _looped(text, Choices(looped)) if looped is not None else None
    for i, numbers in enumerate(heads):
        _output(text, Choices(numbers), chunk if i == 0 else None, first=i == 0)
    if all('"static"' in declared for declared, _, _ in text.sources.values()):
        name = next(iter(text.sources))
        declared, *rest = text.sources[name]
        text.sources[name] = (declared.replace("static", "observation"), *rest)
    return text.written()


def _looped(text: Text, choices: Choices) -> Value:
    """One loop, or two, the second of which sees what the first ended with."""
    chunk = choices.pick(LOOPS)(text, choices)
    if choices.once_in(6):
        text.add(chunk)
        chunk = choices.pick(LOOPS)(text, choices)
    return chunk


def _output(text: Text, choices: Choices, chunk: Value | None, *, first: bool) -> None:
    name = "action" if first else text.fresh("extra")
    if first:
        if chunk is None:
            vector = text.vector(text.any(choices), choices)
            layer = text.linear(WIDTH, STEPS * DIM)
            chunk = text.let(f"{layer}({vector}).view(1, {STEPS}, {DIM})", (1, STEPS, DIM))
        units = choices.pick(["{}", "torch.tanh({})", "{} * 600 + 2048", "{} * 1e-3", "({}.clamp(-1, 1) + 1) / 2 * 90",
                              "{} * {scale} + {centre}", "{}.double() * {scale} + {centre}"])
        scale = centre = ""
        if "scale" in units:
            dtype = ", dtype=torch.float64" if "double" in units else ""
            scale = text.buffer(f"torch.tensor([600.0, 20.0, 1.0, 0.01]{dtype})")
            centre = text.buffer(f"torch.tensor([2048.0, 0.0, -3.0, 1.0]{dtype})")
        text.outputs[name] = units.format(chunk, scale=scale, centre=centre)
        return
    value = text.any(choices)
    text.outputs[name] = choices.pick(["{}", "{}.mean()", "{} > 0.25", "{}.argmax(-1)", "{}.sum(-1)", "{}.half()",
                                       "{}.unsqueeze(0)", "{}.double()", "{}[0]", "{}.flatten()[:1]",
                                       "({} * 10).round().long()", "{}.bfloat16()",
                                       "{}.transpose(-1, -2)"]).format(value)
