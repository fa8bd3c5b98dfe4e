"""Octo: T5 reads the instruction, small convolutional stems see the last two frames of two cameras, a block-causal
transformer joins them, and a small diffusion head acts on its readout. Weights are named as in emb-ai/octo-pytorch.

The goal image is missing, as with an instruction: its channels hold black, which is -1 after normalisation.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.flax_files import flax_file, orbax_file
from vlacompile.frontends.tensor_files import TensorFiles
from vlacompile.policy.iterations import iterations
from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.inputs import MASK, NOISE, PRESENT, STEP, TASK, TOKENS, frame, words
from vlacompile.zoo.blocks.kernel_names import renamed
from vlacompile.zoo.blocks.noise_schedule import bars, cosine_betas
from vlacompile.zoo.blocks.t5 import T5Encoder, T5Sizes
from vlacompile.zoo.checkpoint import Checkpoint, Places, is_torch, tensor_files
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = {"image.primary": "primary", "image.wrist": "wrist"}
ADDED = "added_noise"
WINDOW, LONGEST, LENGTH, HORIZON, ACTION = 2, 10, 16, 4, 7
STEPS, BOUND, EPS, TIMES, WIDTH = 20, 5.0, 1e-6, 32, 256


@dataclass(frozen=True)
class Sizes:
    """sides: of the frames of both cameras, in pixels. stem: channels of its convolutions. groups: of their norms."""

    width: int
    heads: int
    depth: int = 12
    text: T5Sizes = T5Sizes()  # noqa: RUF009  a frozen value
    sides: tuple[int, int] = (256, 128)
    stem: tuple[int, ...] = (32, 96, 192, 384)
    groups: int = 32
    features: int = 512
    head: int = WIDTH


LARGE = {"small": Sizes(384, 6), "base": Sizes(768, 12)}
SMALL = {"small": Sizes(48, 2, 2, T5Sizes(32, 2, 2, 64, 100), (48, 32), (8, 16, 16, 24), 4, 32, 32),
         "base": Sizes(48, 4, 2, T5Sizes(32, 2, 2, 64, 100), (48, 32), (8, 16, 16, 24), 4, 32, 32)}


class StdConv(nn.Conv2d):
    """Of standardised weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) / (deviation + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Stem(nn.Module):
    """Frames f32 [T,6,H,W] of grey levels -> [T,H/16*W/16,features]"""

    def __init__(self, sizes: Sizes):
        super().__init__()
        channels = (6, *sizes.stem)
        self.layers = nn.ModuleList(
            nn.Sequential(StdConv(a, b, 3, 2, 1), nn.GroupNorm(sizes.groups, b, EPS), nn.ReLU())
            for a, b in itertools.pairwise(channels))
        self.embedding = nn.Conv2d(channels[-1], sizes.features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x / 127.5 - 1.0
        for layer in self.layers:
            x = layer(x)
        return self.embedding(x).flatten(2).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp_block = nn.ModuleDict({"dense1": nn.Linear(width, 4 * width), "dense2": nn.Linear(4 * width, width)})

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """x [1,n,width], keep: bool [1,1,n,n]"""
        at, y = self.self_attention, self.layer_norm1(x)
        q, k, v = (p.view(1, x.shape[1], at.num_heads, -1).transpose(1, 2)
                   for p in F.linear(y, at.in_proj_weight, at.in_proj_bias).chunk(3, -1))
        x = x + at.out_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=keep).transpose(1, 2).reshape(x.shape))
        return x + self.mlp_block["dense2"](F.gelu(self.mlp_block["dense1"](self.layer_norm2(x)), approximate="tanh"))


