"""What was computed in 32 bits ends in its own type, once: wrapped around wherever the type could not hold it."""

from __future__ import annotations

import pytest
import torch

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.passes.legalise_integers import LegaliseIntegers
from vlacompile.policy.policy import Policy, Source

NARROW = [torch.uint8, torch.int8, torch.int16]
OUTPUTS = {  # of two values of a narrow type and one of i32
    "sum": lambda a, b, n: a + b, "difference": lambda a, b, n: a - b, "product": lambda a, b, n: a * b,
    "larger": lambda a, b, n: torch.maximum(a, b), "largest": lambda a, b, n: a.amax(1, keepdim=True),
    "sorted": lambda a, b, n: (a + b).sort(1).values, "chosen": lambda a, b, n: torch.where(a > b, a, b * b),
    "clamped": lambda a, b, n: (a + b).clamp(3, 90), "bits": lambda a, b, n: a ^ b, "not": lambda a, b, n: ~a,
    "joined": lambda a, b, n: torch.cat([a + b, b], 1), "read": lambda a, b, n: (a + b)[:, [2, 0]],
    "other": lambda a, b, n: n.to(a.dtype), "other clamped": lambda a, b, n: n.clamp(-500, 500).to(a.dtype),
    "filled": lambda a, b, n: torch.full_like(a.int(), 70000).to(a.dtype) + a * 0,
    "place": lambda a, b, n: (n.argsort(1) + 60000).to(a.dtype),
    "larger of other": lambda a, b, n: torch.maximum(a.int(), n).to(a.dtype),
    "padded": lambda a, b, n: torch.nn.functional.pad(a.int(), (1, 1), value=70000).to(a.dtype),
    "shifted": lambda a, b, n: (n % 200 + 100).to(a.dtype), "remainder": lambda a, b, n: (n % 300).to(a.dtype),
}


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_narrow_output_is_right_and_computed_in_32_bits_once(dtype):
    info = torch.iinfo(dtype)
    inputs = {"a": torch.tensor([[info.min, info.max, 7, 100]], dtype=dtype),
              "b": torch.tensor([[info.max, info.max, 5, 100]], dtype=dtype),
              "n": torch.tensor([[-70001, 40000, 300, 129]], dtype=torch.int32)}

    def observe(a, b, n):
        return {"action": a.float()} | {name: f(a, b, n) for name, f in OUTPUTS.items()}

    policy = Policy("p", observe, dict.fromkeys(inputs, Source("observation")), inputs, outputs=("action", *OUTPUTS))
    once = LegaliseIntegers().run(capture(policy))
    twice = LegaliseIntegers().run(once.program)
    assert once.changed and not twice.changed, twice.notes
    got, want = execute(once.program, inputs)[0], observe(**inputs)
    wrong = [name for name in OUTPUTS if got[name].dtype != dtype or not torch.equal(got[name], want[name])]
    assert not wrong, wrong
