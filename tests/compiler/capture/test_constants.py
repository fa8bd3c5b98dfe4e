"""What depends on no input is computed while a policy is traced: control flow on it, masks, schedules, memory that is
written into. The function itself, called by PyTorch, says what is right."""

from __future__ import annotations

import copy
import math
import resource

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vlacompile import Policy, Source
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlart.errors import CaptureError

SHAPE = (1, 4, 8)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(8, 8)
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("depth", torch.tensor(3))
        self.register_buffer("cache", torch.zeros(SHAPE))


def captured(module: nn.Module):
    return capture(Policy("p", module.eval(), {"x": Source("observation")}, {"x": torch.randn(SHAPE)}))


def assert_same(make, draws: int = 2) -> None:
    """The trace computes what the function computes, and leaves the module as it was."""
    module = make()
    before = copy.deepcopy(module.state_dict())
    program = captured(module)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert module.state_dict().keys() == before.keys()
    for seed in range(draws):
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            want = make().eval()(x.clone())["action"]
        got, _ = execute(program, {"x": x})
        assert torch.allclose(got["action"], want, atol=1e-6), (got["action"] - want).abs().max()


def policy_of(function):
    """A module whose forward is `function(self, x)`."""
    def make() -> nn.Module:
        return type("Made", (Base,), {"forward": lambda self, x: {"action": function(self, x)}})()
    return make


def loop_of_a_buffer(self, x):
    for _ in range(int(self.depth)):
        x = self.mix(x)
    return x * math.sqrt(self.depth.item()) * self.gain.exp()


def a_branch_on_a_small_weight(self, x):
    return self.mix(x) if float(self.gain) > 1 else x


def a_branch_on_a_weight(self, x):
    return self.mix(x) if (self.mix.weight @ self.mix.bias).abs().sum() > 0 else x


def a_mask_of_the_shape(self, x):
    mask = torch.ones_like(x[..., 0])
    return self.mix(x) if mask.all() else self.mix(x) * mask[..., None]


def filled(self, x):
    y = x.new_zeros(x.shape).fill_(2.0)
    y.masked_fill_(torch.arange(8) > 4, 3.0)
    y[..., torch.arange(8) < 2] += x[..., :2]
    return y


def numpy_and_back(self, x):
    steps = torch.linspace(1, 0, 5).numpy()
    order = torch.arange(4).flip(0).tolist()
    return sum(float(t) * x for t in steps) + x[:, order] + torch.from_numpy(steps[:4])[:, None]


def columns_of_a_mask(self, x):
    keep = torch.tensor([True, False, True, True, False, True, False, False])
    y = self.mix(x)
    y[..., keep] = x[..., keep]
    y[:, :, ~keep] = 0.5
    y[torch.ones(1, 4, dtype=torch.bool)] *= 2
    return y + x.masked_select(keep).mean()


def a_mask_written_by_elements(self, x):
    mask = torch.zeros(48, 48)
    for i in range(48):
        for j in range(48):
            mask[i, j] = float(j // 4 <= i // 4)
    return x * mask[:4, :8] + mask.sum()


def a_dead_branch_on_an_input(self, x):
    count = (x > 0).sum().item()  # noqa: F841  never read
    return self.mix(x)


def a_copied_input(self, x):
    y = copy.deepcopy(x)
    y[:, 0] = 0
    return y + x


def a_cache_that_is_written_first(self, x):
    self.cache.copy_(x)
    self.cache[:, 0] = 0
    return self.mix(self.cache)


def read_before_and_after_a_write(self, x):
    mask = torch.zeros(4, 8)
    before = x + mask
    mask += 1
    after = x * mask
    mask[0] = 5
    return before + after + mask


def views_of_one_memory(self, x):
    memory = torch.zeros(1, 6, 8)
    head, tail = memory[:, :4], memory[:, 3:5]
    head += x
    tail[..., 0] = 7.0
    memory.view(6, 8).t()[0, 5] = x[0, 0, 0]
    return memory * 1


def several_views_at_once(self, x):
    memory = torch.zeros(SHAPE)
    rows = memory.unbind(1)
    rows[2].copy_(x[:, 1])
    rows[3][..., 1:3] = 1
    one, two = memory.chunk(2, 1)
    return torch.cat([two, one], 1) + memory


def through_data(self, x):
    memory = torch.zeros(SHAPE)
    memory.data[:, 0] = x[:, 0]
    return memory + 0


def into_an_output(self, x):
    out = torch.empty(SHAPE)
    torch.add(x, 1.0, out=out)
    return out


def a_distribution_s_mean(self, x):
    of = torch.distributions.Normal(self.mix(x), 0.1)
    return of.mean + of.stddev


def an_overwritten_copy(self, x):
    """OpenVLA-OFT makes its masks of a copy of the prompt, after every element of it was overwritten."""
    labels = (x[0] * 0).long()
    labels[:] = -100
    labels = torch.cat([labels, torch.full((1, 8), 7)])
    mask = (labels != -100).all(1)
    rows = torch.cat([x[0], torch.ones(1, 8)])[mask]
    return self.mix(rows) * len(torch.where(mask)[0]) if mask.any() else x


def known_elements_behind_much_else(self, x):
    """What lies between may not be computable on zeros."""
    labels = torch.cat([(x[0] * 0).long(), torch.full((1, 8), 7)])
    labels[:4] = -100
    y = torch.linalg.inv(x[0, :, :4] @ x[0, :, :4].mT + torch.eye(4)) @ x[0]
    y = torch.linalg.solve(x[0, :, :4] @ x[0, :, :4].mT + torch.eye(4) * 2, y)
    return y * len(torch.where((labels != -100).all(1))[0])


def the_constant_end_of_a_concatenation(self, x):
    tokens = torch.cat([x[..., 0], torch.tensor([[7.0]])], 1)
    if not torch.all(tokens[:, -1] == 7):
        tokens = tokens * 0
    return tokens


def a_mask_of_vmap(self, x):
    rows = torch.vmap(torch.vmap(lambda q, k: q.new_ones((), dtype=torch.bool) & (k <= q), (None, 0)), (0, None))
    mask = rows(torch.arange(4), torch.arange(4))
    return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask) if mask.any() else x


