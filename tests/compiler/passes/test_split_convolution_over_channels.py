"""A convolution of joined channels is the sum of those of the parts; where they change together it stays whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.passes.split_convolution_over_channels import SplitConvolutionOverChannels
from vlacompile.policy.policy import Policy, Source

torch.manual_seed(0)
WHOLE, GROUPED = torch.nn.Conv2d(6, 4, 3, 2, 1), torch.nn.Conv2d(6, 4, 3, groups=2)
LINE = torch.nn.Conv1d(6, 4, 3)
SPLIT = {
    "of a goal image": lambda a, goal: WHOLE(torch.cat([a, goal], 1)),
    "of an absent one": lambda a, goal: WHOLE(torch.cat([a, torch.zeros_like(a)], 1)),
    "in normalised pixels": lambda a, goal: WHOLE(torch.cat([a, goal], 1) / 127.5 - 1),
    "of standardised weights": lambda a, goal: F.conv2d(torch.cat([goal, a], 1), WHOLE.weight - WHOLE.weight.mean()),
    "in one dimension": lambda a, goal: LINE(torch.cat([a[:, :, 0], goal[:, :, 0]], 1)),
}
LEFT = {
    "of groups": lambda a, goal: GROUPED(torch.cat([a, goal], 1)),
    "of one rate": lambda a, goal: WHOLE(torch.cat([a, a * 2], 1)),
    "in rows": lambda a, goal: WHOLE(torch.cat([torch.cat([a, a], 1), torch.cat([goal, goal], 1)], 2)),
    "of weights that change": lambda a, goal: F.conv2d(torch.cat([a, goal], 1), goal.mean() * WHOLE.weight),
}


@pytest.mark.parametrize("name", [*SPLIT, *LEFT])
def test_it_is_the_same_number(name):
    function, inputs = (SPLIT | LEFT)[name], {"a": torch.randn(1, 3, 8, 8), "goal": torch.randn(1, 3, 8, 8)}
    program = capture(Policy("channels", lambda **x: {"action": function(**x)},
                             {"a": Source("observation"), "goal": Source("task")}, inputs))
    result = SplitConvolutionOverChannels().run(program)
    assert result.changed == (name in SPLIT)
    torch.testing.assert_close(execute(result.program, inputs)[0]["action"], function(**inputs), rtol=1e-5, atol=1e-5)
    assert not SplitConvolutionOverChannels().run(result.program).changed
