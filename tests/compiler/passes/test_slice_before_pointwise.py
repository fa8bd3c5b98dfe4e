"""What is read of a value in part depends on what this part is made of, and is the same part."""

from __future__ import annotations

import pytest
import torch

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.dependency import output_dependencies
from vlacompile.compiler.graph.program import Program, execute
from vlacompile.compiler.passes.slice_before_pointwise import SliceBeforePointwise
from vlacompile.policy.policy import Policy, Source

torch.manual_seed(0)
CAUSAL, FIXED, HALF = torch.ones(5, 5).tril().bool(), torch.ones(1, 2, dtype=torch.bool), torch.randn(5, 1)


def _whole(words):
    return torch.cat([FIXED, words], 1)


def _positions(words):
    return (_whole(words).cumsum(-1) - 1).clamp(min=0)


CONSTANT = {
    "a mask": lambda words, x: torch.where((CAUSAL & _whole(words)[:, None])[:, :2, :2], 0.0, -1e9) + x[:, :2, :2],
    "cut twice": lambda words, x: torch.where(CAUSAL & _whole(words)[:, None], 0.0, -1e9)[:, :2][..., :2] + 0.0,
    "positions": lambda words, x: (_positions(words)[..., None].float() * HALF.T).cos()[:, :2],
    "expanded": lambda words, x: _whole(words)[:, None].expand(1, 5, 5).float()[..., 1:2],
    "of another dtype": lambda words, x: torch.cat([FIXED, words.float()], 1)[:, :2] * 3,
}
LEFT = {
    "a part of the words": lambda words, x: torch.where(CAUSAL & _whole(words)[:, None], 0.0, -1e9)[:, :, 1:3],
    "the end of a cumulative sum": lambda words, x: _whole(words).cumsum(-1)[:, 2:].float(),
    "across elements": lambda words, x: torch.softmax(_whole(words).float(), -1)[:, :2],
    "every second": lambda words, x: (_whole(words) & True)[:, ::2].float(),
}


def _program(function) -> tuple[Program, dict[str, torch.Tensor]]:
    inputs = {"words": torch.tensor([[True, True, False]]), "x": torch.randn(1, 5, 5)}
    return capture(Policy("parts", lambda **given: {"action": function(**given) + 0 * given["x"].sum()},
                          dict.fromkeys(inputs, Source("observation")), inputs)), inputs


@pytest.mark.parametrize("name", [*CONSTANT, *LEFT])
def test_it_is_the_same_part_and_depends_on_no_more_than_that(name):
    function = (CONSTANT | LEFT)[name]
    program, inputs = _program(function)
    result = SliceBeforePointwise().run(program)
    assert result.changed == (name in CONSTANT)
    assert output_dependencies(result.program)["action"] == ({"x"} if name in CONSTANT else {"words", "x"})
    assert not SliceBeforePointwise().run(result.program).changed
    for words in ([True, False, False], [True, True, True]):
        inputs["words"] = torch.tensor([words])
        want = function(**inputs) + 0 * inputs["x"].sum()
        assert torch.equal(execute(result.program, inputs)[0]["action"], want)


def test_iterations_of_a_loop_stay_alike():
    """The first one begins with a source, so that the part of it that the loop changes is no gain."""
    def function(noise, x):
        for _ in range(3):
            noise = torch.tanh(torch.cat([x, noise], 1))[:, 2:] * 2
        return {"action": noise}

    sources = {"noise": Source("step"), "x": Source("observation")}
    program = capture(Policy("loop", function, sources, {"noise": torch.randn(1, 3), "x": torch.randn(1, 2)}))
    assert not SliceBeforePointwise().run(program).changed
