"""A policy that speaks its action as tokens: transformers' Llama behind an image, decoded greedily with a key/value
cache, against transformers' own generate()."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples.policies import EVERY_STAGE
from vlacompile.frontends.decoding import greedy
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.quiet import quiet

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["huggingface"].is_here(),
                                reason="needs the environment huggingface: make test-huggingface")
TOKENS, TEXT, VOCABULARY, WIDTH = 7, 8, 128, 64


class TokenPolicy(torch.nn.Module):
    """Patches of one image first, then the instruction, then seven action tokens."""

    def __init__(self):
        super().__init__()
        with quiet():
            from transformers import LlamaConfig, LlamaForCausalLM

            config = LlamaConfig(hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                                 num_key_value_heads=2, vocab_size=VOCABULARY, eos_token_id=None, pad_token_id=0)
            self.llm = LlamaForCausalLM(config)
        self.see = torch.nn.Conv2d(3, WIDTH, 8, 8)

    def prompt(self, image: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        patches = self.see(image.permute(0, 3, 1, 2).float() / 255).flatten(2).transpose(1, 2)
        return torch.cat([patches, self.llm.get_input_embeddings()(tokens)], 1)

    def forward(self, image, tokens, mask):
        def decoder(embeddings, added, positions, cache):
            return self.llm.model(inputs_embeds=embeddings, attention_mask=added, position_ids=positions,
                                  past_key_values=cache, use_cache=True).last_hidden_state

        prompt = self.prompt(image, tokens)
        whole = torch.cat([torch.ones(1, prompt.shape[1] - TEXT, dtype=torch.bool), mask], 1)
        return {"action_tokens": greedy(decoder, self.llm.get_input_embeddings(), self.llm.lm_head, prompt,
                                        whole, TOKENS)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "every.toml").write_text(EVERY_STAGE, encoding="utf-8")
    torch.manual_seed(3)
    model = TokenPolicy().eval().requires_grad_(False)
    sources = {"image": vc.Source("observation"), "tokens": vc.Source("task"), "mask": vc.Source("task")}
    policy = vc.Policy("tokens", model, sources, observation(0), outputs=("action_tokens",))
    return model, vc.build(policy, recipe=str(folder / "every.toml"), out=folder / "a.vlab")


def observation(seed: int, words: int = 5) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(TEXT)[None] < words
    return {"image": torch.randint(0, 256, (1, 32, 32, 3), generator=draw, dtype=torch.uint8),
            "tokens": torch.randint(1, VOCABULARY, (1, TEXT), generator=draw) * mask, "mask": mask}


def generated(model: TokenPolicy, seen: dict[str, torch.Tensor]) -> np.ndarray:
    words = int(seen["mask"].sum())
    prompt = model.prompt(seen["image"], seen["tokens"][:, :words])
    with quiet():
        return model.llm.generate(inputs_embeds=prompt, attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long),
                                  max_new_tokens=TOKENS, do_sample=False).numpy()


def test_tokens_are_those_of_generate(built):
    model, bundle = built
    spoken = []
    with vc.Session(bundle.path) as session:
        for seed, words in ((0, 5), (1, 8), (2, 1), (3, 6), (4, 6)):
            seen = observation(seed, words)
            for name, tensor in seen.items():
                session.write(name, tensor.numpy())
            session.step()
            want = generated(model, seen)
            assert np.array_equal(session.read("action_tokens"), want)
            spoken.append(tuple(want[0]))
    assert len(set(spoken)) > 2 and len(set(spoken[0])) > 2, "the tokens must differ, or nothing was shown"


def test_decoding_is_one_loop_with_the_cache_carried(built):
    _, bundle = built
    step = next(s for s in bundle.plan.stages if s.name == "step")
    assert step.iterations == TOKENS - 1
    # keys and values of three layers, the last token, and the tokens so far
    assert len(step.carries) == 2 * 3 + 2


class Generating(TokenPolicy):
    """transformers' own generate(), whose cache grows by concatenation."""

    def forward(self, image, tokens, mask):
        return {"action_tokens": self.llm.generate(inputs_embeds=self.prompt(image, tokens), do_sample=False,
                                                   max_new_tokens=TOKENS)}


class Growing(TokenPolicy):
    """A loop around the model, with transformers' cache that grows and a list of tokens."""

    def forward(self, image, tokens, mask):
        with quiet():
            from transformers import DynamicCache

        embeddings, cache, ids = self.prompt(image, tokens), DynamicCache(config=self.llm.config), []
        for _ in range(TOKENS):
            logits = self.llm(inputs_embeds=embeddings, past_key_values=cache, use_cache=True).logits
            ids.append(logits[:, -1].argmax(-1, keepdim=True))
            embeddings = self.llm.get_input_embeddings()(ids[-1])
        return {"action_tokens": torch.cat(ids, 1)}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [Generating, Growing])
def test_a_cache_that_grows_becomes_one_loop(make, attention, tmp_path):
    (tmp_path / "every.toml").write_text(EVERY_STAGE, encoding="utf-8")
    torch.manual_seed(3)
    model = make().eval().requires_grad_(False)
    model.llm.set_attn_implementation(attention)
    sources = {"image": vc.Source("observation"), "tokens": vc.Source("task"), "mask": vc.Source("task")}
    policy = vc.Policy("tokens", model, sources, observation(0, TEXT), outputs=("action_tokens",))
    bundle = vc.build(policy, recipe=str(tmp_path / "every.toml"), out=tmp_path / "a.vlab")
    assert [s.iterations for s in bundle.plan.stages if s.iterations > 1] == [TOKENS - 1]
    spoken = set()
    with vc.Session(bundle.path) as session:
        for seed in range(5):
            seen = observation(seed, TEXT)
            for name in bundle.plan.source_names():
                session.write(name, seen[name].numpy())
            session.step()
            assert np.array_equal(session.read("action_tokens"), generated(model, seen))
            spoken.add(tuple(session.read("action_tokens")[0]))
    assert len(spoken) > 2, "the control"