def a_mask_of_vmap_with_an_input_in_it(self, x):
    """As transformers makes masks of padding: constants and values of inputs meet within vmap."""
    valid = (x > 0).sum()
    rows = torch.vmap(torch.vmap(lambda q, k: (k <= q) & (k * 6 < valid), (None, 0)), (0, None))
    mask = rows(torch.arange(4), torch.arange(4)) | torch.eye(4, dtype=torch.bool)
    return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def while_a_tensor_says_so(self, x):
    """The times of a flow, as openpi counts them: a new tensor in every step, and one that is changed in place."""
    step, time, left = torch.tensor(-0.25), torch.tensor(1.0), torch.tensor(1.0)
    while time >= -step / 2:
        x = x + step * self.mix(x) * time.expand(1, 1, 1)
        time = time + step
        left += step
    for a, b in zip(torch.linspace(1, 0, 4)[:-1], torch.linspace(1, 0, 4)[1:], strict=True):
        x = x + (b - a) * self.mix.weight[self.depth] * a
    return x + left


def several_results_of_constants(self, x):
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 4), torch.linspace(-1, 1, 8), indexing="ij")
    first, second = self.mix.weight.chunk(2)
    one, rest = self.mix.bias.split([3, 5])
    (largest, where), (ordered, order) = self.mix.weight.max(0), self.cache[0].sort(-1)
    top, _ = self.mix.weight.topk(2, 0)
    x = x * rows + columns + first - second * one.sum() + rest.mean() + largest * where + ordered * order + top.sum(0)
    for row in self.mix.weight:
        x = x + row.tanh()
    return x + sum(self.mix.bias.unbind(0))


FUNCTIONS = [while_a_tensor_says_so, several_results_of_constants,
             loop_of_a_buffer, a_branch_on_a_small_weight, a_branch_on_a_weight, a_mask_of_the_shape, filled,
             numpy_and_back, columns_of_a_mask, a_mask_written_by_elements, a_dead_branch_on_an_input, a_copied_input,
             a_cache_that_is_written_first, read_before_and_after_a_write, views_of_one_memory, several_views_at_once,
             through_data, into_an_output, a_distribution_s_mean, an_overwritten_copy, known_elements_behind_much_else,
             the_constant_end_of_a_concatenation, a_mask_of_vmap, a_mask_of_vmap_with_an_input_in_it]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_trace_is_the_function(function):
    assert_same(policy_of(function))


def a_branch_on_an_input(self, x):
    return x if x.sum() > 0 else -x


def a_size_of_an_input(self, x):
    return x[x > 0].cumsum(0)[-1] + x


def a_mask_with_an_input_in_it(self, x):
    mask = torch.zeros(8, dtype=torch.bool)
    mask[0] = x[0, 0, 0] > 0
    return x if mask.any() else -x


def a_copy_overwritten_in_part(self, x):
    labels = x.clone()
    labels[:, :, 1:] = -100
    return x if (labels == -100).all() else -x


def a_weight_with_an_input_in_it(self, x):
    weight = self.mix.weight.clone()
    weight.view(-1)[3:5].copy_(x.flatten()[:2])
    return x if weight.sum() > 0 else -x


@pytest.mark.parametrize("function", [a_branch_on_an_input, a_size_of_an_input, a_mask_with_an_input_in_it,
                                      a_copy_overwritten_in_part, a_weight_with_an_input_in_it],
                         ids=lambda f: f.__name__)
def test_what_an_input_decides_is_refused_with_its_line(function):
    with pytest.raises(CaptureError) as error:
        captured(policy_of(function)())
    assert "value" in error.value.what and "test_constants.py" in error.value.where


