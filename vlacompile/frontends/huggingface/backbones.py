"""Transformers models as parts of a policy: images -> tokens, token ids -> features. Local files only, fp32.

    see, read = vision_backbone("siglip", frame=(480, 640)), text_backbone("qwen3")

    def observe(base, tokens, mask):
        memory = torch.cat([project_image(see(base)), project_text(read(tokens, mask))], 1)
        return {"action": head(memory)}

    policy = vlacompile.Policy("mine", observe, {"base": Source("observation"), "tokens": Source("task"), ...}, {...})

`python -m vlacompile.frontends.huggingface.factory VISION_DIR TEXT_DIR` prints a complete policy of this kind.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.hub import directory
from vlacompile.frontends.huggingface.images import ImageSettings, Preparation, image_settings
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.quiet import quiet
from vlart.errors import SourceError, nearest

Tower = Callable[[Any], torch.nn.Module]


class _LastHidden(torch.nn.Module):
    """pixel_values [B,3,h,w] -> last_hidden_state [B,N,D]. connector: the module of a VLM between the tower and its
    text model."""

    def __init__(self, tower: torch.nn.Module, connector: torch.nn.Module | None = None, patch: int | None = None):
        super().__init__()
        self.tower, self.connector, self.patch = tower, connector, patch

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        extra = {}
        if self.patch is not None:  # a tower that expects a mask for padded images; here there is no padding
            grid = (pixels.shape[0], pixels.shape[2] // self.patch, pixels.shape[3] // self.patch)
            extra = {"patch_attention_mask": torch.ones(grid, dtype=torch.bool)}
        hidden = self.tower(pixel_values=pixels, **extra).last_hidden_state
        return hidden if self.connector is None else self.connector(hidden)


def _vlm(model) -> torch.nn.Module:
    return _LastHidden(model.vision_model, model.connector, model.config.vision_config.patch_size)


# model_type -> its vision part; for text types, the path of the text model in AutoModel's result.
VISION: dict[str, Tower] = {
    "siglip": lambda m: _LastHidden(m.vision_model), "siglip_vision_model": _LastHidden,
    "clip": lambda m: _LastHidden(m.vision_model), "clip_vision_model": _LastHidden,
    "dinov2": _LastHidden, "dinov2_with_registers": _LastHidden, "smolvlm": _vlm, "idefics3": _vlm,
}
TEXT: dict[str, str] = {
    "llama": "", "gemma": "", "gemma2": "", "gemma3_text": "", "qwen2": "", "qwen3": "", "smollm3": "",
    "smolvlm": "text_model", "idefics3": "text_model", "siglip": "text_model",
}


class VisionBackbone(torch.nn.Module):
    """uint8 frames [B,H,W,3] -> tokens f32 [B,N,D], including the checkpoint's own image preprocessing.

    frame: (H, W). tokens, width: N and D; class and register tokens, if any, come first.
    """

    def __init__(self, prepare: Preparation, tower: torch.nn.Module, frame: tuple[int, int]):
        super().__init__()
        self.prepare, self.tower, self.frame = prepare, tower, frame
        with torch.no_grad():
            _, self.tokens, self.width = self(torch.zeros(1, *frame, 3, dtype=torch.uint8)).shape

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.tower(self.prepare(frames))


class TextBackbone(torch.nn.Module):
    """Token ids int64 [B,L] and padding mask bool [B,L], padded on the right -> features f32 [B,L,D], zero at padding:
    a model's results for padding differ between engines and have no meaning.

    In a causal language model, the last unmasked position attends to the whole instruction. SigLIP was trained without
    a mask: give it one that is all true. vocabulary: number of token ids.
    """

    def __init__(self, model: torch.nn.Module, width: int, vocabulary: int, cached: bool):
        super().__init__()
        self.model, self.width, self.vocabulary = model, width, vocabulary
        self.extra = {"use_cache": False} if cached else {}

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.model(input_ids=tokens, attention_mask=mask.to(torch.long), **self.extra).last_hidden_state
        return torch.where(mask[..., None], hidden, 0.0)


def vision_backbone(path: str | Path, frame: tuple[int, int] | None = None,
                    images: ImageSettings | None = None) -> VisionBackbone:
    """The vision part of a save_pretrained directory, or of the name of one on the Hub, ready to be traced.

    frame: (height, width) of the camera; None: the model's native size. images: instead of the
    directory's own image processor settings. Raises SourceError.
    """
    path = directory(path)
    kind = check(path, VISION, "vision_backbone")
    settings = images or image_settings(path)
    model = _load(path)
    side = getattr(model.config, "vision_config", model.config).image_size
    native = side if isinstance(side, int) else side[0]
    frame = frame or settings.crop or (settings.resize if isinstance(settings.resize, tuple) else (native, native))
    tower = VISION[kind](model).eval().requires_grad_(False)
    return VisionBackbone(Preparation(settings, frame, native), tower, frame).eval()


def text_backbone(path: str | Path) -> TextBackbone:
    """The text part of a save_pretrained directory, or of the name of one on the Hub, ready to be traced: without a
    cache; the last layer's features.

    Raises SourceError.
    """
    path = directory(path)
    kind = check(path, TEXT, "text_backbone")
    model = _load(path)
    text = getattr(model, TEXT[kind]) if TEXT[kind] else model
    config = getattr(model.config, "text_config", model.config)
    cached = not kind.startswith("siglip")  # SigLIP's is an encoder and has no cache
    return TextBackbone(text.eval().requires_grad_(False), config.hidden_size, config.vocab_size, cached).eval()


def tokens_of(path: str | Path, instruction: str, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The host's part: token ids int64 [1,length] and padding mask bool [1,length], padded on the right, by the
    tokenizer in the directory, or in that of a name on the Hub. Raises SourceError."""
    ENVIRONMENTS["huggingface"].require()
    path = directory(path, weights=False)
    with quiet():
        try:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
            encoded = tokenizer(instruction, max_length=length, truncation=True, padding="max_length",
                                padding_side="right", return_tensors="pt")
        except Exception as error:  # transformers raises many kinds of errors
            raise _refused("the tokenizer cannot be used", path, error) from error
    return encoded["input_ids"], encoded["attention_mask"].bool()


