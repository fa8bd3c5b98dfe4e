"""Programs that take inputs from the step before: their runs in PyTorch, and their stages."""

from __future__ import annotations

import torch

import vlacompile as vc
from tests.samples.carrying import WIDTH, Reference, carrying
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.carried import carried_in, end_lifetimes, written_in
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.recipe import load_recipe


def staged(policy: vc.Policy):
    return stage(capture(policy), load_target("host"), load_recipe("default")).staged


def test_the_program_and_its_stages_carry_what_the_function_does():
    policy, reference = carrying(), Reference()
    program, found = capture(policy), staged(policy)
    runner, past, run = StageRunner(found), {}, {}
    tokens, draw = policy.example_inputs["tokens"], torch.Generator().manual_seed(0)
    for _ in range(5):
        x = torch.randn(1, WIDTH, generator=draw)
        want = reference.step(tokens, x)
        reference.take(tokens, x, want)
        outputs = execute(program, {"tokens": tokens, "x": x}, past=past)[0]
        values = runner.run({"tokens": tokens, "x": x}, run)
        for name, tensor in want.items():
            torch.testing.assert_close(outputs[name], tensor)
            torch.testing.assert_close(values[name], tensor, atol=1e-5, rtol=1e-5)
    assert past.keys() == run.keys() == program.carried.keys()


def test_a_carried_input_that_is_given_is_what_it_is_given():
    policy = carrying()
    program, inputs = capture(policy), dict(policy.example_inputs)
    one = execute(program, inputs)[0]["count.next"]
    other = execute(program, inputs | {"count": torch.tensor([6])})[0]["count.next"]
    assert (int(one), int(other)) == (1, 7)


def test_what_no_carried_value_changes_is_made_by_every_step_all_the_same():
    """The last input is carried on: the stage that gives it runs although only its own input was read."""
    found = staged(carrying())
    carried = carried_in(found.program.sources).keys()
    for value in ("last.next", "mood.begun.next"):
        maker = next(s for s in found.stages if any(p.value == value for p in s.outputs))
        assert not carried.isdisjoint(maker.sources), value
    assert set(written_in(found.program.sources)) == {"tokens", "x"}


def test_another_task_ends_what_lives_until_then():
    program, one, other = capture(carrying()), torch.tensor([[1, 2]]), torch.tensor([[1, 3]])
    for before, now, needed, ended in ((one, other, {"tokens"}, True), (one, one.clone(), {"tokens"}, False),
                                       (one, other, set(), False)):
        past = {name: s.initial for name, s in program.carried.items()}
        end_lifetimes(program.sources, past, {"tokens": before}, {"tokens": now}, needed)
        gone = program.carried.keys() - past.keys()
        assert gone == ({n for n, s in program.carried.items() if s.until == "task"} if ended else set())
