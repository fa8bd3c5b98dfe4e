"""The backbone of GR00T N1.7: Qwen3-VL (Cosmos-Reason 2), cut after some of its layers and without the last norm.

The prompt is a chat turn with images before the text, so that all tokens up to the last image are the same for every
instruction: they, the shape of every image and the positions of all tokens are constants. Padding follows the text,
where a causal attention does not see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Pixels:
    """What the image processor does with a frame, from preprocessor_config.json: the sizes it takes, how it scales."""

    patch: int
    merge: int
    least: int  # pixels; a smaller frame grows
    most: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, processor) -> Pixels:
        """processor: transformers' Qwen2VLImageProcessor."""
        size = dict(processor.size)
        return cls(processor.patch_size, processor.merge_size, size["shortest_edge"], size["longest_edge"],
                   processor.rescale_factor, tuple(processor.image_mean), tuple(processor.image_std))

    def size(self, frame: Size) -> Size:
        """To which such a frame is resized (smart_resize of Qwen2-VL)."""
        factor, (height, width) = self.patch * self.merge, frame
        size = (round(height / factor) * factor, round(width / factor) * factor)
        if size[0] * size[1] > self.most:
            beta = math.sqrt(height * width / self.most)
            size = (max(factor, math.floor(height / beta / factor) * factor),
                    max(factor, math.floor(width / beta / factor) * factor))
        elif size[0] * size[1] < self.least:
            beta = math.sqrt(self.least / (height * width))
            size = (math.ceil(height * beta / factor) * factor, math.ceil(width * beta / factor) * factor)
        return size

    def normalised(self, frame: torch.Tensor) -> torch.Tensor:
        """f32 [1,3,H,W] of whole grey levels -> pixel values."""
        mean, std = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (frame * self.scale - mean) / std


class Backbone:
    """vision and language of a Qwen3VLForConditionalGeneration for images of known sizes at known places.

    before: ids of the prompt's tokens up to the last image. frames: size of each image after the processor, in the
    order of the prompt. text: number of tokens after the last image, with padding."""

    def __init__(self, model: nn.Module, before: Sequence[int], frames: Sequence[Size], text: int):
        core = getattr(model, "model", model)
        self.visual, self.language, image = core.visual, core.language_model, model.config.image_token_id
        self.merge, patch = self.visual.spatial_merge_size, self.visual.patch_size
        self.grids = [(h // patch, w // patch) for h, w in frames]
        self.runs = _runs(list(before), image)
        counts = [len(r) for r, is_image in self.runs if is_image]
        if counts != [h * w // self.merge**2 for h, w in self.grids]:
            raise ValueError(f"the prompt has {counts} tokens for images of {frames}")
        self.image = torch.tensor([[i == image for i in before] + [False] * text])
        self.places = torch.tensor(_places(self.runs, [(h // self.merge, w // self.merge) for h, w in self.grids],
                                           text))[:, None]
        self.sums = [_interpolation(g, self.visual.num_grid_per_side) for g in self.grids]
        self.angles = [self.visual.rot_pos_emb(torch.tensor([[1, *g]])) for g in self.grids]

    def features(self, pixels: Sequence[torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
        """pixels: of each image, [1,3,H,W]. tokens: ids int64 [1,text]. Returns what the last layer gives [1,n,d]."""
        embed, seen = self.language.embed_tokens, [self._see(i, p) for i, p in enumerate(pixels)]
        taken = iter(seen)
        parts = [next(taken)[0] if is_image else embed(torch.tensor(ids))[None] for ids, is_image in self.runs]
        x = torch.cat([*parts, embed(tokens)], 1)
        rope = self.language.rotary_emb(x, self.places)
        for i, layer in enumerate(self.language.layers):
            x = layer(x, attention_mask=None, position_embeddings=rope)
            if i < len(self.visual.deepstack_visual_indexes):
                x = x + self._at_images([levels[1 + i] for levels in seen], x)
        return x

    def _at_images(self, seen: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        taken, rest = iter(seen), x.shape[1] - sum(len(ids) for ids, _ in self.runs)
        return torch.cat([*(next(taken) if is_image else torch.zeros(1, len(ids), x.shape[2])
                            for ids, is_image in self.runs), torch.zeros(1, rest, x.shape[2])], 1)

    def _see(self, i: int, pixels: torch.Tensor) -> list[torch.Tensor]:
        """The tokens of an image [1,m,d], and what deeper levels of the tower add to them in the first layers. A frame
        is repeated in time, so that the convolution over time is one of the sum of its weights."""
        visual, proj, (rows, columns), m = self.visual, self.visual.patch_embed.proj, self.grids[i], self.merge
        x = nn.functional.conv2d(pixels, proj.weight.sum(2), proj.bias, stride=visual.patch_size)[0]
        side = visual.num_grid_per_side
        table = visual.pos_embed.weight.view(side, side, -1)
        down, across = self.sums[i]
        x = x + torch.einsum("rs,stc,pt->crp", down, table, across)
        # a patch's neighbours that are merged with it follow each other
        x = x.view(-1, rows // m, m, columns // m, m).permute(1, 3, 2, 4, 0).reshape(rows * columns, -1)
        angles, levels = torch.cat([self.angles[i]] * 2, -1), []
        for k, block in enumerate(visual.blocks):
            x = x + _attend(block.attn, block.norm1(x), angles.cos(), angles.sin())
            x = x + block.mlp(block.norm2(x))
            if k in visual.deepstack_visual_indexes:
                levels.append(visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(k)](x)[None])
        return [visual.merger(x)[None], *levels]


def _attend(attention: nn.Module, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Of all patches of one image to each other. x [n,d]."""
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

    q, k, v = attention.qkv(x).reshape(x.shape[0], 3, attention.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
    q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
    out = nn.functional.scaled_dot_product_attention(*(t.transpose(0, 1)[None] for t in (q, k, v)))
    return attention.proj(out[0].transpose(0, 1).reshape(x.shape[0], -1))


def _runs(ids: list[int], image: int) -> list[tuple[list[int], bool]]:
    """Runs of text tokens and of image tokens; images are enclosed in text."""
    runs: list[tuple[list[int], bool]] = []
    for i in ids:
        if not runs or runs[-1][1] != (i == image):
            runs.append(([], i == image))
        runs[-1][0].append(i)
    return runs


def _places(runs: Sequence[tuple[list[int], bool]], grids: Sequence[Size], text: int) -> list[list[int]]:
    """Positions in time, rows and columns of all tokens: text advances in all, an image spreads over rows and columns
    and the text after it continues beyond the larger side."""
    out, next_place, sizes = [[], [], []], 0, iter(grids)  # type: ignore[var-annotated]
    for ids, is_image in [*runs, ([0] * text, False)]:
        if is_image:
            rows, columns = next(sizes)
            out[0] += [next_place] * len(ids)
            out[1] += [next_place + r for r in range(rows) for _ in range(columns)]
            out[2] += [next_place + c for _ in range(rows) for c in range(columns)]
            next_place += max(rows, columns)
        else:
            for axis in out:
                axis += range(next_place, next_place + len(ids))
            next_place += len(ids)
    return out


def _interpolation(grid: Size, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows, side], [columns, side]: how the learned positions of a square of this side are interpolated."""
    found = []
    for count in grid:
        at, out = torch.linspace(0, side - 1, count), torch.zeros(count, side)
        low = at.int()
        high = (low + 1).clamp(max=side - 1)
        for i in range(count):
            out[i, low[i]] += 1 - (at[i] - low[i])
            out[i, high[i]] += at[i] - low[i]
        found.append(out)
    return found[0], found[1]