def check(path: Path, known, where: str, weights: bool = True) -> str:
    """The model type, read without transformers. weights: whether they must exist. Raises SourceError if it is
    unknown."""
    if not path.is_dir():
        raise SourceError(f"{path} does not exist", where=f"{where}()", why="no such directory",
                          fix="give the directory that save_pretrained wrote, or org/name on the Hugging Face Hub")
    kind = str(read_json(path / "config.json").get("model_type"))
    if kind not in known:
        raise SourceError(f'no {where} for models of type "{kind}"', where=str(path / "config.json"),
                          why=nearest(kind, known), fix="load it with transformers and put its module into the policy")
    if weights and not list(path.glob("*.safetensors")):
        raise SourceError("the checkpoint has no weights", where=str(path), why="there is no .safetensors file",
                          fix="give the complete directory that save_pretrained wrote")
    return kind


def _load(path: Path) -> torch.nn.Module:
    ENVIRONMENTS["huggingface"].require()
    with quiet():
        try:
            from transformers import AutoModel

            model, report = AutoModel.from_pretrained(path, local_files_only=True, dtype=torch.float32,
                                                      output_loading_info=True)
        except Exception as error:  # transformers and safetensors raise many kinds of errors
            raise _refused("transformers cannot load this model", path, error) from error
    missing = sorted(k for k in report["missing_keys"] if "pooler" not in k and ".head." not in f".{k}")
    if missing:
        raise SourceError("the checkpoint's weights are incomplete", where=str(path),
                          why=f"{len(missing)} missing, e.g. {missing[0]}", fix="copy the checkpoint again, completely")
    return model


def _refused(what: str, path: Path, error: Exception) -> SourceError:
    first = (str(error).strip().splitlines() or [""])[0]
    return SourceError(what, where=str(path), why=f"{type(error).__name__}: {first}",
                       fix="load it with transformers itself to see why")
