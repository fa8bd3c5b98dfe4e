"""What leaves the denoising loops of LeRobot's policies, and what leaves them altogether."""

from __future__ import annotations

import re

import pytest

from tests.environments.lerobot.checkpoints import sized, write
from tests.environments.lerobot.test_parity import pytestmark  # noqa: F401  needs the environment lerobot
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.compiler.passes.pass_list import LOOP_PASSES, graph_passes
from vlacompile.compiler.passes.split_tokens_by_rate import SplitTokensByRate
from vlacompile.compiler.staging.find_loop import find_loop
from vlacompile.compiler.staging.stage_account import account
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.phases.load_policy import load_policy
from vlacompile.recipe.recipe import LoopRecipe, Recipe, StagesRecipe

STEPWISE = Recipe("steps", "", StagesRecipe(min_flops=0), loop=LoopRecipe(form="steps"))


def staged(kind: str, folder):
    write(kind, folder)
    with sized(kind, real=False):
        policy = load_policy(folder)
    program = capture(policy, whole=True)
    return policy, program, stage(program, load_target("host"), STEPWISE)


def weights_of(stages, pattern: str) -> set[str]:
    return {n for s in stages for n in s.constants if re.search(pattern, n)}


def test_the_keys_of_the_context_are_computed_once_per_chunk(tmp_path):
    """SmolVLA's odd layers project keys and values of the cached prefix anew in every step as written."""
    _, _, found = staged("smolvla", tmp_path / "p")
    step = [s for s in found.staged.stages if s.iterations == 10]
    before = [s for s in found.staged.stages if s.iterations == 1]
    odd = r"lm_expert__layers__[13579]\d*__self_attn__[kv]_proj"
    assert weights_of(before, odd) and not weights_of(step, odd)
    assert weights_of(step, r"lm_expert__layers__[02468]\d*__self_attn__k_proj"), "those of self-attention stay"
    assert not weights_of([*step, *before], "time_mlp_in_weight$|lm_head")


def test_the_encoder_of_the_training_is_never_read(tmp_path):
    """ACT's VAE encoder."""
    policy, program, found = staged("act", tmp_path / "p")
    unread = account((policy.observe, policy.step), program, found.staged, found.notes).as_dict()["unread"]
    assert any("vae" in name for name in unread) and not weights_of(found.staged.stages, "vae")


@pytest.mark.parametrize(("least_uses", "tokens"), [(16.0, 1), pytest.param(4.0, 0, marks=pytest.mark.full)],
                         ids=["as it pays", "at any price"])
def test_the_state_token_leaves_the_loop_where_that_pays(least_uses, tokens, tmp_path):
    """pi0's state token cannot see the actions. One token in ten steps uses every weight nine times more than once, and
    reading all of them once more costs more than that: by default it stays."""
    policy = write("pi0", tmp_path / "p")
    with sized("pi0", real=False):
        program = capture(load_policy(tmp_path / "p"))
    for p in graph_passes(is_translated, decompositions):
        program = (SplitTokensByRate(least_uses) if isinstance(p, SplitTokensByRate) else p).run(program).program
    found = find_loop(program)
    for p in LOOP_PASSES:
        found_program = p.run(found.program).program
    loop = next(n.target for n in found_program.graph.nodes if isinstance(n.target, RolledLoop))
    assert loop.iterations == 10
    rows = {n.meta["val"].shape[1] for n in loop.body.nodes if "linear" in str(n.target) and n.meta["val"].dim() == 3}
    assert max(rows) == policy.config.chunk_size + tokens