def test_a_branch_on_a_buffer_that_the_call_changes_is_state():
    def count(self, x):
        self.cache += 1
        return x if self.cache.sum() > 100 else self.mix(x)

    with pytest.raises(CaptureError, match="keeps state: buffer") as error:
        captured(policy_of(count)())
    assert "100" in error.value.where


def test_random_numbers_are_no_constants():
    def noise(self, x):
        return x + torch.randn(8)

    with pytest.raises(CaptureError, match="random numbers") as error:
        captured(policy_of(noise)())
    assert "test_constants.py" in error.value.where


def test_only_what_inputs_reach_is_recorded():
    program = captured(policy_of(a_mask_written_by_elements)())
    assert sum(n.op == "call_function" for n in program.graph.nodes) <= 3


# A program over a pool of tensors: some hold values of the input, some constants, some are views of others.
_NEW = st.sampled_from(["zeros", "ramp", "input", "sum"])
_VIEW = st.sampled_from(["row", "rows", "columns", "turned", "flat", "whole", "half"])
_WRITE = st.sampled_from(["add a number", "add", "copy", "fill a part", "mask", "scale"])
_STEPS = st.lists(st.one_of(st.tuples(st.just("new"), _NEW, st.integers(0, 9), st.integers(0, 9)),
                            st.tuples(st.just("view"), _VIEW, st.integers(0, 9), st.integers(0, 9)),
                            st.tuples(st.just("write"), _WRITE, st.integers(0, 9), st.integers(0, 9))),
                  min_size=2, max_size=12)


def _run(steps: list, x: torch.Tensor) -> torch.Tensor:
    pool = [torch.zeros(4, 8), x[0] * 1]
    for kind, how, i, j in steps:
        a, b = pool[i % len(pool)], pool[j % len(pool)]
        if kind == "new":
            pool.append({"zeros": lambda: torch.zeros(4, 8), "ramp": lambda: torch.arange(32.0).reshape(4, 8),
                         "input": lambda: x[0] + 1, "sum": lambda b=b: torch.ones(4, 8) * b.sum()}[how]())
        elif kind == "view":
            pool.append({"row": lambda a=a: a[0] if a.dim() > 1 else a, "rows": lambda a=a: a[1:3],
                         "columns": lambda a=a: a[..., ::2], "turned": lambda a=a: a.t() if a.dim() == 2 else a,
                         "flat": lambda a=a: a.reshape(-1), "whole": lambda a=a: a.detach(),
                         "half": lambda a=a: a.chunk(2)[-1] if len(a) > 1 else a}[how]())
        else:
            {"add a number": lambda a=a: a.add_(0.5), "add": lambda a=a, b=b: a.add_(b.mean()),
             "copy": lambda a=a, b=b: a.copy_(b.sum()), "fill a part": lambda a=a, j=j: a[..., j % 3:].fill_(float(j)),
             "mask": lambda a=a: a.masked_fill_(torch.arange(a.shape[-1]) % 3 == 0, -1.0),
             "scale": lambda a=a, b=b: a.mul_(0.5 + 0.01 * b.sum().tanh())}[how]()
    return torch.stack([t.sum() + (t * torch.linspace(0.1, 1, t.shape[-1])).sum() for t in pool])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(_STEPS)
def test_memory_is_shared_as_in_pytorch(steps):
    assert_same(policy_of(lambda self, x: _run(steps, x)), draws=1)


def test_what_is_static_decides_as_a_constant_does():
    """A mask, a count and a condition that never change on a robot are known when the policy is built."""
    def of_parts(x, mask, count):
        y = x[:, mask][:, :int(count)]
        return {"action": y * 2 if count > 2 else y, "places": torch.where(mask)[0][None] + 0}

    inputs = {"x": torch.randn(1, 8), "mask": torch.arange(8) % 2 == 0, "count": torch.tensor(3)}
    sources = {"x": Source("observation"), "mask": Source("static"), "count": Source("static")}
    program = capture(Policy("static", of_parts, sources, inputs, outputs=("action", "places")))
    got = execute(program, inputs)[0]
    assert torch.equal(got["action"], inputs["x"][:, :6:2] * 2)
    assert torch.equal(got["places"], torch.tensor([[0, 2, 4, 6]]))
    assert not program.parameters and list(program.sources) == ["x"]
    with pytest.raises(CaptureError, match="the value of an input decides"):
        capture(Policy("live", of_parts, {**sources, "count": Source("task")}, inputs, outputs=("action", "places")))


def test_what_no_element_is_known_of_takes_no_memory_while_a_branch_is_decided():
    """one_hot asks for its numbers; they are computed from 1.6 GB of products of an input."""
    class Wide(nn.Module):
        def forward(self, x):
            wide = torch.relu(x[:, :, None] * x[:, None]).sin()
            return {"action": nn.functional.one_hot((wide.sum((1, 2)) > 0).long(), 2).float()[None]}

    policy = Policy("wide", Wide().eval(), {"x": Source("observation")}, {"x": torch.randn(1, 20_000)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    program = capture(policy)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "KiB"
    assert tuple(program.output_nodes()[0].meta["val"].shape) == (1, 1, 2)
