"""Integers, booleans and bytes, for the host and for a board: PyTorch's results to the bit, edges among the inputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.samples.emitted import require_equal
from vlacompile.policy.policy import Policy, Source

DIALECTS = ["onnxruntime", "tensorrt"]
SHAPE = (3, 5)
_LARGE = 1 << 40


def drawn(seed: int) -> dict[str, torch.Tensor]:
    """a: any; b: not zero, either sign; k: i8; m: masks; u: bytes; x: floats. Of each, edges too."""
    draw = torch.Generator().manual_seed(seed)
    of = lambda numbers: torch.tensor(numbers)[torch.randint(0, len(numbers), SHAPE, generator=draw)]
    return {"a": of([0, 1, -1, 2, 3, 7, -7, 8, -8, 100, _LARGE, -_LARGE, -3, 255, 256]),
            "b": of([1, -1, 2, -2, 3, -3, 7, -8, 5]),
            "k": of([-128, -1, 0, 1, 64, 127]).to(torch.int8), "m": of([True, False]),
            "u": of([0, 1, 2, 9, 127, 128, 200, 254, 255]).to(torch.uint8),
            "x": of([0.0, -0.5, 1.5, 2.0, -3.25, 7.0])}


class Ops(torch.nn.Module):
    def __init__(self, ops):
        super().__init__()
        self.ops = ops

    def forward(self, **inputs):
        used = 0.0 * sum(t.sum() for t in inputs.values()).float()
        return {"action": inputs["x"] + used} | {n: op(**inputs) for n, op in self.ops.items()}


def policy(ops) -> Policy:
    inputs = drawn(0)
    return Policy("ops", Ops(ops).eval(), dict.fromkeys(inputs, Source("observation")), inputs,
                  outputs=("action", *ops))


def written(x, index, value):
    y = x.clone()
    y[index] = value
    return y


def choose(columns):
    """Of all rows, columns that are known."""
    return (slice(None), torch.tensor(columns))


DIVISIONS = {
    "floor": lambda a, b, **_: a // b, "by_3": lambda a, **_: torch.stack([a // 3, a // -3, a % 3, a % -3]),
    "mod": lambda a, b, **_: torch.stack([a % b, torch.fmod(a, b)]),
    "of_17": lambda b, **_: torch.stack([17 // b, 17 % b, -17 // b]),
    "trunc": lambda a, b, **_: torch.div(a, b, rounding_mode="trunc"),
    "in_32": lambda b, k, **_: torch.stack([k.int() // b.int(), k.int() % b.int()]),
    "powers": lambda b, **_: torch.stack([b ** 3, b ** 2, b ** 0]),
    "shifts": lambda a, b, **_: torch.stack([a << 3, a >> 2, a << b.abs(), a >> b.abs()]),
    "bits": lambda a, b, **_: torch.stack([a & b, a | b, a ^ b, ~a, a & 6, a | -8]),
    "sums": lambda a, **_: torch.stack([a.cumsum(1), a.cumsum(0)]),
    "products": lambda a, b, **_: a @ b.mT,
}
LOGIC = {
    "equal": lambda a, b, m, **_: torch.stack([m == (a > b), m != (a > b), m == True, m != 1, m == 0.0]),  # noqa: E712
    "ordered": lambda a, b, m, **_: torch.stack([m < (a > b), m <= (a > b), m > (a > b), m >= (a > b)]),
    "summed": lambda a, b, m, **_: torch.stack([m + (a > b), m * (a > b), torch.maximum(m, a > b)]),
    "chosen": lambda a, b, m, **_: torch.stack([torch.where(m, a > b, m.flip(1)), m.masked_fill(a > b, True)]),
    "sorted": lambda m, **_: torch.stack([m.sort(1).values, F.pad(m, (1, 1), value=True)[:, 1:-1], m.tril()]),
    "extreme": lambda m, **_: torch.stack([m.amax(1), m.amin(1), m.any(1), m.all(1)]),
    "scattered": lambda a, m, **_: torch.stack([m.scatter(1, a % 5, True), torch.zeros_like(m).scatter(1, a % 5, m)]),
}
WRITES = {
    "numbers": lambda m, x, **_: torch.stack([written(x, m, 3.0), written(x, ~m, x[0, 0])]),
    "rows": lambda m, x, **_: torch.stack([written(x, m[:, 0], 3.0), written(x, m[:, 0], torch.arange(5.0))]),
    "columns": lambda m, x, **_: written(x, (slice(None), m[0]), 2.0),
    "others": lambda a, b, m, u, **_: torch.stack([written(a, m, -1), written(m, a > b, True).long(),
                                                  written(u, m, 9).long()]),
    "added": lambda m, x, **_: x.index_put((m,), torch.tensor(2.0), accumulate=True),
    "known": lambda a, m, u, x, **_: torch.stack([written(x, choose([0, 2]), 0.0),
                                                  written(x, choose([1, -1]), x[:, :2]),
                                                  written(a, choose([0, 2]), 7).clamp(-9, 9).float(),
                                                  written(m, choose([0, 2]), True).float(),
                                                  written(u, choose([0, 2]), 7).float()]),
    "scattered": lambda m, x, **_: torch.stack([x.masked_scatter(m, x.flip(0)), x.masked_scatter(m[:, :1], x.flip(1))]),
}
NARROW_INDICES = {
    "read": lambda a, x, **_: torch.stack([x[:, (a[0] % 5).int()], x[(a[:, 0] % 3).int(), (a[:, 1] % 5).int()][:, None]
                                          .expand(3, 5), x.index_select(1, (a[0] % 5).int())]),
    "written": lambda a, x, **_: torch.stack([written(x, (slice(None), torch.tensor([1, 3, 0, 2, 4]).int()), x * 2),
                                              written(x, ((a[:, 0] % 3).int(),), 0.5)]),
    "added": lambda a, x, **_: torch.stack([x.index_add(1, (a[0] % 5).int(), x), x.index_put(
        ((a[0] % 3).int(), (a[1] % 5).int()), x[0], accumulate=True)]),
}
BYTES = {
    "wrapped": lambda u, **_: torch.stack([u + u.flip(0), u - u.flip(0), u * u.flip(0), u + 200, u - 128, 255 - u, -u]),
    "divided": lambda u, **_: torch.stack([u // 3, u % 7, u // (u.flip(0) | 1)]),
    "bits": lambda u, **_: torch.stack([u & 15, u | 128, u ^ 255, ~u, u >> 4, u << 1]),
    "compared": lambda u, **_: torch.stack([u > 128, u == u.flip(0), u != 0]),
    "moved": lambda u, **_: torch.cat([u.flip(1), u.roll(2, 1), u[:, [4, 3, 0]], u[:, 1:3],
                                       F.pad(u, (1, 1), value=7)], 1),
    "cast": lambda a, u, x, m, **_: torch.stack([(a % 1000).to(torch.uint8), (x.abs() * 30).to(torch.uint8),
                                                 m.to(torch.uint8), u]),
    "chosen": lambda m, u, **_: torch.where(m, u, u.flip(0)) + torch.where(u > 9, u, 0),
    "reduced": lambda u, **_: torch.stack([u.sum(1), u.amax(1).long(), u.argmax(1), u.cumsum(1)[:, 3]]),
    "beyond": lambda k, u, **_: torch.stack([(k % 777).long(), (u % 300).long(), (u | 300).long()]),
    "signed": lambda k, u, **_: torch.stack([u.to(torch.int8), k * 3, k << 2, k // 3, -k]),
    "in_16": lambda a, k, **_: torch.stack([(a % 99999).to(torch.int16), k.to(torch.int16) * 999]),
    "extremes": lambda a, x, **_: torch.stack([*torch.aminmax(a % 999), x.amax().long(), x.amin().long()]),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("ops", [DIVISIONS, LOGIC, WRITES, NARROW_INDICES, BYTES],
                         ids=["divisions", "logic", "writes", "narrow indices", "bytes"])
def test_ops_give_pytorchs_numbers(ops, dialect):
    require_equal(policy(ops), dialect, [drawn(seed) for seed in range(4)])


def test_the_comparison_notices_a_division_that_rounds_to_zero(monkeypatch):
    from vlacompile.compiler.passes.rules import integer_ops

    monkeypatch.setitem(integer_ops.INTEGERS, torch.ops.aten.floor_divide,
                        lambda node: lambda a, b: torch.div(a, b, rounding_mode="trunc"))
    with pytest.raises(AssertionError):
        require_equal(policy({"y": lambda a, **_: a // 3}), "onnxruntime", [drawn(seed) for seed in range(4)])


# random programs: each step takes earlier values by number, whatever their type

_STEPS = {
    "add": lambda p, q: p + q, "sub": lambda p, q: p - q.long(), "mul": lambda p, q: p * q,
    "floor": lambda p, q: p // (q.long() % 7 + 1), "down": lambda p, q: p // (-(q.long() % 7) - 1),
    "mod": lambda p, q: p % (q.long() % 9 - 10), "eq": lambda p, q: p == q, "lt": lambda p, q: p < q,
    "where": lambda p, q: torch.where(p > 1, p, q.to(p.dtype)), "max": torch.maximum,
    "bits": lambda p, q: p ^ q, "and": lambda p, q: p & q, "not": lambda p, q: ~p, "flip": lambda p, q: p.flip(1),
    "roll": lambda p, q: p.roll(1, 1), "cat": lambda p, q: torch.cat([p[:, 2:], q.to(p.dtype)[:, :2]], 1),
    "bytes": lambda p, q: (p % 777).to(torch.uint8), "short": lambda p, q: p.to(torch.int16),
    "int": lambda p, q: p.to(torch.int32), "write": lambda p, q: written(p, q > 1, 1),
    "pick": lambda p, q: p.gather(1, q.long() % 5), "sort": lambda p, q: p.sort(1).values,
    "top": lambda p, q: p.amax(1, keepdim=True) - q.long(), "clamp": lambda p, q: p.long().clamp(-5, 9),
    "sum": lambda p, q: p.cumsum(1), "scatter": lambda p, q: p.scatter(1, q.long() % 5, 1),
}
_NUMBERS = st.integers(0, 30)


def program(steps):
    """Without the steps that PyTorch refuses with such types; while it traces it refuses fewer."""
    inputs, kept = drawn(0), []
    for step in steps:
        try:
            _values([*kept, step], **inputs)
        except RuntimeError:
            continue
        kept.append(step)
    return lambda **inputs: torch.stack([v.long() for v in _values(kept, **inputs)[5 if kept else 0:]])


def _values(steps, a, b, k, m, u, **_):
    values = [a % 1000, b, k, m, u]
    for name, i, j in steps:
        values.append(_STEPS[name](values[i % len(values)], values[j % len(values)]))
    return values


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.tuples(st.sampled_from(sorted(_STEPS)), _NUMBERS, _NUMBERS), min_size=1, max_size=8))
def test_random_programs(dialect, steps):
    require_equal(policy({"y": program(steps)}), dialect, [drawn(seed) for seed in range(3)])