class Trunk(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.encoder_blocks = nn.ModuleList(Block(sizes.width, sizes.heads) for _ in range(sizes.depth))
        self.layer_norm = nn.LayerNorm(sizes.width, EPS)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        for block in self.encoder_blocks:
            x = block(x, keep)
        return self.layer_norm(x)


class OctoTransformer(nn.Module):
    """The readout [1,width] of the newest frame."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.tokens, width = [(side // 16) ** 2 for side in sizes.sides], sizes.width
        self.task_tokenizers = nn.ModuleDict({"language": nn.ModuleDict({"hf_model": T5Encoder(sizes.text)})})
        self.observation_tokenizers = nn.ModuleDict(
            {name: nn.ModuleDict({"encoder_def": Stem(sizes)}) for name in CAMERAS.values()})
        self.task_projections = nn.ModuleDict({"task_language_projection": nn.Linear(sizes.text.width, width)})
        self.obs_projections = nn.ModuleDict(
            {f"obs_{name}_projection": nn.Linear(sizes.features, width) for name in CAMERAS.values()})
        self.block_transformer = nn.ModuleDict({"transformer": Trunk(sizes)})
        self.task_language_pos_embedding = nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        for name, count in zip(CAMERAS.values(), self.tokens, strict=True):
            places = nn.Parameter(torch.randn(LONGEST, count, width) * 0.02)
            self.register_parameter(f"obs_{name}_pos_embedding", places)
        self.readout_action_pos_embedding = nn.Parameter(torch.randn(LONGEST, 1, width) * 0.02)

    def forward(self, frames: dict[str, torch.Tensor], tokens: torch.Tensor, mask: torch.Tensor, seen: torch.Tensor) \
            -> torch.Tensor:
        task = self.task_projections["task_language_projection"](
            self.task_tokenizers["language"]["hf_model"](tokens, mask)) + self.task_language_pos_embedding
        views = []
        for name, x in frames.items():
            x = x[0].permute(0, 3, 1, 2).float()
            x = self.observation_tokenizers[name]["encoder_def"](torch.cat([x, torch.zeros_like(x)], 1))
            views.append(self.obs_projections[f"obs_{name}_projection"](x)
                         + getattr(self, f"obs_{name}_pos_embedding")[:WINDOW])
        rows = [task]
        for t in range(WINDOW):
            rows += [*(v[t][None] for v in views), task, self.readout_action_pos_embedding[t][None]]
        return self.block_transformer["transformer"](torch.cat(rows, 1), self._keep(seen))[:, -1]

    def _keep(self, seen: torch.Tensor) -> torch.Tensor:
        """Who attends to whom, bool [1,1,n,n]: the task to itself; frames to the task and to frames up to their own;
        readouts to these and to readouts. seen: bool [1,window], frames that there are; their words always count."""
        frame_rows = sum(self.tokens)
        time = torch.tensor([-1] * LENGTH + [t for t in range(WINDOW) for _ in range(frame_rows + LENGTH + 1)])
        readout = torch.tensor([False] * LENGTH + ([False] * (frame_rows + LENGTH) + [True]) * WINDOW)
        rule = (time[None, :] <= time[:, None]) & (~readout[None, :] | readout[:, None])
        always = torch.ones(1, LENGTH + 1, dtype=torch.bool)
        there = [always[:, :LENGTH]]
        for t in range(WINDOW):
            there += [seen[:, t:t + 1].expand(1, frame_rows), always]
        return (rule & torch.cat(there, 1)[:, None])[:, None]


class _HeadBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layer_norm = nn.LayerNorm(width, EPS)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear2(F.silu(self.linear1(self.layer_norm(x))))


class _Network(nn.Module):
    def __init__(self, given: int, out: int, width: int):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(given, width), nn.Linear(width, out)
        self.blocks = nn.Sequential(*(_HeadBlock(width) for _ in range(3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear2(F.silu(self.blocks(self.linear1(x))))


class _Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(TIMES // 2, 1) * 0.2)

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        angles = 2 * math.pi * time @ self.w.T
        return torch.cat([angles.cos(), angles.sin()], -1)


class ScoreActor(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.time_preprocess = _Fourier()
        self.cond_encoder = nn.ModuleDict({"layers": nn.Sequential(
            nn.Linear(TIMES, 2 * TIMES), nn.SiLU(), nn.Linear(2 * TIMES, TIMES))})
        self.reverse_network = _Network(TIMES + sizes.width + HORIZON * ACTION, HORIZON * ACTION, sizes.head)

    def forward(self, readout: torch.Tensor, actions: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        time = self.cond_encoder["layers"](self.time_preprocess(time[None, None]))
        return self.reverse_network(torch.cat([time, readout, actions], -1))


class Octo(nn.Module):
    """Frames u8 [1,2,H,W,3] of two cameras, oldest first, and which of the two there are, bool [1,2]; token ids i64
    [1,16] with their mask; noise f32 [1,28], and what is added after each step [20,28] -> {"action": f32 [1,4,7]}."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.octo_transformer = OctoTransformer(sizes)
        self.heads = nn.ModuleDict({"action": nn.ModuleDict({"diffusion_model": ScoreActor(sizes)})})
        self.register_buffer("action_mean", torch.randn(ACTION) * 0.1)
        self.register_buffer("action_std", 1 + torch.rand(ACTION))
        self.register_buffer("action_mask", torch.arange(ACTION) < ACTION - 1)  # the gripper is not normalised

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        frames = {name: inputs[source] for source, name in CAMERAS.items()}
        readout = self.octo_transformer(frames, inputs[TOKENS], inputs[MASK], inputs[PRESENT])
        predict, x = self.heads["action"]["diffusion_model"], inputs[NOISE]
        betas = cosine_betas(STEPS)
        known, last = bars(betas), STEPS - 1
        order = range(last, -1, -1)
        times = torch.tensor([float(t) for t in order])
        rows = torch.tensor([((1 - betas[t]) ** -0.5, betas[t] / (1 - known[t]) ** 0.5,
                              betas[t] ** 0.5 if t else 0.0) for t in order])
        for k in iterations(STEPS):
            x = rows[k, 0] * (x - rows[k, 1] * predict(readout, x, times[k]))
            x = (x + rows[k, 2] * inputs[ADDED][k][None]).clamp(-BOUND, BOUND)
        action = x.view(1, HORIZON, ACTION)
        return {"action": torch.where(self.action_mask, action * self.action_std + self.action_mean, action)}


def make(variant: str, size: str) -> Policy:
    sizes = (SMALL if size == TINY else LARGE)[variant]
    tokens, mask = words(LENGTH, sizes.text.vocabulary, 9)
    window = Source("observation", history=WINDOW)
    frames = {c: frame(side)[:, None].repeat(1, WINDOW, 1, 1, 1) for c, side in zip(CAMERAS, sizes.sides, strict=True)}
    example = {TOKENS: tokens, MASK: mask, **frames, PRESENT: torch.ones(1, WINDOW, dtype=torch.bool),
               NOISE: torch.randn(1, HORIZON * ACTION), ADDED: torch.randn(STEPS, HORIZON * ACTION)}
    sources = {TOKENS: TASK, MASK: TASK, **dict.fromkeys(CAMERAS, window), PRESENT: Source("observation"), NOISE: STEP,
               ADDED: STEP}
    return Policy(f"octo_{variant}", Octo(sizes).eval(), sources, example)


_JAX = renamed((
    (r"^heads_action", "heads.action"), (r"cond_encoder\.Dense_0", "cond_encoder.layers.0"),
    (r"cond_encoder\.Dense_1", "cond_encoder.layers.2"), (r"MLPResNetBlock_(\d)", r"blocks.\1"),
    (r"(reverse_network|blocks\.\d)\.Dense_0", r"\1.linear1"),
    (r"(reverse_network|blocks\.\d)\.Dense_1", r"\1.linear2"),
    (r"blocks\.(\d)\.LayerNorm_0", r"blocks.\1.layer_norm"),
    (r"BlockTransformer_0\.Transformer_0", "block_transformer.transformer"),
    (r"encoderblock_(\d+)", r"encoder_blocks.\1"),
    (r"encoder_norm", "layer_norm"), (r"LayerNorm_0", "layer_norm1"), (r"LayerNorm_1", "layer_norm2"),
    (r"MlpBlock_0\.Dense_0", "mlp_block.dense1"), (r"MlpBlock_0\.Dense_1", "mlp_block.dense2"),
    (r"MultiHeadDotProductAttention_0", "self_attention"), (r"self_attention\.out", "self_attention.out_proj"),
    (r"(observation|task)_tokenizers_(\w+)", r"\1_tokenizers.\2"), (r"SmallStem16_0", "encoder_def"),
    (r"StdConv_(\d)", r"layers.\1.0"), (r"GroupNorm_(\d)", r"layers.\1.1"),
    (r"\.(obs|task)_(\w+)_projection", r".\1_projections.\1_\2_projection")))


def of_jax(files: TensorFiles) -> TensorFiles:
    """The authors' parameters under the names of this module; queries, keys and values are apart."""
    time = "time_preprocess.kernel"  # no kernel of a layer
    return files.changed(lambda n: (_JAX(n)[0].replace("preprocess.weight", "preprocess.w"), lambda x: x)
                         if n.endswith(time) else _JAX(n))


def files_of(path: Path, module: nn.Module) -> TensorFiles:
    return tensor_files(path) if is_torch(path) else of_jax(flax_file(orbax_file(path)))


def places(module: nn.Module, files: TensorFiles) -> Places:
    return {n: tuple(n.replace("in_proj_", f"{part}.") for part in ("query", "key", "value"))
            for n in module.state_dict() if ".in_proj_" in n and n not in files.shapes}


_PAPER = "arXiv 2405.12213"
SYSTEM = System(
    "Octo", 2024, 8, f"{_PAPER}; octo-models/octo 241fb35", make,
    says=("Small: 27 M beside T5", "Base: 93 M beside T5"),
    code="MIT", weights="MIT",
    variants=("small", "base"),
    checkpoint=Checkpoint(places=places, statistics=("action_*",), files=files_of),
    published=(
        Published("parameters", 27, "M", "Small, without T5", "README of octo-models/octo"),
        Published("parameters", 93, "M", "Base, without T5", "README of octo-models/octo"),
        Published("rate", 17, "replans/s", "RTX 4090, Small", "README of octo-models/octo"),
        Published("rate", 13, "replans/s", "RTX 4090, Base", "README of octo-models/octo"),
    ))
