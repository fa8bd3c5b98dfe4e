"""NVIDIA's GR00T N1 and N1.5: a vision-language model cut after some of its layers, and a DiT that denoises actions of
one of many embodiments. Weights are named as in NVIDIA's checkpoints; `denoise` is the frontends'.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.groot.action_head import denoise
from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.inputs import FRAME, MASK, NOISE, STATE, STEP, TASK, TOKENS, frame, unit, words
from vlacompile.zoo.blocks.language_model import LanguageModel, LanguageSizes, causal
from vlacompile.zoo.blocks.siglip import Siglip, pixel_shuffle
from vlacompile.zoo.blocks.vision_tower import TowerSizes
from vlacompile.zoo.checkpoint import Checkpoint

CAMERA, EMBODIMENT = "image.ego", "embodiment"
HORIZON, STEPS, BUCKETS, ACTION, STATES, TEXT, FUTURE = 16, 4, 1000, 32, 64, 64, 32
JOINTS = 26  # of the GR-1 with two arms and two hands: its state, and its actions
CHECKPOINT = Checkpoint(unread=("*.vision_model.head.*", "*.language_model.lm_head.weight"),
                        statistics=("state_*", "action_*"))
gelu = functools.partial(F.gelu, approximate="tanh")


@dataclass(frozen=True)
class GrootSizes:
    """before: token ids of the prompt up to the image; after it follow its end, the instruction and the end of the
    turn. shuffle: side of the squares of patches that become a token; 1: every patch is one. project: width that the
    backbone's features are projected to, or None. hidden: of the encoders and decoders of embodiments. heads,
    head_dim, layers: of the DiT. mixing: (heads, head_dim, layers) of the attention among the backbone's features, or
    None. future: learned tokens beside the actions."""

    before: tuple[int, ...]
    vision: TowerSizes
    language: LanguageSizes
    shuffle: int
    project: int | None
    hidden: int = 1024
    heads: int = 32
    head_dim: int = 48
    layers: int = 16
    mixing: tuple[int, int, int] | None = None
    future: int = 0
    places: int = 1024
    embodiments: int = 32
    embodiment: int = 24

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def seen(self) -> int:
        return self.language.width if self.project is None else self.project


class OfEmbodiment(nn.Module):
    """A linear layer with weights of its own for every embodiment."""

    def __init__(self, embodiments: int, given: int, made: int):
        super().__init__()
        self.W = nn.Parameter(torch.randn(embodiments, given, made) * given**-0.5)
        self.b = nn.Parameter(torch.zeros(embodiments, made))

    def forward(self, x: torch.Tensor, embodiment: torch.Tensor) -> torch.Tensor:
        return torch.bmm(x, self.W[embodiment]) + self.b[embodiment][:, None]


class TwoOfEmbodiment(nn.Module):
    def __init__(self, embodiments: int, given: int, hidden: int, made: int):
        super().__init__()
        self.layer1 = OfEmbodiment(embodiments, given, hidden)
        self.layer2 = OfEmbodiment(embodiments, hidden, made)

    def forward(self, x: torch.Tensor, embodiment: torch.Tensor) -> torch.Tensor:
        return self.layer2(F.relu(self.layer1(x, embodiment)), embodiment)


class ActionEncoder(nn.Module):
    def __init__(self, embodiments: int, width: int):
        super().__init__()
        self.W1 = OfEmbodiment(embodiments, ACTION, width)
        self.W2, self.W3 = OfEmbodiment(embodiments, 2 * width, width), OfEmbodiment(embodiments, width, width)

    def forward(self, actions: torch.Tensor, time: torch.Tensor, embodiment: torch.Tensor) -> torch.Tensor:
        x = self.W1(actions, embodiment)
        half = x.shape[-1] // 2
        angles = time.float()[:, None] * torch.exp(torch.arange(half) * (-math.log(10000.0) / half))
        moment = torch.cat([angles.sin(), angles.cos()], -1)[:, None].expand_as(x)
        return self.W3(F.silu(self.W2(torch.cat([x, moment], -1), embodiment)), embodiment)


class _Modulated(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.linear(F.silu(condition)).chunk(2, 1)
        return F.layer_norm(x, x.shape[-1:]) * (1 + scale[:, None]) + shift[:, None]


class _Attention(nn.Module):
    def __init__(self, width: int, seen: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = nn.Linear(width, width), nn.Linear(seen, width), nn.Linear(seen, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: torch.Tensor, seen: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        q, k, v = (p(t).view(1, t.shape[1], self.heads, -1).transpose(1, 2)
                   for p, t in ((self.to_q, x), (self.to_k, seen), (self.to_v, seen)))
        mask = None if bias is None else bias[:, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out[0](out.transpose(1, 2).reshape(x.shape))


class _Up(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Linear(width, 4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return gelu(self.proj(x))


class Block(nn.Module):
    """Attention to others (seen) or to one another, then an MLP. seen: width of the others' features. modulated: norms
    without weights, the first one scaled and shifted by a condition."""

    def __init__(self, width: int, seen: int, heads: int, modulated: bool):
        super().__init__()
        self.norm1 = _Modulated(width) if modulated else nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width, elementwise_affine=not modulated)
        self.attn1 = _Attention(width, seen, heads)
        self.ff = nn.ModuleDict({"net": nn.ModuleList([_Up(width), nn.Identity(), nn.Linear(4 * width, width)])})

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None,
                encoder_attention_mask: torch.Tensor | None = None,
                encoder_hidden_states: torch.Tensor | None = None, temb: torch.Tensor | None = None) -> torch.Tensor:
        """Called as diffusers' blocks are. attention_mask [1,1,n]: what is added to the scores."""
        y = self.norm1(x) if temb is None else self.norm1(x, temb)
        x = x + self.attn1(y, y if encoder_hidden_states is None else encoder_hidden_states, attention_mask)
        up, _, down = self.ff["net"]
        return x + down(up(self.norm3(x)))


