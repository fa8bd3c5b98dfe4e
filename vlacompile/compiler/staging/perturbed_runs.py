"""Runs stages on golden frames, also with rounding errors drawn anew: how far two correct engines may be apart.

Owns the model of rounding. Must not know limits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.graph.carried import end_lifetimes
from vlacompile.compiler.graph.ops import is_move
from vlacompile.compiler.staging.run_stages import Observer, StageRunner, Values
from vlacompile.compiler.staging.stages import StageGraph
from vlart.verify.frames import Frame

PERTURBED_RUNS = 5
LAST_BITS = 1e-6  # relative error of f32 sums in another order, and of approximated functions
F32_ROUNDING = 2.0 ** -24  # largest relative error of one rounding
HALF_ROUNDINGS = {torch.float16: 2.0 ** -11, torch.bfloat16: 2.0 ** -8}
FACTORS = 1_048_583  # a prime: rows of a matrix, whose width never divides it, are rounded differently
DRAWN = 1024  # random places at a time
_ATEN = torch.ops.aten
# Every engine rounds these correctly: they differ by as much as their operands do, and by one rounding.
_ROUNDED_ONCE = frozenset({_ATEN.add, _ATEN.sub, _ATEN.rsub, _ATEN.mul, _ATEN.div, _ATEN.neg, _ATEN.abs, _ATEN.relu,
                           _ATEN.clamp, _ATEN.clamp_min, _ATEN.clamp_max, _ATEN.minimum, _ATEN.maximum, _ATEN.where,
                           _ATEN.masked_fill, _ATEN.sqrt})
# Their results are whole numbers, whatever their operands' rounding; and what these make of whole numbers is one too.
_WHOLE = frozenset({_ATEN.round, _ATEN.floor, _ATEN.ceil, _ATEN.trunc, _ATEN.sign})
_KEEP_WHOLE = _ROUNDED_ONCE - {_ATEN.div, _ATEN.sqrt}
# Near 0 engines have errors of one rounding of 1, however small the result: 1 / (1 + e^-x), e^x - 1, log(1 + x).
_ROUNDED_AT_ONE = frozenset({_ATEN.sigmoid, _ATEN.elu, _ATEN.expm1, _ATEN.log1p})
_TIMES_OPERAND = frozenset({_ATEN.silu, _ATEN.gelu})  # x times such a result


def frame_values(runner: StageRunner, frames: Sequence[Frame], seed: int | Observer | None) -> list[Values]:
    """All values of the stages, frame by frame. seed: every result is rounded anew, or as an observer does; None: is
    not."""
    observe = perturbed(seed) if isinstance(seed, int) else seed
    return _run(runner, frames, observe, keep=not runner.staged.delays)


def overflows(runner: StageRunner, frames: Sequence[Frame]) -> tuple[list[Values], list[str]]:
    """All values, and per frame where a finite operand first led to an infinity in fp16: "stage, node"; "" nowhere."""
    found: list[str] = []

    def look(stage: StageGraph, node: Node, result):
        if node.op == "call_function" and isinstance(result, torch.Tensor) and result.dtype == torch.float16 \
                and not found[-1] and bool(result.isinf().any()):
            found[-1] = f'stage "{stage.name}", node "{node.name}"'

    return _run(runner, frames, look, lambda: found.append("")), found


def _run(runner: StageRunner, frames: Sequence[Frame], observe: Observer | None,
         begin: Callable[[], None] = lambda: None, keep: bool = False) -> list[Values]:
    """keep: stages none of whose sources change from a frame to the next are not run again, as libvlart does."""
    past: Values = {}
    found: list[Values] = []
    inputs: Values = {}
    needed = {n for s in runner.staged.stages for n in s.sources}
    for frame in frames:
        begin()
        if frame.begins:
            past.clear()
        before, inputs = inputs, {n: torch.from_numpy(a) for n, a in frame.writes.items()}
        end_lifetimes(runner.staged.program.sources, past, before, inputs, needed)
        known = runner.still_valid(before, inputs, found[-1]) if keep and found else {}
        found.append(runner.run(inputs, past, known=known, observe=observe))
    return found


def perturbed(seed: int, times: float = 1.0) -> Observer:
    """Adds rounding errors to every computed result in f32 or 16 bits. Values that are only moved, and whole numbers,
    keep theirs; roundings to 8 bits follow from the errors before them. times: what the errors of a seed are multiplied
    by; -1.0: the opposite ones. Of the two runs one crosses a threshold that a single error decides."""
    perturb = perturbed_results(seed, times)
    return lambda stage, node, result: perturb(node, result)


def perturbed_results(seed: int, times: float = 1.0) -> Callable[[Node, object], torch.Tensor | None]:
    """The same for the nodes of a program that is not cut into stages."""
    places = _places(seed)
    sizes: dict[Node, float] = {}  # of errors of f32 results; 0: they keep theirs. A loop asks once per iteration
    operands: dict[Node, torch.Tensor] = {}  # {node of _TIMES_OPERAND: its operand}, until it is computed

    def perturb(node: Node, result):
        found = perturb_one(node, result) if isinstance(result, torch.Tensor) else None
        for user in node.users:
            if user.op == "call_function" and _packet(user) in _TIMES_OPERAND:
                operands[user] = result if found is None else found
        return found

    def perturb_one(node: Node, result: torch.Tensor) -> torch.Tensor | None:
        if node not in sizes:
            sizes.update(roundings(node.graph))
        if not sizes[node] or result.dtype not in (torch.float32, *HALF_ROUNDINGS):
            return None
        dtype, result = result.dtype, result.float()
        packet = _packet(node)
        if packet in _ROUNDED_AT_ONE or packet in _TIMES_OPERAND:
            unit = torch.ones_like(result) if packet in _ROUNDED_AT_ONE else operands.pop(node).float()
            result = result + _scaled(times * F32_ROUNDING * unit, _normal(), places)
        if dtype == torch.float32:
            return _scaled(result, _factors(times * sizes[node], torch.randn), places)
        return _scaled(result, _factors(times * HALF_ROUNDINGS[dtype], _uniform), places).to(dtype)

    return perturb


def roundings(graph: Graph) -> dict[Node, float]:
    """{node: relative error of its result in f32}; 0.0: it keeps its operands' numbers, or is a whole number."""
    whole: set[Node] = set()
    found = dict.fromkeys(graph.nodes, 0.0)
    for node in graph.nodes:
        if _is_whole(node, whole):
            whole.add(node)
        elif node.op == "call_function" and not is_move(node):
            found[node] = F32_ROUNDING if _packet(node) in _ROUNDED_ONCE else LAST_BITS
    return found


