"""What a policy's code may look like: names of variables, objects beside it, code that asks whether it is compiled."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest
import torch

from vlacompile import Policy, Source
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlart.errors import CaptureError


def _check(function) -> None:
    policy = Policy("p", function, {"x": Source("observation")}, {"x": torch.randn(1, 8)})
    x = torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = policy.infer(x=x)["action"]
    got = execute(capture(policy), {"x": x})[0]["action"]
    assert got.dtype == want.dtype and torch.allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("name", ["modules", "forward", "training", "infer", "within", "children"])
def test_a_variable_may_be_named_as_a_member_of_modules(name):
    scope: dict = {}
    exec(f"def make({name}):\n    return lambda x: {{'action': {name}(x)}}", scope)
    _check(scope["make"](torch.nn.Linear(8, 8).eval()))


class _AnyAttribute(type):
    def __getattr__(cls, name):
        return cls


class Stub(metaclass=_AnyAttribute):
    """As stand-ins for missing packages are: every attribute is there."""


def test_an_object_with_any_attribute_is_no_partial():
    head, stub = torch.nn.Linear(8, 8).eval(), Stub

    def infer(x):
        assert stub
        return {"action": head(x)}

    _check(infer)


def test_code_that_refuses_to_be_compiled_is_traced_as_it_runs():
    head = torch.nn.Linear(8, 8).eval()

    def infer(x):
        if torch.compiler.is_compiling():
            raise ValueError("not while compiling")
        return {"action": head(x)}

    _check(infer)


def test_code_that_avoids_a_branch_while_it_is_compiled_is_traced_so():
    head = torch.nn.Linear(8, 8).eval()

    def infer(x):
        if not torch.compiler.is_compiling() and bool((x == 7).all()):
            return {"action": head(x)}
        return {"action": head(x) * 1}

    _check(infer)


HEAD = torch.nn.Linear(8, 8).eval()
MEAN = np.linspace(-1, 1, 8)


def numpy_statistics(x):
    return (x - MEAN) / np.float32(2.0)


def numpy_on_the_way(x):
    low, high = np.full(8, -0.5), np.full(8, 0.5)
    y = np.clip(HEAD(x).numpy(), low, high)
    return torch.from_numpy(np.where(MEAN > 0, y, 0.5 * (y + 1) * (high - low) + low)).float()


def numpy_at_the_end(x):
    return np.concatenate([HEAD(x).numpy(), np.ones((1, 3), np.float32)], axis=1)


def tensor_of_tensors(x):
    return x * torch.tensor([x[0, 0], 2.0, *x[0, 2:8]]) + torch.tensor([[x[0, 1], 1.0] * 4])


def copied_and_printed(x):
    y = copy.deepcopy(HEAD(x))
    text = f"{y.mean():.3f}"  # noqa: F841
    y[:, 0] = 0
    return y


def caught(x):
    try:
        y = HEAD(x.reshape(1, 9))
    except RuntimeError:
        y = HEAD(x) * 2
    return y


def asserted(x):
    torch._assert(torch.isfinite(x).all(), "no number")
    return HEAD(x)


def scripted(x):
    return SCRIPT(x) * 2


@torch.inference_mode()
def in_inference_mode(x):
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):  # a GPU's, traced on a CPU
        return HEAD(x)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    SCRIPT = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()).eval())


@pytest.mark.parametrize("function", [numpy_statistics, numpy_on_the_way, numpy_at_the_end, tensor_of_tensors,
                                      copied_and_printed, caught, asserted, scripted, in_inference_mode],
                         ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:CUDA is not available")
def test_python_around_tensors_is_traced(function):
    _check(lambda x: {"action": function(x)})


NUMBERS_OF_INPUTS = {
    "item": lambda x: HEAD(x) / x.abs().max().item(),
    "items": lambda x: torch.tensor([x[0, 0].item() * 2, 1.0, x.sum().item()])[None] * x[:, :3],
    "tolist": lambda x: sum(x[0].tolist()) * x + torch.tensor(x[0].tolist())[None],
    "larger of two": lambda x: x * max(x[0, 0].item(), 0.0),
    "known one": lambda x: x * torch.ones_like(x).sum().item(),
    "bounds": lambda x: torch.clamp(x, -x[0, 0].abs().item(), x[0, 0].abs().item()),
    "whole number": lambda x: x * (x > 0).sum().item(),
}


PLACES_OF_INPUTS = {  # of x [1,8], which becomes y [4,3,2,5]; the largest of some numbers is at i, minus another at -j
    "beside a row": lambda y, i, j: y[:, i, torch.arange(2)],
    "at the front": lambda y, i, j: y[i, :, torch.tensor([[1], [0]])],
    "counted from the end": lambda y, i, j: y[-1 - j, ..., torch.arange(3)],
    "two of them": lambda y, i, j: y[i, None, j, torch.arange(2), 1:],
    "behind a mask": lambda y, i, j: y[torch.tensor([True, False, True, True]), i, j],
}


@pytest.mark.parametrize("name", PLACES_OF_INPUTS)
def test_a_number_of_inputs_is_a_place_beside_others(name):
    def function(x):
        y = torch.linspace(-1, 1, 120).reshape(4, 3, 2, 5) * x.sum()
        return {"action": PLACES_OF_INPUTS[name](y, x[0, :3].argmax(), (x[0, 3] > 0).long()).reshape(1, -1)}

    _check(function)


@pytest.mark.parametrize("name", NUMBERS_OF_INPUTS)
def test_one_computes_with_numbers_of_inputs(name):
    _check(lambda x: {"action": NUMBERS_OF_INPUTS[name](x)})


def branched(x):
    if x[0, 0].item() > 0:
        return x * 1
    return x * 2


def asserted_in_python(x):
    assert not torch.isnan(x).any(), "no number"
    return x + 0


@pytest.mark.parametrize(("function", "fix"), [
    (branched, "compute every case"), (asserted_in_python, "leave the assertion out"),
    (lambda x: x * float(x[0, 0]), "keep it a tensor"), (lambda x: x * math.sin(x[0, 0]), "keep it a tensor"),
    (lambda x: x[:, :int(x.sum())], "compute every case"), (lambda x: x[:, :(x > 0).sum().item()], "use fixed shapes")])
def test_what_numbers_of_inputs_decide_is_refused(function, fix):
    with pytest.raises(CaptureError, match=fix):
        _check(lambda x: {"action": function(x)})


def test_assertions_about_inputs_are_named_among_the_notes():
    inputs = {"x": torch.randn(1, 8)}
    policy = Policy("asserted", lambda x: {"action": asserted(x)}, {"x": Source("observation")}, inputs)
    assert capture(policy).notes == ('the assertion "no number" about values of inputs is not checked on a robot',)


def test_numpys_functions_that_torch_does_not_have_are_refused_with_their_line():
    with pytest.raises(CaptureError, match="cannot be traced") as error:
        _check(lambda x: {"action": torch.from_numpy(np.unwrap(x.numpy()))})
    assert "test_export.py" in error.value.where and "unwrap" in error.value.why


def test_the_first_reason_is_told_if_neither_way_works():
    def infer(x):
        if torch.compiler.is_compiling():
            raise ValueError("the first")
        return {"action": x if x.sum() > 0 else -x}

    with pytest.raises(CaptureError, match="the first"):
        _check(infer)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_trace_without_views_that_are_written_into_is_not_run_again(monkeypatch):
    """`relu_` and `x += y` on fresh results, and ops that PyTorch calls by other names, are rewritten node by node; a
    write through a view is left to PyTorch. Both give the same numbers."""
    again: list[int] = []
    decompose = torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions",
                        lambda self, table: again.append(1) or decompose(self, table))
    net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3, padding=1), torch.nn.BatchNorm1d(4), torch.nn.ReLU(inplace=True),
                              torch.nn.Dropout(0.5), torch.nn.Flatten()).eval()
    net[1].running_mean.uniform_()
    net[1].running_var.uniform_(1, 2)

    def plain(x):
        y = net(x[:, None]).unflatten(1, (4, 8)).mT.contiguous()
        z = y * 2
        z += y
        z += z.mean()
        return {"action": z.movedim(1, 2).narrow(1, 1, 2).to(torch.float64).flatten(1).expand_as(torch.zeros(3, 16))}

    def in_modes(x):
        with torch.autocast("cuda", dtype=torch.float16), torch.enable_grad():
            y = x * 2
            with torch.autocast("cpu", enabled=False):
                first, second, last = HEAD(y).chunk(3, -1)
            z = first.to(torch.float64, copy=True)
        z += last.to(device="cpu", dtype=torch.float64).sum()
        return {"action": torch.cat([z, second, first], -1)}

    for function in (plain, in_modes):
        _check(function)
        assert not again

    def in_half_precision(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return {"action": HEAD(x).float()}

    def through_a_view(x):
        y = x * 2
        y[:, 1:3] += 1
        return {"action": HEAD(y)}

    for function in (in_half_precision, through_a_view):
        _check(function)
        assert again
        again.clear()


@pytest.mark.parametrize("combine", [
    torch.cartesian_prod, lambda a, b: torch.block_diag(a[None], b[None]),
    lambda a, b: torch.broadcast_tensors(a[:, None], b[None])[1], lambda a, b: torch.vstack([a, b]),
    lambda a, b: torch.einsum("i,j->ij", a, b), lambda a, b: torch.meshgrid(a, b, indexing="ij")[0]])
def test_functions_of_several_tensors_are_traced(combine):
    _check(lambda x: {"action": combine(x[0, :4], x[0, 4:] * 2).reshape(1, 1, -1)})