class _Time(nn.Module):
    """diffusers' TimestepEncoder: a time i64 [1] -> [1,width]."""

    def __init__(self, width: int):
        super().__init__()
        self.timestep_embedder = nn.ModuleDict({"linear_1": nn.Linear(256, width), "linear_2": nn.Linear(width, width)})

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        angles = time.float()[:, None] * torch.exp(torch.arange(128) * (-math.log(10000.0) / 127))
        x = torch.cat([angles.cos(), angles.sin()], -1)
        return self.timestep_embedder["linear_2"](F.silu(self.timestep_embedder["linear_1"](x)))


class DiT(nn.Module):
    """Blocks that attend to the backbone's features and to one another in turn. `denoise` runs them."""

    def __init__(self, sizes: GrootSizes):
        super().__init__()
        width = sizes.width
        self.config = SimpleNamespace(interleave_self_attention=True)
        self.timestep_encoder = _Time(width)
        self.transformer_blocks = nn.ModuleList(
            Block(width, width if i % 2 else sizes.seen, sizes.heads, True) for i in range(sizes.layers))
        self.norm_out = nn.LayerNorm(width, 1e-6, elementwise_affine=False)
        self.proj_out_1, self.proj_out_2 = nn.Linear(width, 2 * width), nn.Linear(width, sizes.hidden)


class ActionHead(nn.Module):
    """What `denoise` asks of a head."""

    def __init__(self, sizes: GrootSizes):
        super().__init__()
        count, width = sizes.embodiments, sizes.width
        self.config = SimpleNamespace(add_pos_embed=True)
        self.action_horizon, self.num_inference_timesteps, self.num_timestep_buckets = HORIZON, STEPS, BUCKETS
        self.model = DiT(sizes)
        self.state_encoder = TwoOfEmbodiment(count, STATES, sizes.hidden, width)
        self.action_encoder = ActionEncoder(count, width)
        self.action_decoder = TwoOfEmbodiment(count, sizes.hidden, sizes.hidden, ACTION)
        self.position_embedding = nn.Embedding(sizes.places, width)
        self.vlln, self.vl_self_attention = nn.Identity(), nn.Identity()
        if sizes.mixing is not None:
            heads, dim, depth = sizes.mixing
            self.vlln = nn.LayerNorm(sizes.seen)
            self.vl_self_attention = nn.ModuleDict({"transformer_blocks": nn.ModuleList(
                Block(heads * dim, sizes.seen, heads, False) for _ in range(depth))})
        if sizes.future:
            self.future_tokens = nn.Embedding(sizes.future, width)


