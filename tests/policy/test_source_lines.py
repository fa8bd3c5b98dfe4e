"""Of a failure within a library, the line of the policy's own file that called it."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.first_calls import check_calls
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.source_lines import call_line
from vlart.errors import CaptureError, SourceError

LIBRARY = """
import torch

def drawn(shape):
    return torch.randn(shape)

def chosen(x):
    if x.sum() > 0:
        return x
    return -x

def failing(x):
    raise ValueError("no such scheduler")
"""


@pytest.fixture
def library(tmp_path):
    """A module where packages are installed."""
    file = tmp_path / "site-packages" / "sampling" / "drawing.py"
    file.parent.mkdir(parents=True)
    file.write_text(LIBRARY)
    spec = importlib.util.spec_from_file_location("sampling_drawing", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def _policy(function) -> Policy:
    return Policy("p", lambda x: {"action": function(x)}, {"x": Source("observation")}, {"x": torch.ones(1, 8)})


def test_a_draw_has_the_line_that_called_the_library(library):
    with pytest.raises(CaptureError, match="drawn inside") as error:
        capture(_policy(lambda x: x + library.drawn(x.shape)))  # the caller
    assert "test_source_lines.py" in error.value.where and "# the caller" in error.value.where
    assert "(in sampling/drawing.py:5: return torch.randn(shape))" in error.value.where


def test_a_branch_has_the_line_that_called_the_library(library):
    with pytest.raises(CaptureError, match="decides what is computed") as error:
        capture(_policy(lambda x: library.chosen(x)))  # noqa: PLW0108  the caller
    assert "the caller" in error.value.where and "(in sampling/drawing.py:8: if x.sum() > 0:)" in error.value.where


def test_what_a_library_raises_has_the_line_that_called_it(library):
    with pytest.raises(SourceError, match="fails with its own example inputs") as error:
        check_calls(_policy(lambda x: library.failing(x)))  # noqa: PLW0108  the caller
    assert "the caller" in error.value.where and "sampling/drawing.py:13" in error.value.where


def test_a_line_of_ones_own_stands_alone():
    own, lib = ("/home/a/policy/act.py", 3, "f(x)"), ("/usr/lib/site-packages/diffusers/step.py", 9, "g(x)")
    assert call_line([own]) == call_line([lib, own]) == "policy/act.py:3: f(x)"
    assert call_line([lib]) == "diffusers/step.py:9: g(x)"
    assert call_line([own, lib]) == "policy/act.py:3: f(x) (in diffusers/step.py:9: g(x))"
    assert call_line([]) == ""
