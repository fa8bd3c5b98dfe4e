"""Tokens decoded one after the other with a cache of keys and values, however the cache is kept: PyTorch's own run says
what is right."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.samples.live import worst
from vlacompile.policy.policy import Policy, Source

SEEN, STEPS, WIDTH, WORDS = 5, 4, 16, 24


class Growing:
    def __init__(self):
        self.held = None

    def __call__(self, new, at):
        self.held = new if self.held is None else torch.cat([self.held, new], 1)
        return self.held


class Fixed:
    """Memory for all positions; those that come later are hidden."""

    def __init__(self):
        self.held = torch.zeros(1, SEEN + STEPS, WIDTH)

    def __call__(self, new, at):
        self.write(new, at)
        return self.held


class Sliced(Fixed):
    def write(self, new, at):
        self.held[:, at:at + new.shape[1]] = new


class Copied(Fixed):
    def write(self, new, at):
        self.held.index_copy_(1, torch.arange(at, at + new.shape[1]), new)


class Indexed(Fixed):
    def write(self, new, at):
        self.held[:, torch.arange(at, at + new.shape[1])] = new


class Decoder(nn.Module):
    def __init__(self, cache, sampled: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.cache, self.sampled = cache, sampled
        self.words, self.qkv = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.register_buffer("bins", torch.linspace(-1, 1, WORDS))

    def forward(self, tokens, shown, gumbel):
        keys, values, length = self.cache(), self.cache(), SEEN
        x, at, actions, alive = self.words(tokens), 0, [], torch.ones(1, dtype=torch.bool)
        shown = torch.cat([shown, torch.ones(1, STEPS, dtype=torch.bool)], 1)
        for t in range(STEPS):
            q, k, v = self.qkv(x).chunk(3, -1)
            k, v = keys(k, at), values(v, at)
            before = torch.arange(k.shape[1]) <= torch.arange(at, length)[:, None]
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=before & shown[:, None, :k.shape[1]])
            logits = self.head(x + y)[:, -1]
            if self.sampled:
                logits = logits / 0.7 + gumbel[:, t]
            token = logits.argmax(-1)
            alive = alive & (token != 2)  # the end: nothing is decoded behind it
            token = torch.where(alive, token, torch.zeros_like(token))
            actions.append(self.bins[token])
            x, at, length = self.words(token)[:, None], length, length + 1
        return {"action": torch.stack(actions, 1)[:, None]}


def policy(*how) -> Policy:
    inputs = {"tokens": torch.arange(SEEN)[None] * 5, "shown": torch.arange(SEEN)[None] < 4,
              "gumbel": torch.randn(1, STEPS, WORDS, generator=torch.Generator().manual_seed(1))}
    sources = {n: Source("step" if n == "gumbel" else "task") for n in inputs}
    return Policy("decoder", Decoder(*how).eval(), sources, inputs)


@pytest.mark.parametrize("how", [(Growing,), (Sliced,), (Copied,), (Indexed,), (Growing, True)],
                         ids=["growing", "sliced", "copied", "indexed", "sampled"])
def test_actions_are_those_of_the_tokens(tmp_path, how):
    nothing = {"shown": torch.zeros(1, SEEN, dtype=torch.bool)}
    assert worst(lambda: policy(*how), tmp_path / "p.vlab", extra=(nothing,)) < 1e-6


class Forgetful(Fixed):
    """The control: what is decoded is not written."""

    def write(self, new, at):
        if not at:
            self.held[:, :new.shape[1]] = new


def test_a_cache_that_forgets_gives_other_actions():
    frames = [torch.randn(1, STEPS, WORDS, generator=torch.Generator().manual_seed(s)) for s in range(8)]
    given = dict(policy(Sliced).example_inputs)
    assert any(not torch.equal(policy(Sliced, True).infer(**given | {"gumbel": g})["action"],
                               policy(Forgetful, True).infer(**given | {"gumbel": g})["action"]) for g in frames)
