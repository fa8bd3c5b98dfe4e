"""Autoregressive decoding with a key/value cache of fixed size, so that it can be traced and re-rolled.

The prompt's keys and values are computed once and read by every step; each generated token has a slot of its own.
A decoder with transformers' calling convention (`past_key_values.update(key, value, layer)`) is used unchanged.
Tokens that are drawn take their randomness from a source, so that a replan can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from vlacompile.policy.iterate import iterate
from vlacompile.policy.iterations import iterations

# (embeddings [1,q,d], mask f32 [1,1,q,kv] to be added to the scores, positions [1,q], cache) -> hidden [1,q,d]
Decoder = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, "SlotCache"], torch.Tensor]


class SlotCache:
    """Keys and values [1,heads,n,head_dim] of the prompt, per layer, and of `slots` generated tokens."""

    def __init__(self, slots: int):
        self.slots = slots
        self.prompt: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.made: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.writing: torch.Tensor | None = None  # bool [slots]: slot of the current token; None: the prompt

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.prompt[layer_idx][0].shape[-2] if len(self.prompt) > layer_idx else 0

    def update(self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_, **__) \
            -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys and values of a layer; return those of all tokens so far, including empty slots."""
        if self.writing is None:
            assert len(self.prompt) == layer_idx, "layers come in order, and each once"
            self.prompt.append((key, value))
            batch, heads, _, width = key.shape
            self.made.append((torch.zeros_like(key[:, :, :1].expand(batch, heads, self.slots, width)),) * 2)
            return key, value
        here = self.writing[:, None]
        made = tuple(torch.where(here, new, old) for new, old in zip((key, value), self.made[layer_idx], strict=True))
        self.made[layer_idx] = made
        return tuple(torch.cat([p, m], 2) for p, m in zip(self.prompt[layer_idx], made, strict=True))


def greedy(decoder: Decoder, embed: Callable[[torch.Tensor], torch.Tensor],
           head: Callable[[torch.Tensor], torch.Tensor],
           prompt: torch.Tensor, mask: torch.Tensor, tokens: int) -> torch.Tensor:
    """The most probable tokens [1, tokens] i64 after a causal prompt, one by one.

    embed: ids i64 [1,1] -> [1,1,d]. head: hidden [1,1,d] -> logits [1,1,vocabulary]. prompt: embeddings [1,n,d],
    padded on the right. mask: bool [1,n], the padding mask, true at tokens of the prompt.
    """
    length, cache = prompt.shape[1], SlotCache(tokens - 1)
    places = torch.arange(length)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    causal = (places[None, :] <= places[:, None]) & mask[:, None, :]
    # a padded row attends to itself, so that no softmax is over an empty set
    hidden = decoder(prompt, _added(causal | torch.eye(length, dtype=torch.bool)), positions, cache)
    count = mask.sum(-1, keepdim=True)
    last = (places[None] == count - 1).to(hidden.dtype)[:, None]  # [1,1,n]
    token = head(last @ hidden).argmax(-1)
    here = torch.eye(tokens, dtype=torch.bool)
    so_far = torch.tril(torch.ones(tokens - 1, tokens - 1, dtype=torch.bool))
    steps = torch.arange(tokens - 1)
    out = torch.where(here[0], token, torch.zeros_like(token))
    for k in iterations(tokens - 1):
        cache.writing = here[k, : tokens - 1]
        seen = torch.cat([mask, so_far[k][None]], 1)
        hidden = decoder(embed(token), _added(seen[:, None]), count + steps[k], cache)
        token = head(hidden).argmax(-1)
        out = torch.where(here[k + 1], token, out)
    return out


def up_to_end(decoder: Decoder, embed: Callable[[torch.Tensor], torch.Tensor],
              choose: Callable[[torch.Tensor, int], torch.Tensor], first: torch.Tensor, cache: SlotCache,
              there: torch.Tensor, most: int, end: int, skipped: int = 0) -> torch.Tensor:
    """Tokens i64 [1,most] behind a prompt, one by one: up to `end`, which they contain, and -1 behind it.

    embed: as of `greedy`. choose: (hidden [1,1,d], k) -> token k i64 [1,1]. first: token 0 i64 [1,1]. cache: with the
    prompt's keys and values, and most - 1 slots. there: bool [1,n], which of the prompt is no padding. skipped:
    positions between the prompt and the first token.
    """
    here, steps, count = torch.eye(most, dtype=torch.bool), torch.arange(most), there.sum(-1, keepdim=True)
    so_far = torch.tril(torch.ones(most - 1, most - 1, dtype=torch.bool))

    def step(k: int, state: tuple) -> tuple:
        token, written, made = state
        cache.writing, cache.made = here[k, : most - 1], list(made)
        seen = _added(torch.cat([there, so_far[k][None]], 1)[:, None])
        new = choose(decoder(embed(token), seen, count + (steps[k] + skipped), cache), k + 1)
        new = torch.where(token == end, token, new)  # where the first token is the end already
        return new, torch.where(here[k + 1] & (token != end), new, written), tuple(cache.made)

    written = torch.where(here[0], first, torch.full((1, most), -1))
    if most > 1:
        begin = first, written, tuple(cache.made)
        _, written, _ = iterate(step, begin, most - 1, until=lambda state: state[0] == end)
    return written


def drawn_by_inversion(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The tokens i64 [...] that numbers in [0,1) draw: the first whose cumulated probability exceeds the number.
    logits: [...,vocabulary], divided by the temperature; -inf where a token is not allowed. uniform: [...,1]."""
    reached = torch.softmax(logits, -1).cumsum(-1) <= uniform.clamp(min=0)
    return reached.sum(-1).clamp(max=logits.shape[-1] - 1)


def drawn_with_gumbel(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The same by one number in (0,1) per token of the vocabulary: the largest logit with Gumbel noise on it."""
    inside = uniform.clamp(1e-20, 1 - 1e-7)  # noise at the ends would be infinite
    return (logits - torch.log(-torch.log(inside))).argmax(-1)


def _added(visible: torch.Tensor) -> torch.Tensor:
    """bool [1,q,kv] -> f32 [1,1,q,kv]: 0 where visible, a large negative number elsewhere."""
    return torch.where(visible[:, None], 0.0, torch.finfo(torch.float32).min)
