"""T5 (Raffel et al. 2020, arXiv 1910.10683): encoder and decoder of its first version, with ReLU; weights named as in
transformers' T5 classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.transformer import RmsNorm

EPS, BUCKETS, FARTHEST = 1e-6, 32, 128


@dataclass(frozen=True)
class T5Sizes:
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    vocabulary: int = 32128

    @property
    def dim(self) -> int:
        return self.width // self.heads


def buckets(queries: torch.Tensor, keys: torch.Tensor, both_ways: bool) -> torch.Tensor:
    """Bucket i64 [n,m] of each distance between positions: one each for near ones, logarithmic ones up to 128."""
    distance = keys[None, :] - queries[:, None]
    count = BUCKETS // 2 if both_ways else BUCKETS
    side = (distance > 0).long() * count if both_ways else torch.zeros_like(distance)
    distance = distance.abs() if both_ways else (-distance).clamp(min=0)
    near = count // 2
    far = near + (torch.log(distance.clamp(min=1).float() / near) / math.log(FARTHEST / near) * (count - near)).long()
    return side + torch.where(distance < near, distance, far.clamp(max=count - 1))


class T5Attention(nn.Module):
    """Without scaling. biased: whether it has the table of relative positions, which the others of its stack use."""

    def __init__(self, sizes: T5Sizes, biased: bool):
        super().__init__()
        self.heads = sizes.heads
        self.q, self.k, self.v, self.o = (nn.Linear(sizes.width, sizes.width, bias=False) for _ in range(4))
        if biased:
            self.relative_attention_bias = nn.Embedding(BUCKETS, sizes.heads)

    def bias(self, queries: torch.Tensor, keys: torch.Tensor, both_ways: bool) -> torch.Tensor:
        """What is added to the scores, f32 [1,heads,n,m]"""
        return self.relative_attention_bias(buckets(queries, keys, both_ways)).permute(2, 0, 1)[None]

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(1, x.shape[1], self.heads, -1).transpose(1, 2)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """q, k, v [1,heads,n,d] -> [1,n,width]"""
        scores = q @ k.transpose(2, 3)
        weights = torch.softmax(scores if bias is None else scores + bias, -1)
        return self.o((weights @ v).transpose(1, 2).reshape(1, q.shape[2], -1))


class _Feed(nn.Module):
    def __init__(self, sizes: T5Sizes):
        super().__init__()
        self.DenseReluDense = nn.ModuleDict({"wi": nn.Linear(sizes.width, sizes.hidden, bias=False),
                                             "wo": nn.Linear(sizes.hidden, sizes.width, bias=False)})
        self.layer_norm = RmsNorm(sizes.width, EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.DenseReluDense
        return x + inner["wo"](F.relu(inner["wi"](self.layer_norm(x))))


class _Attend(nn.Module):
    def __init__(self, sizes: T5Sizes, name: str, biased: bool):
        super().__init__()
        self.add_module(name, T5Attention(sizes, biased))
        self.layer_norm = RmsNorm(sizes.width, EPS)


class _Block(nn.Module):
    def __init__(self, sizes: T5Sizes, first: bool, crossed: bool):
        super().__init__()
        cross = [_Attend(sizes, "EncDecAttention", False)] if crossed else []
        self.layer = nn.ModuleList([_Attend(sizes, "SelfAttention", first), *cross, _Feed(sizes)])


class T5Stack(nn.Module):
    def __init__(self, sizes: T5Sizes, crossed: bool):
        super().__init__()
        self.block = nn.ModuleList(_Block(sizes, i == 0, crossed) for i in range(sizes.depth))
        self.final_layer_norm = RmsNorm(sizes.width, EPS)

    @property
    def relative(self) -> T5Attention:
        return self.block[0].layer[0].SelfAttention


def encode(stack: T5Stack, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """x [1,n,width], mask bool [1,n] -> [1,n,width]"""
    places = torch.arange(x.shape[1])
    bias = stack.relative.bias(places, places, True) + torch.where(
        mask[:, None, None], 0.0, torch.finfo(torch.float32).min)
    for block in stack.block:
        own, feed = block.layer
        at, y = own.SelfAttention, own.layer_norm(x)
        x = feed(x + at.attend(at.split(at.q(y)), at.split(at.k(y)), at.split(at.v(y)), bias))
    return stack.final_layer_norm(x)


class T5Encoder(nn.Module):
    """Of a text alone: token ids i64 [1,n] and their mask bool [1,n] -> [1,n,width]"""

    def __init__(self, sizes: T5Sizes):
        super().__init__()
        self.shared, self.encoder = nn.Embedding(sizes.vocabulary, sizes.width), T5Stack(sizes, False)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return encode(self.encoder, self.shared(tokens), mask)


class T5(nn.Module):
    """Encoder and decoder; the head has the embedding's weights, and its input is scaled."""

    def __init__(self, sizes: T5Sizes):
        super().__init__()
        self.sizes, self.shared = sizes, nn.Embedding(sizes.vocabulary, sizes.width)
        self.encoder, self.decoder = T5Stack(sizes, False), T5Stack(sizes, True)

    def step(self, x: torch.Tensor, here: torch.Tensor, place: torch.Tensor, kept: list, read: torch.Tensor,
             mask: torch.Tensor) -> torch.Tensor:
        """The decoder for one token x [1,1,width] at place [1] -> [1,1,width] for the head.

        here: bool [slots], the slot of the token. kept: per layer the keys and values [1,heads,slots,d] of all tokens,
        renewed in place. read [1,n,width]: what the encoder gave. mask: bool [1,n].
        """
        slots, least = here.shape[0], torch.finfo(torch.float32).min
        places = torch.arange(slots)
        bias = self.decoder.relative.bias(place, places, False)
        bias = torch.where(places <= place, bias, least)
        seen = torch.where(mask[:, None, None], 0.0, least)
        for i, block in enumerate(self.decoder.block):
            own, cross, feed = block.layer
            at, y = own.SelfAttention, own.layer_norm(x)
            kept[i] = tuple(torch.where(here[:, None], at.split(p(y)), old)
                            for p, old in zip((at.k, at.v), kept[i], strict=True))
            x = x + at.attend(at.split(at.q(y)), *kept[i], bias)
            at = cross.EncDecAttention
            x = x + at.attend(at.split(at.q(cross.layer_norm(x))), at.split(at.k(read)), at.split(at.v(read)), seen)
            x = feed(x)
        return self.decoder.final_layer_norm(x) * self.sizes.width**-0.5

    def empty(self, slots: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        zeros = torch.zeros(1, self.sizes.heads, slots, self.sizes.dim)
        return [(zeros, zeros)] * self.sizes.depth
