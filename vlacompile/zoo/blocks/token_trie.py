"""Continuations of a prompt, scored in one pass instead of generated: a trie of their tokens, of which each sees the
prompt and the tokens that it follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.transformer import added
from vlacompile.zoo.blocks.language_model import LanguageModel, causal


@dataclass(frozen=True)
class Trie:
    """tokens, parents: of the nodes, parents first; -1: the node follows the prompt. paths: of each continuation the
    nodes from the first token to the last."""

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]


def trie(continuations: Sequence[Sequence[int]]) -> Trie:
    nodes: dict[tuple[int, ...], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    paths = []
    for continuation in continuations:
        path = []
        for end in range(1, len(continuation) + 1):
            beginning = tuple(continuation[:end])
            if beginning not in nodes:
                nodes[beginning] = len(tokens)
                tokens.append(continuation[end - 1])
                parents.append(nodes.get(beginning[:-1], -1))
            path.append(nodes[beginning])
        paths.append(tuple(path))
    return Trie(tuple(tokens), tuple(parents), tuple(paths))


class TrieScores(nn.Module):
    """power: of a continuation's length, by which its sum of log-probabilities is divided; 0: the sum. Probabilities
    are among the tokens of the trie. A node that nothing follows is scored and not computed."""

    def __init__(self, continuations: Sequence[Sequence[int]], power: float = 0.0):
        super().__init__()
        made = trie(continuations)
        inner = sorted({p for p in made.parents if p >= 0})  # nodes that are followed
        row = {-1: 0} | {node: i + 1 for i, node in enumerate(inner)}
        kinds = sorted(set(made.tokens))
        sees = torch.eye(len(inner), dtype=torch.bool)
        depth = [0] * len(inner)
        for i, node in enumerate(inner):
            if made.parents[node] >= 0:
                parent = row[made.parents[node]] - 1
                sees[i] |= sees[parent]
                depth[i] = depth[parent] + 1
        weights = torch.zeros(len(made.paths), len(made.tokens))
        for i, path in enumerate(made.paths):
            weights[i, list(path)] = len(path) ** -power
        for name, value in {
                "tokens": [made.tokens[n] for n in inner], "kinds": kinds, "depth": depth,
                "after": [row[p] for p in made.parents], "kind": [kinds.index(t) for t in made.tokens]}.items():
            self.register_buffer(name, torch.tensor(value), persistent=False)
        self.register_buffer("sees", sees, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, model: LanguageModel, head: nn.Module, prompt: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """prompt i64 [1,n] padded on the right, mask bool [1,n] -> sums of log-probabilities f32 [1,continuations]."""
        (length, nodes), count = (prompt.shape[1], self.tokens.shape[0]), mask.sum(-1, keepdim=True)
        within, places = causal(mask)
        seen = added(torch.cat([mask.expand(nodes, length), self.sees], 1)[None])
        visible = torch.cat([F.pad(within, (0, nodes), value=torch.finfo(torch.float32).min), seen], 2)
        x = model.embed_tokens(torch.cat([prompt, self.tokens[None]], 1))
        hidden = model(x, visible, torch.cat([places, count + self.depth], 1))
        last = (torch.arange(length) == count - 1).to(hidden.dtype)[:, None] @ hidden[:, :length]
        logits = head(torch.cat([last, hidden[:, length:]], 1))[..., self.kinds]
        known = torch.log_softmax(logits, -1)[0]
        return (known[self.after, self.kind] @ self.weights.T)[None]
