"""What reads one part of joined sources depends on this part alone, by perturbing the sources of the original."""

from __future__ import annotations

import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.graph.dependency import output_dependencies
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.passes.fold_slices_of_concat import FoldSlicesOfConcat
from vlacompile.compiler.passes.pass_list import graph_passes
from vlacompile.compiler.passes.pass_manager import run_passes, verified
from vlacompile.compiler.passes.slice_before_pointwise import SliceBeforePointwise
from vlacompile.compiler.passes.split_reads_by_rate import SplitReadsByRate
from vlacompile.policy.policy import Policy, Source

PASSES = graph_passes(is_translated, decompositions)
BLIND = tuple(p for p in PASSES if not isinstance(p, (SplitReadsByRate, FoldSlicesOfConcat, SliceBeforePointwise)))

Tensors = list[torch.Tensor]


def split_evenly(x, dim):
    return list(x.split(max(1, x.shape[dim] // 2), dim))


SPLITS = {
    "split": split_evenly, "chunk": lambda x, dim: list(x.chunk(2, dim)),
    "sizes": lambda x, dim: list(x.split([1, x.shape[dim] - 1], dim)) if x.shape[dim] > 1 else [x],
    "tensor_split": lambda x, dim: [t for t in x.tensor_split(3, dim) if t.numel()],
    "unbind": lambda x, dim: list(x.unbind(dim)), "select": lambda x, dim: [x.select(dim, 0), x.select(dim, -1)],
    "narrow": lambda x, dim: [x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)],
    "index": lambda x, dim: [x.index_select(dim, torch.tensor([x.shape[dim] - 1, 0]))],
    "every second": lambda x, dim: [x.transpose(0, dim)[::2].transpose(0, dim)],
}
ALIKE = {
    "scaled": lambda x, dim: x * 2.0 - 1.0, "tanh": lambda x, dim: torch.tanh(x),
    "per row": lambda x, dim: x + torch.arange(x.shape[dim]).view([-1] + [1] * (x.dim() - dim - 1)),
    "flip": lambda x, dim: x.flip(dim), "roll": lambda x, dim: x.roll(1, dim),
    "permute": lambda x, dim: x.movedim(dim, 0), "unsqueeze": lambda x, dim: x.unsqueeze(dim),
    "flatten rows": lambda x, dim: x.flatten(dim), "contiguous": lambda x, dim: x.transpose(0, dim).contiguous(),
}


@st.composite
def functions(draw):
    """(a function of n sources [1,3,4] that joins them, moves them, and takes them apart; n)"""
    count, stacked = draw(st.integers(2, 3)), draw(st.booleans())
    axis = draw(st.integers(0, 2))
    steps = draw(st.lists(st.tuples(st.sampled_from([*ALIKE, *SPLITS]), st.integers(0, 3), st.integers(0, 7)),
                          min_size=1, max_size=4))

    def f(*sources: torch.Tensor) -> Tensors:
        x = torch.stack(sources, axis) if stacked else torch.cat(sources, axis)
        dim = axis
        for name, other, pick in steps:
            dim = min(dim if other else (dim + 1) % x.dim(), x.dim() - 1)
            if name in ALIKE:
                x = ALIKE[name](x, dim)
                dim = 0 if name in ("permute", "contiguous") else dim
            else:
                parts = SPLITS[name](x, dim)
                x = parts[pick % len(parts)]
            if x.dim() == 0:
                x = x.view(1)
            dim = min(dim, x.dim() - 1)
        return [torch.tanh(part) for part in SPLITS[draw_last](x, dim)][:3]

    draw_last = draw(st.sampled_from(list(SPLITS)))
    note(f"{count} sources, {'stacked' if stacked else 'joined'} along {axis}, {steps}, {draw_last}")
    return f, count


def truth(f, sources: Tensors) -> list[frozenset[int]]:
    """The sources that each result depends on: those that change it when they are changed."""
    base = f(*sources)
    moved = [f(*(s + 1.0 if i == j else s for j, s in enumerate(sources))) for i in range(len(sources))]
    return [frozenset(i for i, other in enumerate(moved) if not torch.equal(base[k], other[k]))
            for k in range(len(base))]


def compiled(f, sources: Tensors, passes):
    names = [f"s{i}" for i in range(len(sources))]
    outputs = tuple(f"out{k}" for k in range(len(f(*sources))))
    policy = Policy("p", lambda **given: dict(zip(outputs, f(*given.values()), strict=True)),
                    dict.fromkeys(names, Source("observation")), dict(zip(names, sources, strict=True)),
                    outputs=outputs)
    with verified("full"):
        program, _ = run_passes(capture(policy), passes)
    want = dict(zip(outputs, f(*sources), strict=True))
    got = execute(program, dict(zip(names, sources, strict=True)))[0]
    assert all(torch.equal(want[n], got[n]) for n in outputs)
    return [frozenset(int(s[1:]) for s in output_dependencies(program)[n]) for n in outputs]



@settings(max_examples=20, deadline=None, derandomize=True)
@given(functions())
def test_dependencies_are_the_true_ones(made):
    f, count = made
    torch.manual_seed(0)
    sources = [torch.randn(1, 3, 4) for _ in range(count)]
    assert compiled(f, sources, PASSES) == truth(f, sources)


def test_without_these_passes_they_are_not():
    """The negative control: the oracle sees the difference."""
    f = lambda a, b: list(torch.tanh(torch.cat([a, b], 1)).chunk(2, 1))
    sources = [torch.randn(1, 3, 4), torch.randn(1, 3, 4)]
    assert truth(f, sources) == [{0}, {1}] == compiled(f, sources, PASSES)
    assert compiled(f, sources, BLIND) == [{0, 1}, {0, 1}]
