"""OpenVLA (Kim et al. 2024, arXiv 2406.09246): one or two vision transformers, a projector, Llama.

Weights have the names of the checkpoint. The last block of a vision transformer is not read by the original either:
its features are those after the last but one, without norm.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.decoding import SlotCache
from vlacompile.frontends.tensor_files import TensorFiles
from vlacompile.frontends.transformer import Attention, GatedMlp, RmsNorm, attend, projections, rotary
from vlacompile.frontends.vision_transformer import VisionSizes, VisionTransformer
from vlart.errors import SourceError

VISION = "vision_backbone."
LM_HEAD = "language_model.lm_head.weight"
TOWERS = ("featurizer", "fused_featurizer")
HEADS = 16  # of both vision transformers


@dataclass(frozen=True)
class Tower:
    """What a name of timm's says and the weights do not. side: of the frame in pixels."""

    timm: str
    side: int
    prefix: int
    scaled: bool


_DINO = Tower("vit_large_patch14_reg4_dinov2.lvd142m", 224, 5, True)
_SIGLIP = Tower("vit_so400m_patch14_siglip_224", 224, 0, False)
_LARGER_SIGLIP = Tower("vit_so400m_patch14_siglip_384", 384, 0, False)
BACKBONES = {
    "dinosiglip-vit-so-224px": (_DINO, _SIGLIP),
    "dinosiglip-vit-so-384px": (replace(_DINO, side=384), _LARGER_SIGLIP),
    "siglip-vit-so400m": (_SIGLIP,), "siglip-vit-so400m-384px": (_LARGER_SIGLIP,),
    "dinov2-vit-l": (_DINO,),
}
# transformers 4.40.1's LlamaConfig, of which config.json stores only what differs
LLAMA = {"num_attention_heads": 32, "num_key_value_heads": None, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
FIXED = {"hidden_act": "silu", "attention_bias": False, "rope_scaling": None, "model_type": "llama"}


@dataclass(frozen=True)
class LlamaSizes:
    width: int
    depth: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int
    eps: float
    base: float


class LlamaLayer(nn.Module):
    def __init__(self, sizes: LlamaSizes):
        super().__init__()
        self.self_attn = Attention(sizes.width, sizes.heads, sizes.kv_heads, sizes.width // sizes.heads)
        self.mlp = GatedMlp(sizes.width, sizes.hidden, F.silu)
        self.input_layernorm, self.post_attention_layernorm = (RmsNorm(sizes.width, sizes.eps) for _ in range(2))

    def forward(self, x, mask, rope, cache: SlotCache | None, index: int):
        q, k, v = projections(self.self_attn, self.input_layernorm(x), rope)
        k, v = (k, v) if cache is None else cache.update(k, v, index)
        x = x + self.self_attn.o_proj(attend(q, k, v, mask, self.self_attn.scaling).reshape(*x.shape[:-1], -1))
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """The layers with their embedding, and the final norm."""

    def __init__(self, sizes: LlamaSizes):
        super().__init__()
        self.head_dim, self.base = sizes.width // sizes.heads, sizes.base
        self.embed_tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        self.layers = nn.ModuleList(LlamaLayer(sizes) for _ in range(sizes.depth))
        self.norm = RmsNorm(sizes.width, sizes.eps)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: SlotCache | None = None) \
            -> torch.Tensor:
        """x [1,n,width], mask: what is added to the scores [1,1,n,keys]."""
        rope = rotary(positions, self.head_dim, self.base)
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, rope, cache, i)
        return self.norm(x)


class CausalLlama(nn.Module):
    def __init__(self, sizes: LlamaSizes, head: bool):
        super().__init__()
        self.model = Llama(sizes)
        self.lm_head = nn.Linear(sizes.width, sizes.vocabulary, bias=False) if head else None


class Projector(nn.Module):
    """Patches -> the language model's width; with three layers if there are two towers."""

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        for i, (a, b) in enumerate(itertools.pairwise(sizes), 1):
            setattr(self, f"fc{i}", nn.Linear(a, b))
        self.count = len(sizes) - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(1, self.count + 1):
            x = getattr(self, f"fc{i}")(x)
            x = F.gelu(x) if i < self.count else x
        return x


