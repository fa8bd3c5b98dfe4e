"""The instruction of a LeRobot policy as text: the runtime's ids are those of the checkpoint's own processor."""

from __future__ import annotations

import numpy as np
import pytest

from tests.environments.lerobot.checkpoints import sized, write
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.read import MASK, TOKENS, open_checkpoint, read_policy, texts_of, tokens_of
from vlacompile.tokenize.compile_text import compile_text
from vlart.runtime.tokenizer import RuntimeTokenizer

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
INSTRUCTIONS = ("pick up the red cube", "open the drawer\n", "", "Öffne  die Schublade 12 🤖", "<|im_end|> drop it",
                "put the bowl on the plate " * 30)


@pytest.mark.parametrize("kind", ["pi0", "smolvla"])
def test_ids_are_those_of_the_processor(kind, tmp_path):
    folder = tmp_path / "pretrained_model"
    write(kind, folder)
    with sized(kind, False):
        policy = read_policy(folder)
    text = policy.texts[TOKENS]
    assert text.mask == MASK and set(policy.texts) == {TOKENS}
    runtime = RuntimeTokenizer(compile_text(TOKENS, text).table, text.max_bytes)
    checkpoint, _ = open_checkpoint(folder)
    for instruction in INSTRUCTIONS:
        want = tokens_of(checkpoint, instruction)
        ids, mask = runtime.fill(instruction, want[TOKENS].shape[1])
        np.testing.assert_array_equal(ids, want[TOKENS][0].numpy(), err_msg=instruction)
        np.testing.assert_array_equal(mask, want[MASK][0].numpy(), err_msg=instruction)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["pi05", "groot"])
def test_what_is_spelt_into_the_prompt_stays_with_the_host(kind, tmp_path):
    """The state of pi0.5, the pictures of GR00T."""
    folder = tmp_path / "pretrained_model"
    write(kind, folder)
    assert texts_of(open_checkpoint(folder)[0]) == {}
