"""Blocks of the zoo against transformers' modules with the same weights.

The Q-Former is not among them: transformers has none whose queries do not see each other.
"""

from __future__ import annotations

import pytest
import torch

from tests.environments.huggingface.bodies import BODIES, drawn
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.quiet import quiet
from vlacompile.zoo.blocks.gemma3 import Gemma3, Gemma3Sizes
from vlacompile.zoo.blocks.language_model import LanguageSizes
from vlacompile.zoo.blocks.paligemma import PaliGemma, PaliGemmaSizes
from vlacompile.zoo.blocks.siglip import gelu
from vlacompile.zoo.blocks.vision_tower import TowerSizes

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["huggingface"].is_here(),
                                reason="needs the environment huggingface: make test-huggingface")
WIDTH, TOKENS, WINDOW, CLOSE = 32, 20, 6, 2e-5


@torch.no_grad()
@pytest.mark.parametrize("body", BODIES)
def test_a_block_gives_what_transformers_module_gives(body):
    pair = BODIES[body]()
    given, other = pair.inputs(0), pair.inputs(1)
    got, want, else_ = pair.ours(given), pair.theirs(given), pair.theirs(other)
    assert got.shape == want.shape and got.numel()
    assert (got - want).abs().max() < CLOSE * want.abs().max()
    assert (got - else_).abs().max() > 1000 * CLOSE * want.abs().max(), "the inputs decide"


@torch.no_grad()
def test_gemma3_with_windows_is_that_of_transformers():
    with quiet():
        from transformers import Gemma3TextConfig, Gemma3TextModel

        original = drawn(Gemma3TextModel(Gemma3TextConfig(
            vocab_size=100, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=6, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, sliding_window=WINDOW, query_pre_attn_scalar=8,
            rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                             "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}})))
    ours = Gemma3(Gemma3Sizes(WIDTH, 6, 4, 2, 8, 64, WINDOW)).eval()
    lacks = ours.load_state_dict(original.state_dict(), strict=False)
    assert not lacks.missing_keys and lacks.unexpected_keys == ["embed_tokens.weight"]
    x, places = torch.randn(1, TOKENS, WIDTH), torch.arange(TOKENS)[None]
    want = original(inputs_embeds=x).last_hidden_state
    got, _ = ours.run(x, torch.ones(1, TOKENS, TOKENS, dtype=torch.bool).tril(), places, places)
    assert (got - want).abs().max() < CLOSE * want.abs().max()
    wider, _ = Gemma3.run(ours, x, torch.ones(1, TOKENS, TOKENS, dtype=torch.bool), places, places)
    assert (wider - want).abs().max() > 100 * CLOSE, "a mask that is not causal gives something else"


@torch.no_grad()
def test_paligemma_reads_a_picture_and_writes_greedily_as_that_of_transformers():
    with quiet():
        from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

        text = {"model_type": "gemma", "hidden_size": WIDTH, "num_hidden_layers": 2, "intermediate_size": 64,
                "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 100}
        vision = {"model_type": "siglip_vision_model", "intermediate_size": 48, "hidden_size": 24, "patch_size": 14,
                  "image_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4, "vision_use_head": False}
        original = drawn(PaliGemmaForConditionalGeneration(PaliGemmaConfig(
            text_config=text, vision_config=vision, projection_dim=WIDTH, image_token_id=99)))
    ours = PaliGemma(PaliGemmaSizes(TowerSizes(24, 2, 4, 48, 14, 28), LanguageSizes(
        WIDTH, 2, 4, 1, 64, 100, 8, plus_one=True, activation=gelu))).eval()
    weights = {n.removeprefix("model."): t for n, t in original.state_dict().items()}
    if not any(n.startswith("vision_tower.vision_model") for n in weights):
        weights = {n.replace("vision_tower.", "vision_tower.vision_model."): t for n, t in weights.items()}
    lacks = ours.load_state_dict(weights, strict=False)
    assert not lacks.missing_keys and set(lacks.unexpected_keys) <= {"lm_head.weight"}
    pixels, ids = torch.rand(1, 3, 28, 28) * 2 - 1, torch.tensor([[2, 7, 30, 41, 5]])
    whole = torch.cat([torch.full((1, 4), 99), ids], 1)
    want = original.generate(input_ids=whole, attention_mask=torch.ones_like(whole), pixel_values=pixels,
                             token_type_ids=torch.zeros_like(whole), max_new_tokens=6, do_sample=False,
                             eos_token_id=1)[0, whole.shape[1]:]
    prefix = torch.cat([ours.see(pixels), ours.embed(ids)], 1)
    got = ours.write(prefix, torch.ones(1, 9, dtype=torch.bool), 6)[0]
    assert torch.equal(got[: len(want)], want)