def _is_whole(node: Node, whole: set[Node]) -> bool:
    """Whether its result is certainly a whole number, in whatever dtype. whole: such nodes before it."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or node.op == "output":
        return False
    if not value.is_floating_point() or _packet(node) in _WHOLE:
        return True
    numbers = [a for a in node.args if isinstance(a, float)]
    return ((_packet(node) in _KEEP_WHOLE or is_move(node)) and bool(node.all_input_nodes)
            and whole.issuperset(node.all_input_nodes) and all(n.is_integer() for n in numbers))


def _packet(node: Node) -> object:
    return getattr(node.target, "overloadpacket", None)


def _places(seed: int) -> Iterator[int]:
    """Random ones among FACTORS, without end."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randint(FACTORS, (DRAWN,), generator=draw).tolist()


def _uniform(count: int, generator: torch.Generator) -> torch.Tensor:
    """f32[count] in -1..1."""
    return 2 * torch.rand(count, generator=generator) - 1


@functools.cache
def _factors(size: float, drawn: Callable[..., torch.Tensor]) -> torch.Tensor:
    """f32[FACTORS], 1 + size * a random number each: drawing a number for every element would take as long as the
    policy itself."""
    return 1 + size * drawn(FACTORS, generator=torch.Generator().manual_seed(0))


@functools.cache
def _normal() -> torch.Tensor:
    """f32[FACTORS], normally distributed."""
    return torch.randn(FACTORS, generator=torch.Generator().manual_seed(1))


def _scaled(result: torch.Tensor, factors: torch.Tensor, places: Iterator[int]) -> torch.Tensor:
    """Every element times one of the factors: as they follow each other from a random place on."""
    place, begin, count = next(places), 0, result.numel()
    if place + count <= FACTORS and result.is_contiguous():
        return result * factors[place:place + count].view(result.shape)
    flat, found = result.reshape(-1), torch.empty(result.shape, dtype=result.dtype)
    into = found.view(-1)
    while begin < count:
        end = min(count, begin + FACTORS - place)
        torch.mul(flat[begin:end], factors[place:place + end - begin], out=into[begin:end])
        begin, place = end, 0
    return found
