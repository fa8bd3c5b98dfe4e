"""The backbone of GR00T N1.6: Eagle 3, which is SigLIP 2 for images of any size and some layers of Qwen3.

The prompt has the instruction before the images, so that a causal attention lets images see it. What comes before the
first image is padded in front of all: keys keep their distances, and what follows has a known place. Sizes, tokenizer
and image settings are in NVIDIA's code and in no checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vlacompile.frontends.groot.unread import Unread
from vlacompile.frontends.resize import Size, linear_matrix
from vlart.errors import SourceError

_FACTORY = "write a factory that returns vlacompile.Policy(...) around the model's inference function"


class Eagle3(nn.Module):
    """With random weights, under the names of NVIDIA's. sizes: Eagle's config.json. layers: of the language model that
    are kept. Raises SourceError for sizes that NVIDIA's N1.6 does not have."""

    def __init__(self, sizes: Mapping, layers: int, where: str):
        from transformers import Qwen3Config, Qwen3ForCausalLM, Siglip2VisionConfig, Siglip2VisionModel

        super().__init__()
        _check(sizes, where)
        vision, text = (_without_attention(sizes[k]) for k in ("vision_config", "text_config"))
        self.vision_model = Siglip2VisionModel(Siglip2VisionConfig(**vision, attn_implementation="sdpa"))
        self.language_model = Qwen3ForCausalLM(Qwen3Config(**text | {"num_hidden_layers": layers},
                                                           attn_implementation="sdpa"))
        self.language_model.lm_head = Unread()
        self.ratio, width = int(1 / sizes.get("downsample_ratio", 0.5)), text["hidden_size"]
        joined = vision["hidden_size"] * self.ratio**2
        self.mlp1 = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, width), nn.GELU(), nn.Linear(width, width))
        self.image_token, self.patch = sizes["image_token_index"], vision["patch_size"]

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """The tokens of an image [1,3,H,W], whose sides are multiples of a token's: [1,n,d]."""
        tower, patch, ratio = self.vision_model.vision_model, self.patch, self.ratio
        embedding, table = tower.embeddings.patch_embedding, tower.embeddings.position_embedding.weight
        filters = embedding.weight.view(-1, patch, patch, 3).permute(0, 3, 1, 2)
        x = nn.functional.conv2d(pixels, filters, embedding.bias, stride=patch)
        rows, columns = x.shape[-2:]
        side = round(table.shape[0] ** 0.5)
        places = torch.einsum("rs,stc,pt->rpc", linear_matrix(side, rows), table.view(side, side, -1),
                              linear_matrix(side, columns))
        x = x.flatten(2).transpose(1, 2) + places.flatten(0, 1)[None]
        for layer in tower.encoder.layers:
            x = layer(x, attention_mask=None)
        x = tower.post_layernorm(x).view(rows // ratio, ratio, columns // ratio, ratio, -1)
        return self.mlp1(x.permute(0, 2, 4, 1, 3).flatten(2).flatten(0, 1)[None])  # of a channel, its neighbours

    def features(self, before: torch.Tensor, mask: torch.Tensor, images: Sequence[torch.Tensor],
                 after: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """before: ids int64 [1,L] of what comes before the first image, padded in front. mask: bool [1,L]. images: from
        `see`. after: runs of ids [1,n] after that, None for each image. Returns [1,L+n,d]."""
        language, taken = self.language_model.model, iter(images)
        embed = language.embed_tokens
        x = torch.cat([embed(before), *(next(taken) if ids is None else embed(ids) for ids in after)], 1)
        count = x.shape[1]
        kept = torch.cat([mask, torch.ones(1, count - mask.shape[1], dtype=torch.bool)], 1)
        # padding sees itself: a row without any key has no softmax
        seen = torch.ones(count, count).tril().bool() & (kept[:, None] | torch.eye(count).bool())
        bias = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None]
        rope = language.rotary_emb(x, torch.arange(count)[None])
        for layer in language.layers:
            x = layer(x, attention_mask=bias, position_embeddings=rope)
        return language.norm(x)


def _without_attention(part: Mapping) -> dict:
    return {k: v for k, v in part.items() if not k.startswith("_attn_implementation") and k != "torch_dtype"}


def _check(sizes: Mapping, where: str) -> None:
    vision, text = sizes.get("vision_config") or {}, sizes.get("text_config") or {}
    wanted = {"vision_config.model_type": (vision.get("model_type"), "siglip2_vision_model"),
              "vision_config.use_rope": (vision.get("use_rope", True), False),
              "vision_config.use_windows_attn": (vision.get("use_windows_attn", True), False),
              "text_config.architectures": (text.get("architectures"), ["Qwen3ForCausalLM"]),
              "select_layer": (sizes.get("select_layer", -4), -1),
              "use_backbone_lora": (sizes.get("use_backbone_lora", 0), 0),
              "use_llm_lora": (sizes.get("use_llm_lora", 0), 0)}
    for name, (found, known) in wanted.items():
        if found != known:
            raise SourceError(f"{name} = {found!r} is not covered", where=where, why=f"GR00T N1.6 has {known!r}",
                              fix=_FACTORY)


def image_mask(before: int, ids: Sequence[int], image: int) -> torch.Tensor:
    """bool [1,n] of the tokens of images. before: number of tokens before ids."""
    return torch.tensor([[False] * before + [i == image for i in ids]])


def tokens_in(size: Size, side: int) -> int:
    """Of an image, one per square of this side."""
    return size[0] * size[1] // side**2
