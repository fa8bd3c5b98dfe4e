"""Small decoders that generate tokens greedily with a cache of keys and values that grows, as most code has it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


@dataclass(frozen=True)
class Shape:
    """positions: "rotary", "learned" or "none". attention: "fused" (scaled_dot_product_attention) or "plain" (products
    and a softmax). masked: a padding mask comes with the prompt, and grows with it."""

    prompt: int = 5
    tokens: int = 5
    layers: int = 2
    heads: int = 4
    groups: int = 2  # of keys and values
    width: int = 32
    words: int = 24
    positions: str = "rotary"
    attention: str = "fused"
    masked: bool = False


class Layer(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape, self.d = shape, shape.width // shape.heads
        self.norm_1, self.norm_2 = nn.RMSNorm(shape.width, eps=1e-6), nn.RMSNorm(shape.width, eps=1e-6)
        self.q = nn.Linear(shape.width, shape.width, bias=False)
        self.k, self.v = (nn.Linear(shape.width, shape.groups * self.d, bias=False) for _ in range(2))
        self.o = nn.Linear(shape.width, shape.width, bias=False)
        self.gate, self.up = (nn.Linear(shape.width, 2 * shape.width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * shape.width, shape.width, bias=False)

    def forward(self, x, rotate, mask, cache):
        h = self.norm_1(x)
        q, k, v = (p(h).unflatten(-1, (-1, self.d)).transpose(1, 2) for p in (self.q, self.k, self.v))
        k, v = cache(rotate(k), v)
        k, v = (self.repeated(t) for t in (k, v))
        x = x + self.o(self.attend(rotate(q), k, v, mask).transpose(1, 2).flatten(2))
        h = self.norm_2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))

    def repeated(self, t):
        batch, groups, length, d = t.shape
        times = self.shape.heads // groups
        return t[:, :, None].expand(batch, groups, times, length, d).reshape(batch, groups * times, length, d)

    def attend(self, q, k, v, mask):
        if self.shape.attention == "fused":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        scores = q @ k.transpose(-2, -1) / self.d ** 0.5
        if mask is not None:
            scores = scores + torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        return torch.softmax(scores, -1) @ v


class Grown:
    """Keys and values so far, one longer with every token."""

    def __init__(self):
        self.k = self.v = None

    def __call__(self, k, v):
        self.k = k if self.k is None else torch.cat([self.k, k], 2)
        self.v = v if self.v is None else torch.cat([self.v, v], 2)
        return self.k, self.v


class Decoder(nn.Module):
    def __init__(self, shape: Shape, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.shape = shape
        self.words = nn.Embedding(shape.words, shape.width)
        self.places = nn.Embedding(shape.prompt + shape.tokens, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm, self.head = nn.RMSNorm(shape.width, eps=1e-6), nn.Linear(shape.width, shape.words, bias=False)
        with torch.no_grad():
            self.head.weight.mul_(4)
        d = shape.width // shape.heads
        angles = torch.arange(shape.prompt + shape.tokens)[:, None] * 100.0 ** (-torch.arange(0, d, 2) / d)
        self.register_buffer("angles", torch.cat([angles, angles], -1))
        self.register_buffer("bins", torch.linspace(-1, 1, shape.words))

    def step(self, x, at, mask, caches):
        """x: [1,n,width] of the tokens from `at` on. Returns the logits of the last."""
        n = x.shape[1]
        if self.shape.positions == "learned":
            x = x + self.places(torch.arange(at, at + n))
        angles = self.angles[at:at + n]

        def rotate(t):
            if self.shape.positions != "rotary":
                return t
            a, b = t.chunk(2, -1)
            return t * angles.cos() + torch.cat([-b, a], -1) * angles.sin()

        seen = torch.arange(at + n) <= torch.arange(at, at + n)[:, None] if n > 1 else None  # one token sees all
        if mask is not None:
            seen = mask[:, None, None] & (True if seen is None else seen)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, rotate, seen, cache)
        return self.head(self.norm(x[:, -1]))

    def forward(self, tokens, image, shown=None):
        prompt = torch.cat([image, self.words(tokens)], 1)
        caches, out, mask = [Grown() for _ in self.layers], [], shown
        token = self.step(prompt, 0, mask, caches).argmax(-1)
        out.append(token)
        for t in range(self.shape.tokens - 1):
            if mask is not None:
                mask = torch.cat([mask, torch.ones(1, 1, dtype=torch.bool)], 1)
            token = self.step(self.words(token)[:, None], self.shape.prompt + t, mask, caches).argmax(-1)
            out.append(token)
        ids = torch.stack(out, 1)
        return {"action": self.bins[ids][:, None], "ids": ids}


class Indexed(Decoder):
    """The steps are those of `vc.iterations`, and the tokens are written into memory for all of them: of such a loop
    three steps are traced."""

    def forward(self, tokens, image, shown=None):
        prompt = torch.cat([image, self.words(tokens)], 1)
        caches, mask, steps = [Grown() for _ in self.layers], shown, self.shape.tokens
        token = self.step(prompt, 0, mask, caches).argmax(-1)
        rows = torch.eye(steps, dtype=torch.bool)
        ids = torch.where(rows[0], token, 0)
        for k in vc.iterations(steps - 1):
            if mask is not None:
                mask = torch.cat([mask, torch.ones(1, 1, dtype=torch.bool)], 1)
            token = self.step(self.words(token)[:, None], self.shape.prompt + k, mask, caches).argmax(-1)
            ids = torch.where(rows[k + 1], token, ids)
        ids = ids[None] if ids.dim() == 1 else ids
        return {"action": self.bins[ids][:, None], "ids": ids}


def decoding(shape: Shape, module: type = Decoder, seed: int = 0) -> vc.Policy:
    """The prompt is an image of three tokens and an instruction."""
    draw = torch.Generator().manual_seed(seed)
    inputs = {"tokens": torch.randint(0, shape.words, (1, shape.prompt - 3), generator=draw),
              "image": torch.randn(1, 3, shape.width, generator=draw)}
    sources = {"tokens": vc.Source("task"), "image": vc.Source("observation")}
    if shape.masked:
        inputs["shown"] = torch.arange(shape.prompt)[None] != 1
        sources["shown"] = vc.Source("task")
    return vc.Policy("decoding", module(shape, seed).eval().requires_grad_(False), sources, inputs,
                     outputs=("action", "ids"))
