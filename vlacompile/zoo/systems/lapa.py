"""LAPA: a language model that reads the instruction, then the codes of a picture, and gives seven action tokens. The
most probable token is taken, where the authors draw one. Frames are 256 pixels square, as the host resizes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.decoding import SlotCache
from vlacompile.frontends.flax_files import flax_file
from vlacompile.frontends.tensor_files import TensorFiles
from vlacompile.frontends.transformer import added
from vlacompile.policy.iterations import iterations
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.inputs import FRAME, MASK, TASK, TOKENS, frame
from vlacompile.zoo.blocks.kernel_names import renamed
from vlacompile.zoo.blocks.language_model import LanguageModel, LanguageSizes
from vlacompile.zoo.blocks.vqgan import VqganEncoder, VqganSizes, signed
from vlacompile.zoo.checkpoint import Checkpoint
from vlacompile.zoo.system import TINY, Published, System
from vlart.errors import SourceError

IMAGE = "image.base"
PROMPT, ACTION = 128, 7
SUFFIX = (1533, 4924, 29958, 529, 2467, 29958)  # "</vision> <action>"
END_OF_PICTURE = 1  # behind the codes, before others: its place among the embeddings of pictures
OTHER_CODES = 256
VQGAN = VqganSizes()
LLAMA = LanguageSizes(4096, 32, 32, 32, 11008, 32000, base=5e7)


@dataclass(frozen=True)
class Sizes:
    """bins: of an action token."""

    language: LanguageSizes = LLAMA
    vision: VqganSizes = VQGAN
    bins: int = 256
    suffix: tuple[int, ...] = SUFFIX


SMALL = Sizes(replace(LLAMA, width=32, depth=2, heads=4, kv_heads=4, hidden=64, vocabulary=100),
              VqganSizes(32, 32, latent=8, codes=64), suffix=(11, 12, 13, 14, 15, 13))


class Lapa(nn.Module):
    """A frame u8 [1,side,side,3], and the prompt as token ids i64 [1,128], padded on the left, with their mask ->
    {"action": f32 [1,1,7]}, each number the middle of its bin; the gripper is 0 or 1."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width = sizes.language.width
        self.sizes, self.vqgan, self.transformer = sizes, VqganEncoder(sizes.vision), LanguageModel(sizes.language)
        self.vte = nn.Embedding(sizes.vision.codes + OTHER_CODES, width)
        self.ate, self.action_head = nn.Embedding(sizes.bins, width), nn.Linear(width, sizes.bins, bias=False)
        self.vision_head = nn.Linear(width, sizes.vision.codes + OTHER_CODES, bias=False)  # for video, not for actions
        self.lm_head = nn.Linear(width, sizes.language.vocabulary, bias=False)
        # quantiles of the training actions; those of the gripper are two bins
        edges = torch.linspace(-1, 1, sizes.bins + 1) ** 3 * torch.linspace(0.02, 0.1, ACTION)[:, None]
        edges[-1] = torch.tensor([-0.5, 0.5] + [1.5] * (sizes.bins - 1))
        self.register_buffer("edges", edges)

    def prompt(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [1,n,width] and their mask bool [1,n]"""
        codes = self.vqgan(signed(inputs[IMAGE]))
        end = torch.full((1, 1), self.sizes.vision.codes + END_OF_PICTURE)
        words = self.transformer.embed_tokens
        x = torch.cat([words(inputs[TOKENS]), self.vte(torch.cat([codes, end], 1)),
                       words(torch.tensor([self.sizes.suffix]))], 1)
        behind = torch.ones(1, x.shape[1] - PROMPT, dtype=torch.bool)
        return x, torch.cat([inputs[MASK], behind], 1)

    def tokens(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """-> i64 [1,7]"""
        n, cache = x.shape[1], SlotCache(ACTION - 1)
        seen = (torch.ones(n, n, dtype=torch.bool).tril() & mask[:, None, :]) | torch.eye(n, dtype=torch.bool)
        hidden = self.transformer(x, added(seen), (mask.cumsum(-1) - 1).clamp(min=0), cache)
        token = self.action_head(hidden[:, -1:]).argmax(-1)
        here, so_far = torch.eye(ACTION, dtype=torch.bool), torch.ones(ACTION - 1, ACTION - 1).tril().bool()
        out, count = torch.where(here[0], token, 0), mask.sum(-1, keepdim=True)
        steps = torch.arange(ACTION - 1)
        for k in iterations(ACTION - 1):
            cache.writing = here[k, : ACTION - 1]
            seen = torch.cat([mask, so_far[k][None]], 1)[:, None]
            hidden = self.transformer(self.ate(token), added(seen), count + steps[k], cache)
            token = self.action_head(hidden).argmax(-1)
            out = torch.where(here[k + 1], token, out)
        return out

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        middle = (self.edges[:, :-1] + self.edges[:, 1:]) / 2
        return {"action": middle.gather(1, self.tokens(*self.prompt(inputs)).T).T[:, None]}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    mask = torch.arange(PROMPT)[None] >= PROMPT - 31
    tokens = torch.where(mask, torch.randint(1, sizes.language.vocabulary, (1, PROMPT)), 0)
    return Policy("lapa", Lapa(sizes).eval(), {TOKENS: TASK, MASK: TASK, IMAGE: FRAME},
                  {TOKENS: tokens, MASK: mask, IMAGE: frame(sizes.vision.side)})


_JAX = renamed((
    (r"^transformer\.wte", "transformer.embed_tokens"), (r"^transformer\.([va]te)", r"\1"),
    (r"^transformer\.ln_f", "transformer.norm"), (r"^transformer\.h\.", "transformer.layers."),
    (r"attention_norm", "input_layernorm"), (r"ffn_norm", "post_attention_layernorm"),
    (r"attention\.w([qkvo])", r"self_attn.\1_proj"), (r"feed_forward\.w1", "mlp.gate_proj"),
    (r"feed_forward\.w2", "mlp.down_proj"), (r"feed_forward\.w3", "mlp.up_proj"),
    (r"vqgan\.quantize", "vqgan"), (r"vqgan\.encoder\.", "vqgan."), (r"DownsamplingBlock_(\d)", r"down.\1"),
    (r"Downsample_0\.Conv_0", "downsample"), (r"MidBlock_0\.ResnetBlock_(\d)", r"mid.\1"),
    (r"ResnetBlock_(\d)", r"block.\1"),
    (r"(block|mid)\.(\d)\.GroupNorm_0", r"\1.\2.norm1"), (r"(block|mid)\.(\d)\.GroupNorm_1", r"\1.\2.norm2"),
    (r"(block|mid)\.(\d)\.Conv_0", r"\1.\2.conv1"), (r"(block|mid)\.(\d)\.Conv_1", r"\1.\2.conv2"),
    (r"(block|mid)\.(\d)\.Conv_2", r"\1.\2.nin_shortcut"), (r"vqgan\.GroupNorm_0", "vqgan.norm_out"),
    (r"vqgan\.Conv_0", "vqgan.conv_in"), (r"vqgan\.Conv_1", "vqgan.conv_out")))
STACKED, PARAMETERS, VQGAN_FILE = "scan_decoder", ("params", "streaming_params"), "vqgan.msgpack"


def of_jax(files: TensorFiles, heads: int) -> TensorFiles:
    """The authors' parameters under the names of this module. They rotate neighbouring channels of a head, transformers
    those that are half a head apart."""

    def change(name: str):
        ours, laid_out = _JAX(name)
        if not ours.endswith(("q_proj.weight", "k_proj.weight")):
            return ours, laid_out
        return ours, lambda x: laid_out(x).unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)

    return files.changed(change)


def files_of(path: Path, module: Lapa) -> TensorFiles:
    """A directory with `params`, of a training for a robot, and `vqgan.msgpack`. Raises SourceError."""
    parameters = next((path / name for name in PARAMETERS if (path / name).is_file()), path)
    if parameters == path or not (path / VQGAN_FILE).is_file():
        code = ("import pickle, flax.serialization as f; "
                f"open('{VQGAN_FILE}', 'wb').write(f.msgpack_serialize(pickle.load(open('vqgan', 'rb'))))")
        raise SourceError(f"{PARAMETERS[0]} or {VQGAN_FILE} is missing", where=str(path),
                          why="the weights are in both; the authors' vqgan is a pickle, which could run any code",
                          fix=f'give the directory, with the pickle converted where JAX is: python -c "{code}"')
    language = flax_file(parameters, lambda n: n.replace(STACKED, "*") if f".{STACKED}." in n else None)
    vqgan = flax_file(path / VQGAN_FILE).under(lambda n: f"vqgan.{n}")
    return of_jax(language.instead(vqgan, "vqgan."), module.sizes.language.heads)


_PAPER = "arXiv 2410.11758"
SYSTEM = System(
    "LAPA", 2024, 20, f"{_PAPER}, github.com/LatentActionPretraining/LAPA 46aca51", make,
    says=("a language model gives seven action tokens for one picture",),
    code="MIT", weights="MIT",
    checkpoint=Checkpoint(files=files_of, statistics=("edges",), unread=(
        "vqgan.decoder.*", "vqgan.post_quant_conv.*", "transformer.dte.*", "delta_head.*")),
    published=(Published("parameters", 7, "B", "of the language model", _PAPER),))
