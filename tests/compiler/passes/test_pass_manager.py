"""What the pass manager refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch.fx import Graph, Node

from vlacompile.compiler.graph.invariants import ATTENTION_4D, DISTINCT_OUTPUTS, INITIALISED, NO_COMMON_SUBEXPRESSIONS
from vlacompile.compiler.graph.program import Program, ProgramEditor, execute, infer_val
from vlacompile.compiler.passes.drop_identities import DropIdentities
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.initialise_empty import InitialiseEmpty
from vlacompile.compiler.passes.pass_manager import run_passes, verified
from vlacompile.policy.policy import Source
from vlart.errors import PassError

ATEN = torch.ops.aten


def program() -> Program:
    """action = relu(a + b) * w, sum = a + b"""
    graph = Graph()
    a, b, w = graph.placeholder("a"), graph.placeholder("b"), graph.get_attr("w")
    for node in (a, b, w):
        node.meta["val"] = torch.empty(1, 4, device="meta")

    def call(name: str, target, *args: Node) -> Node:
        node = graph.create_node("call_function", target, args, name=name)
        node.meta["val"] = infer_val(node)
        return node

    added = call("add", ATEN.add.Tensor, a, b)
    scaled = call("mul", ATEN.mul.Tensor, call("relu", ATEN.relu.default, added), w)
    graph.output((scaled, added))
    return Program("small", graph, {"w": torch.ones(1, 4)}, {"a": Source("task"), "b": Source("observation")},
                   {"a": "a", "b": "b"}, ("action", "sum"), frozenset({"w"}))


@dataclass(frozen=True)
class Rewrite(GraphPass):
    """What a test gives it to do to a copy of the program."""

    change: Callable[[Program], Program]
    says: bool = True

    def run(self, program: Program) -> PassResult:
        editor = ProgramEditor(program)
        for node in program.graph.nodes:
            if node.op != "output":
                editor.copy(node)
        return PassResult(self.change(editor.finish()), self.says)


class MayLose(Rewrite):
    may_change = frozenset({Effect.FEWER_DEPENDENCIES, Effect.OUTPUT_TYPES})


class Establishes(Rewrite):
    ensures = frozenset({INITIALISED})


class Keeps(Rewrite):
    destroys = frozenset()


class Needs(Rewrite):
    requires = frozenset({DISTINCT_OUTPUTS})


def node_of(program: Program, name: str):
    return next(n for n in program.graph.nodes if n.name == name)


def reading(name: str, *operands: str) -> Callable[[Program], Program]:
    """An op reads other operands."""
    def change(p: Program) -> Program:
        node_of(p, name).args = tuple(node_of(p, o) for o in operands)
        return p
    return change


def calling(name: str, target) -> Callable[[Program], Program]:
    def change(p: Program) -> Program:
        node_of(p, name).target = target
        return p
    return change


def typed(name: str, val: torch.Tensor | None) -> Callable[[Program], Program]:
    def change(p: Program) -> Program:
        node_of(p, name).meta = {} if val is None else {"val": val}
        return p
    return change


def returning(*names: str) -> Callable[[Program], Program]:
    def change(p: Program) -> Program:
        p.graph.output_node().args = (tuple(node_of(p, n) for n in names),)
        return p
    return change


def late(p: Program) -> Program:
    node_of(p, "add").prepend(node_of(p, "relu"))
    return p


HALF, LONG = torch.empty(1, 4, dtype=torch.float16, device="meta"), torch.empty(1, 5, device="meta")
BROKEN = {
    "it says that it changed the program, and did not": Rewrite(lambda p: p),
    "it says that it changed nothing, and did": Rewrite(calling("relu", ATEN.tanh.default), says=False),
    "%relu reads %add, which is not computed before it": Rewrite(late),
    '%w reads the constant "v", which there is not': Rewrite(calling("w", "v")),
    'the weight "v" is no constant': Rewrite(lambda p: replace(p, parameters=frozenset({"v", "w"}))),
    "2 outputs are named, 1 are returned": Rewrite(returning("mul")),
    "%a is the value of no source": Rewrite(lambda p: replace(p, inputs={"b": "b"})),
    "%relu has no type": Rewrite(typed("relu", None)),
    "%w is said to be f32[1,5] and is f32[1,4]": Rewrite(typed("w", LONG)),
    "%relu is said to be f32[1,5] and is f32[1,4]": Rewrite(typed("relu", LONG)),
    "the outputs were action, sum and are sum, action": Rewrite(lambda p: replace(p, outputs=("sum", "action"))),
    "the sources were a, b and are b, a": Rewrite(lambda p: replace(p, sources=dict(reversed(p.sources.items())))),
    'the source "b" was f32[1,4] and is f16[1,4]': Rewrite(typed("b", HALF)),
    'the output "action" no longer depends on a': Rewrite(reading("add", "b", "b")),
    'the output "action" depends on b, and did not': Rewrite(reading("add", "a", "b")),
    "it ensures INITIALISED (no tensor is without content), and gives %relu = empty_like(...) f32[1,4]":
        Establishes(calling("relu", ATEN.empty_like.default)),
    "it requires DISTINCT_OUTPUTS (every output is computed, and is no other output), and was given "
    '"action" and "sum" are both %add':
        Needs(calling("relu", ATEN.tanh.default)),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_pass_that_does_not_keep_its_contract_is_named(why):
    before = program()
    if "and did not" in why and "depends" in why:
        before = reading("add", "a", "a")(before)
    if "requires" in why:
        before = returning("add", "add")(before)
    broken = BROKEN[why]
    with verified("full"), pytest.raises(PassError) as raised:
        run_passes(before, (DropIdentities(), InitialiseEmpty(), broken, DropIdentities()))
    assert raised.value.why.startswith(why)
    assert raised.value.where == f"pass {broken.name}, after DropIdentities, InitialiseEmpty"
    assert len(str(raised.value).splitlines()) == 4


IN_PLACE = {
    "an op": lambda p: setattr(node_of(p, "relu"), "target", ATEN.tanh.default),
    "operands": lambda p: setattr(node_of(p, "relu"), "args", (node_of(p, "a"),)),
    "a type": lambda p: node_of(p, "relu").meta.update(val=LONG),
    "an output": returning("add", "mul"),
    "the numbers of a constant": lambda p: p.constants["w"].mul_(2),
    "a constant": lambda p: p.constants.update(w=torch.zeros(1, 4)),
    "a source": lambda p: p.sources.update(a=Source("observation")),
    "a node more": lambda p: p.graph.call_function(ATEN.relu.default, (node_of(p, "a"),)),
}


@pytest.mark.parametrize("how", ["types", "full"])
@pytest.mark.parametrize("what", IN_PLACE)
def test_a_pass_that_changes_its_argument_is_named(what, how):
    class InPlace(GraphPass):
        def run(self, program: Program) -> PassResult:
            IN_PLACE[what](program)
            return PassResult(program, False)

    with verified(how), pytest.raises(PassError, match="it changes the program that it is given") as raised:
        run_passes(program(), (InPlace(),))
    assert raised.value.where == "pass InPlace, the first one"


def test_a_pass_that_crashes_is_named():
    class Crashes(GraphPass):
        def run(self, program: Program) -> PassResult:
            return PassResult(program, bool({}["weight"]))

    class GivesNothing(GraphPass):
        def run(self, program: Program) -> PassResult:
            """Forgets to return."""

    with pytest.raises(PassError, match="KeyError: 'weight'") as raised:
        run_passes(program(), (DropIdentities(), Crashes()))
    assert raised.value.where == "pass Crashes, after DropIdentities"
    assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(PassError, match="it gives a NoneType, no PassResult"):
        run_passes(program(), (GivesNothing(),))


def test_what_a_pass_may_change_it_may():
    lost = MayLose(reading("add", "b", "b"))
    after, _ = run_passes(program(), (lost, MayLose(calling("relu", ATEN.tanh.default))))
    assert execute(after, {"a": torch.ones(1, 4), "b": torch.full((1, 4), 2.0)})[0]["sum"].tolist() == [[4.0] * 4]


def test_what_was_established_stays_until_a_pass_says_that_it_destroys_it():
    class Reopens(Rewrite):
        destroys = frozenset({INITIALISED})

    before = calling("relu", ATEN.empty_like.default)(program())
    emptied, tanh = calling("relu", ATEN.empty_like.default), calling("relu", ATEN.tanh.default)
    assert "does not say that it destroys INITIALISED" in refused(before, Establishes(tanh), Keeps(emptied))
    after, _ = run_passes(before, (Establishes(tanh), Reopens(emptied)))
    assert INITIALISED.breach(after) == "%relu = empty_like(...) f32[1,4]"


def refused(before: Program, *passes: GraphPass) -> str:
    with verified("full"), pytest.raises(PassError) as raised:
        run_passes(before, passes)
    return raised.value.why


def test_a_build_checks_what_a_walk_over_the_nodes_can_tell():
    """Not the types that ops give, nor values that are there twice."""
    class Merges(Rewrite):
        ensures, destroys = frozenset({NO_COMMON_SUBEXPRESSIONS}), frozenset()

    wrong, twice = Rewrite(typed("relu", LONG)), Merges(calling("relu", ATEN.tanh.default))
    with verified("types"):
        run_passes(program(), (wrong,))
        with pytest.raises(PassError, match="has no type"):
            run_passes(program(), (Rewrite(typed("relu", None)),))
    assert "is said to be" in refused(program(), wrong)
    with verified("full"):
        run_passes(program(), (twice,))


def test_invariants_have_names_and_say_what_they_mean():
    assert str(ATTENTION_4D) == "ATTENTION_4D (attentions have four dimensions)"
    assert ATTENTION_4D.breach(program()) is None