class Eagle(nn.Module):
    """pixels f32 [1,3,side,side] in [-1, 1], token ids i64 [1,64] after the image -> features [1,n,width]."""

    def __init__(self, sizes: GrootSizes):
        super().__init__()
        self.shuffle, language = sizes.shuffle, LanguageModel(sizes.language)
        width, made = sizes.vision.width * sizes.shuffle**2, sizes.language.width
        self.vision_model = nn.ModuleDict({"vision_model": Siglip(sizes.vision)})
        self.language_model = nn.ModuleDict({"model": language})
        self.mlp1 = nn.Sequential(nn.Linear(width, made)) if sizes.shuffle == 1 else nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, made), nn.GELU(), nn.Linear(made, made))
        self.register_buffer("before", torch.tensor([sizes.before]), persistent=False)

    def forward(self, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        language = self.language_model["model"]
        seen = self.mlp1(pixel_shuffle(self.vision_model["vision_model"](pixels), self.shuffle))
        x = torch.cat([language.embed_tokens(self.before), seen, language.embed_tokens(tokens)], 1)
        return language(x, *causal(torch.ones(1, x.shape[1], dtype=torch.bool)))


class Groot(nn.Module):
    """A frame u8 [1,side,side,3], token ids i64 [1,64] with their mask, state f32 [1,26] -> {"action": f32 [1,16,26]}.

    names: of the backbone's parts in the checkpoint: the vision-language model and its projection."""

    def __init__(self, sizes: GrootSizes, names: Sequence[str]):
        super().__init__()
        model, projection = names
        self.names = tuple(names)
        self.backbone = nn.ModuleDict({model: Eagle(sizes)})
        if sizes.project is not None:
            self.backbone[projection] = nn.Linear(sizes.language.width, sizes.project)
        self.action_head = ActionHead(sizes)
        for name in ("state", "action"):
            low = -2 * torch.rand(JOINTS) - 0.5
            self.register_buffer(f"{name}_low", low)
            self.register_buffer(f"{name}_range", 2 * torch.rand(JOINTS) + 1.0)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        state = 2 * (inputs[STATE] - self.state_low) / self.state_range - 1
        actions = self.act(unit(inputs[CAMERA], 0.5, 0.5), inputs[TOKENS], inputs[MASK],
                           F.pad(state, (0, STATES - JOINTS)), inputs[EMBODIMENT], inputs[NOISE])
        return {"action": (actions[..., :JOINTS] + 1) / 2 * self.action_range + self.action_low}

    def act(self, pixels: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, state: torch.Tensor,
            embodiment: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """state [1,64] and the result [1,16,32]: normalised and padded. noise [1,16,32]."""
        model, projection = self.names
        seen = self.backbone[model](pixels, tokens)
        seen = self.backbone[projection](seen) if projection in self.backbone else seen
        others = torch.ones(1, seen.shape[1] - tokens.shape[1], dtype=torch.bool)
        return denoise(self.action_head, seen, torch.cat([others, mask], 1), state[:, None], embodiment, noise)


def policy_of(name: str, sizes: GrootSizes, names: Sequence[str]) -> Policy:
    tokens, mask = words(TEXT, sizes.language.vocabulary, 14)
    example: Mapping[str, torch.Tensor] = {
        TOKENS: tokens, MASK: mask, CAMERA: frame(sizes.vision.side), STATE: torch.randn(1, JOINTS),
        NOISE: torch.randn(1, HORIZON, ACTION), EMBODIMENT: torch.tensor([sizes.embodiment])}
    sources = {TOKENS: TASK, MASK: TASK, CAMERA: FRAME, STATE: FRAME, NOISE: STEP, EMBODIMENT: Source("static")}
    return Policy(name, Groot(sizes, names).eval(), sources, example, execute=HORIZON)
