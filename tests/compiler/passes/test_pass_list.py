"""The list of passes, and the names of what is in it."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import vlacompile.compiler.passes as package
from tests.compiler.passes.examples import EXAMPLES
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.graph.invariants import NO_COMMON_SUBEXPRESSIONS
from vlacompile.compiler.passes.graph_pass import GraphPass
from vlacompile.compiler.passes.pass_list import FUSED_PASSES, LAST_PASSES, LOOP_PASSES, graph_passes

LISTS = (graph_passes(is_translated, decompositions), LOOP_PASSES, FUSED_PASSES, LAST_PASSES)
NO_PASSES = {"__init__", "graph_pass", "pass_list", "pass_manager"}


def test_every_file_is_a_pass_and_every_pass_has_an_example():
    files = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - NO_PASSES
    named = {re.sub(r"(?<!^)(?=[A-Z])", "_", p.name).lower() for p in EXAMPLES}
    assert files == named
    assert {type(p) for passes in LISTS for p in passes} <= {type(p) for p in EXAMPLES}


@pytest.mark.parametrize("p", EXAMPLES, ids=lambda p: p.name)
def test_a_pass_is_a_frozen_dataclass_with_what_it_is_told(p):
    assert isinstance(p, GraphPass) and is_dataclass(p) and type(p).__dataclass_params__.frozen
    assert type(p).__module__.rpartition(".")[2] == re.sub(r"(?<!^)(?=[A-Z])", "_", p.name).lower()
    assert set(vars(p)) == {f.name for f in fields(p)}
    assert not p.ensures & p.destroys and inspect.getdoc(type(p))


def test_what_passes_require_is_established_before_them():
    first, loop, fused, last = LISTS
    assert NO_COMMON_SUBEXPRESSIONS in first[-1].ensures  # what loops are found by
    for between in ((), loop, fused, (*loop, *fused)):
        ensured = frozenset()
        for p in (*first, *between, *last):
            assert p.requires <= ensured, f"{p.name} requires {p.requires - ensured}"
            ensured = ensured - p.destroys | p.ensures