class VisionLanguage(nn.Module):
    """means, stds: per tower, of the pixels in [0, 1]."""

    def __init__(self, towers: Sequence[VisionSizes], llama: LlamaSizes, projector: Sequence[int], head: bool,
                 moments: Sequence[tuple[torch.Tensor, torch.Tensor]]):
        super().__init__()
        self.vision_backbone = nn.ModuleDict(
            {name: VisionTransformer(sizes) for name, sizes in zip(TOWERS, towers, strict=False)})
        self.projector, self.language_model = Projector(projector), CausalLlama(llama, head)
        self.moments, self.side = tuple(moments), towers[0].side

    def see(self, frame: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """uint8 [1,side,side,3] -> [1,patches,width]"""
        unit = frame.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        seen = [tower((unit - mean) / std, condition)
                for tower, (mean, std) in zip(self.vision_backbone.values(), self.moments, strict=True)]
        return self.projector(torch.cat(seen, 2))

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.language_model.model.embed_tokens(tokens)


def llama_sizes(config: dict, files: TensorFiles, where: str) -> LlamaSizes:
    """Raises SourceError for settings that this model does not compute."""
    text = config.get("text_config")
    text = text if isinstance(text, dict) else {}
    for key, value in FIXED.items():
        if text.get(key, value) != value:
            raise SourceError(f"{key} = {text[key]!r} is not covered", where=f"{where}, text_config",
                              why=f"the language model is read with {value!r}",
                              fix="write a factory that returns vlacompile.Policy(...) around the model")
    said = {k: text.get(k, v) for k, v in LLAMA.items()}
    prefix = "language_model.model."
    vocabulary, width = _shape(files, f"{prefix}embed_tokens.weight")
    hidden, _ = _shape(files, f"{prefix}layers.0.mlp.gate_proj.weight")
    depth = _count(files, f"{prefix}layers.")
    heads, eps, base = said["num_attention_heads"], said["rms_norm_eps"], said["rope_theta"]
    kv_heads = said["num_key_value_heads"] or heads
    wrong = [k for k, v in (("vocab_size", vocabulary), ("hidden_size", width), ("num_hidden_layers", depth))
             if text.get(k, v) != v]
    wrong += [k for k, v in (("rms_norm_eps", eps), ("rope_theta", base)) if not _is_positive(v, (int, float))]
    if not _is_positive(heads) or width % (2 * heads):
        wrong.append("num_attention_heads")
    elif not _is_positive(kv_heads) or heads % kv_heads:
        wrong.append("num_key_value_heads")
    if wrong:
        raise SourceError("config.json does not fit the weights", where=f"{where}, text_config",
                          why=f"{wrong[0]} = {said.get(wrong[0], text.get(wrong[0]))!r} does not fit weights of width "
                              f"{width}, {depth} layers and {vocabulary} tokens",
                          fix="use config.json and weights of one training")
    return LlamaSizes(width, depth, heads, kv_heads, hidden, vocabulary, float(eps), float(base))


def _is_positive(value: object, kinds: type | tuple[type, ...] = int) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and value > 0  # type: ignore[operator]


def check_backbone(backbone: str, where: str) -> None:
    """Raises SourceError for vision transformers that this model does not compute."""
    if backbone not in BACKBONES:
        raise SourceError(f'the vision backbone "{backbone}" is not covered', where=where,
                          why="these are: " + ", ".join(BACKBONES),
                          fix="write a factory that returns vlacompile.Policy(...) around the model")


def tower_sizes(backbone: str, files: TensorFiles, film: int | None, where: str) -> tuple[VisionSizes, ...]:
    """Of each vision transformer, without its last block. Raises SourceError."""
    check_backbone(backbone, where)
    found = []
    for name, tower in zip(TOWERS, BACKBONES[backbone], strict=False):
        prefix = f"{VISION}{name}."
        width, _, patch, _ = _shape(files, f"{prefix}patch_embed.proj.weight", 4)
        hidden, _ = _shape(files, f"{prefix}blocks.0.mlp.fc1.weight")
        if width % HEADS or patch < 1:
            raise SourceError(f"{prefix}patch_embed.proj.weight has an odd shape", where=str(files.where),
                              why=f"its width {width} is divided among {HEADS} heads",
                              fix="use the files of one training")
        found.append(VisionSizes(width, _count(files, f"{prefix}blocks.") - 1, HEADS, hidden, patch, tower.side,
                                 tower.prefix, tower.scaled, film))
    return tuple(found)


def is_unused(sizes: Mapping[str, int]):
    """sizes: {tower: blocks that are read}. Returns whether a tensor is one that inference does not read: the last
    block, what follows it, and the language model's output if a head reads its features."""
    begin = behind(sizes)
    return lambda name: name.startswith(begin) or name == LM_HEAD


def behind(sizes: Mapping[str, int]) -> tuple[str, ...]:
    """How names begin of what follows the blocks that are read."""
    return tuple(f"{VISION}{name}.{part}" for name, depth in sizes.items()
                 for part in (f"blocks.{depth}.", "norm.", "attn_pool."))


def _shape(files: TensorFiles, name: str, rank: int = 2) -> tuple[int, ...]:
    if len(files.shapes.get(name, ())) != rank:
        raise SourceError(f"the weights lack {name}", where=str(files.where), why="the model's sizes are read from it",
                          fix="copy the checkpoint again, completely")
    return files.shapes[name]


def _count(files: TensorFiles, prefix: str) -> int:
    return len({n.removeprefix(prefix).partition(".")[0] for n in files.shapes if n.startswith(prefix)})
