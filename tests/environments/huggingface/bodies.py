"""Blocks of the zoo beside transformers' modules with the same weights: what each pair gives for the inputs of a seed.

Where a block's weights are named as in transformers they are loaded as they are; where they are named as in another
public implementation (OpenAI's CLIP, timm), or by the zoo, their names are written out here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.quiet import quiet
from vlacompile.frontends.tensor_files import TensorFiles, fill
from vlacompile.frontends.vision_transformer import VisionSizes
from vlacompile.zoo.blocks.bert import Bert
from vlacompile.zoo.blocks.clip import ClipImage, ClipText, ImageSizes, TextSizes
from vlacompile.zoo.blocks.clip_vision import ClipVision
from vlacompile.zoo.blocks.dinov2 import DinoV2
from vlacompile.zoo.blocks.efficientnet import EfficientNet, EfficientNetSizes
from vlacompile.zoo.blocks.gpt2 import Gpt2
from vlacompile.zoo.blocks.language_model import LanguageModel, LanguageSizes, causal
from vlacompile.zoo.blocks.mae import Mae
from vlacompile.zoo.blocks.mpt import MptLayer, alibi
from vlacompile.zoo.blocks.neox import Neox, NeoxSizes
from vlacompile.zoo.blocks.owl_vit import UNREAD, OwlViT, of_transformers, places
from vlacompile.zoo.blocks.qwen_vl import MEAN, STD, QwenVisionSizes, QwenVl
from vlacompile.zoo.blocks.siglip import Siglip
from vlacompile.zoo.blocks.t5 import T5, T5Encoder, T5Sizes, encode
from vlacompile.zoo.blocks.vision_tower import TowerSizes
from vlacompile.zoo.checkpoint import fits

if ENVIRONMENTS["huggingface"].is_here():
    with quiet():
        import transformers as hf

WIDTH, DEPTH, HEADS, HIDDEN, WORDS, TOKENS, PATCH, SIDE = 32, 2, 4, 64, 100, 12, 8, 24
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
FRAME = {"image_size": SIDE, "patch_size": PATCH}

Given = dict[str, torch.Tensor]
Names = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Pair:
    """inputs: seed -> what both get."""

    inputs: Callable[[int], Given]
    ours: Callable[[Given], torch.Tensor]
    theirs: Callable[[Given], torch.Tensor]


def drawn(module: nn.Module) -> nn.Module:
    """With random weights, so large that what a layer reads goes on through it, and random running statistics."""
    torch.manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            inputs = tensor[0].numel() if tensor.dim() > 1 else 9
            around = 1.0 if tensor.dim() == 1 and name.endswith("weight") else 0.0
            tensor.copy_(torch.rand(tensor.shape) + 0.5 if "running_var" in name
                         else around + torch.randn(tensor.shape) * inputs**-0.5 * (2 if tensor.dim() == 4 else 1))
    return module.eval()


def load(ours: nn.Module, state: Given, names: Names = (), unread: str = "$.") -> nn.Module:
    """names: (pattern, replacement) for the names of their tensors, in order. unread: pattern of those that have no
    place in ours."""
    found = {}
    for name, tensor in state.items():
        for pattern, new in names:
            name = re.sub(pattern, new, name)
        if not re.search(unread, name):
            found[name] = tensor
    ours.load_state_dict(found)
    return ours.eval()


def in_one(state: Given, parts: str, whole: str) -> Given:
    """The matrices of queries, keys and values as one. parts: pattern of their names, whose group "of" begins with q, k
    or v; whole: its replacement."""
    order = {n: "qkv".index(m["of"][0]) if (m := re.search(parts, n)) else 0 for n in state}
    found: dict[str, list[torch.Tensor]] = {}
    for name in sorted(state, key=order.__getitem__):
        found.setdefault(re.sub(parts, whole, name), []).append(state[name])
    return {n: torch.cat(t) if len(t) > 1 else t[0] for n, t in found.items()}


def pixels(*shape: int, count: int = 1) -> Callable[[int], Given]:
    return lambda seed: {"pixels": torch.randn(count, 3, *shape, generator=torch.Generator().manual_seed(seed))}


def text(seed: int, count: int = TOKENS, kept: int = TOKENS - 4) -> Given:
    draw = torch.Generator().manual_seed(seed)
    return {"ids": torch.randint(3, WORDS - 1, (1, count), generator=draw), "mask": torch.arange(count)[None] < kept}


def states(seed: int) -> Given:
    return {"x": torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))}


# text

def t5_encoder() -> Pair:
    theirs = drawn(hf.T5EncoderModel(_t5()))
    ours = load(T5Encoder(_T5), theirs.state_dict(), unread="encoder.embed_tokens")
    return Pair(text, lambda g: ours(g["ids"], g["mask"])[g["mask"]],
                lambda g: theirs(input_ids=g["ids"], attention_mask=g["mask"].long()).last_hidden_state[g["mask"]])


def t5_decoder() -> Pair:
    """Word by word, over kept keys and values, against all at once."""
    theirs = drawn(hf.T5Model(_t5()))
    ours, said = load(T5(_T5), theirs.state_dict(), unread="coder.embed_tokens"), torch.tensor([[0, 7, 31, 5, 60]])

    def step_by_step(g: Given) -> torch.Tensor:
        read, kept, found = encode(ours.encoder, ours.shared(g["ids"]), g["mask"]), ours.empty(said.shape[1]), []
        for i in range(said.shape[1]):
            here = torch.arange(said.shape[1]) == i
            found.append(ours.step(ours.shared(said[:, i: i + 1]), here, torch.tensor([i]), kept, read, g["mask"]))
        return torch.cat(found, 1)

    return Pair(text, step_by_step, lambda g: theirs(
        input_ids=g["ids"], attention_mask=g["mask"].long(), decoder_input_ids=said).last_hidden_state * WIDTH**-0.5)


_T5 = T5Sizes(WIDTH, DEPTH, HEADS, HIDDEN, WORDS)


def _t5():
    return hf.T5Config(vocab_size=WORDS, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=HIDDEN, num_layers=DEPTH,
                       num_heads=HEADS)


def bert() -> Pair:
    theirs = drawn(hf.BertModel(hf.BertConfig(
        **SIZES, vocab_size=WORDS, intermediate_size=HIDDEN, max_position_embeddings=64),
                                add_pooling_layer=False))
    ours = load(Bert(WIDTH, DEPTH, HEADS, HIDDEN, WORDS, 64), theirs.state_dict(), [
        (r"^embeddings\.LayerNorm", "embedding_norm"), (r"^embeddings\.", ""), (r"^encoder\.layer\.", "layers."),
        (r"attention\.self\.", ""), (r"attention\.output\.dense", "attention_output"),
        (r"attention\.output\.LayerNorm", "attention_norm"), (r"intermediate\.dense", "intermediate"),
        (r"output\.dense", "output"), (r"output\.LayerNorm", "output_norm")], "position_ids|token_type_ids")
    return Pair(text, lambda g: ours(g["ids"], g["mask"])[g["mask"]], lambda g: theirs(
        input_ids=g["ids"], attention_mask=g["mask"].long()).last_hidden_state[g["mask"]])


def gpt2() -> Pair:
    """Without positions, which the block leaves to who uses it."""
    theirs = drawn(hf.GPT2Model(hf.GPT2Config(
        vocab_size=WORDS, n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS, activation_function="gelu")))
    theirs.wpe.weight.data.zero_()
    ours = load(Gpt2(WIDTH, DEPTH, HEADS), theirs.state_dict(), unread=r"^w[tp]e|\.attn\.(masked_)?bias")
    keep = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    return Pair(states, lambda g: ours(g["x"], keep), lambda g: theirs(inputs_embeds=g["x"]).last_hidden_state)


def neox() -> Pair:
    theirs = drawn(hf.GPTNeoXModel(hf.GPTNeoXConfig(**SIZES, vocab_size=WORDS, intermediate_size=4 * WIDTH)))
    ours = load(Neox(NeoxSizes(WIDTH, DEPTH, HEADS, WORDS)), theirs.state_dict(),
                unread="rotary|masked_bias|attention.bias")
    return Pair(text, lambda g: ours(ours.embed_in(g["ids"]), *causal(g["mask"]))[g["mask"]], lambda g: theirs(
        input_ids=g["ids"], attention_mask=g["mask"].long()).last_hidden_state[g["mask"]])


def mpt() -> Pair:
    theirs = drawn(hf.MptModel(hf.MptConfig(
        d_model=WIDTH, n_heads=HEADS, n_layers=DEPTH, max_seq_len=64, vocab_size=WORDS)))
    ours = nn.ModuleDict({"blocks": nn.ModuleList(MptLayer(WIDTH, HEADS) for _ in range(DEPTH)),
                          "norm_f": nn.LayerNorm(WIDTH, bias=False), "wte": nn.Embedding(WORDS, WIDTH)})
    load(ours, theirs.state_dict())

    def run(g: Given) -> torch.Tensor:
        bias = alibi(torch.ones(1, TOKENS, TOKENS, dtype=torch.bool).tril(), torch.arange(TOKENS), HEADS)
        x = ours["wte"](g["ids"])
        for block in ours["blocks"]:
            x = block(x, bias)
        return ours["norm_f"](x)

    return Pair(text, run, lambda g: theirs(input_ids=g["ids"]).last_hidden_state)


def language(kind: str, **settings: object) -> Pair:
    """kind: of transformers' configuration and model. settings: of the block."""
    sizes = LanguageSizes(WIDTH, DEPTH, HEADS, 2, HIDDEN, WORDS, 8, **settings)
    config = getattr(hf, f"{kind}Config")(
        vocab_size=WORDS, **SIZES, intermediate_size=HIDDEN, head_dim=8, num_key_value_heads=2, rms_norm_eps=sizes.eps,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.base})
    theirs = drawn(getattr(hf, f"{kind}Model")(config))
    ours = load(LanguageModel(sizes), theirs.state_dict(), unread="rotary")
    return Pair(text, lambda g: ours(ours.embed_tokens(g["ids"]), *causal(g["mask"]))[g["mask"]], lambda g: theirs(
        input_ids=g["ids"], attention_mask=g["mask"].long()).last_hidden_state[g["mask"]])


# text and pictures

CLIP = [(r"^(text|vision)_model\.", ""), (r"^encoder\.layers\.", "transformer.resblocks."), (r"self_attn\.", "attn."),
        (r"layer_norm(\d)", r"ln_\1"), (r"fc1", "c_fc"), (r"fc2", "c_proj"), (r"^embeddings\.patch_embedding", "conv1"),
        (r"^embeddings\.position_embedding\.weight", "positional_embedding"), (r"^embeddings\.", ""),
        (r"^final_layer_norm", "ln_final"), (r"^pre_lay(r|er_?)norm", "ln_pre"), (r"^post_layernorm", "ln_post"),
        (r"^text_projection\.weight", "text_projection")]


def as_openai(state: Given) -> Given:
    """OpenAI's code has one matrix for queries, keys and values, and multiplies a text with its projection [width,out]
    from the right."""
    turned = {n: t.T if n.endswith("text_projection.weight") else t for n, t in state.items()}
    return in_one(turned, r"self_attn\.(?P<of>[qkv])_proj\.(?P<kind>weight|bias)$", r"self_attn.in_proj_\g<kind>")


def clip_text() -> Pair:
    theirs = drawn(hf.CLIPTextModelWithProjection(hf.CLIPTextConfig(
        **SIZES, intermediate_size=4 * WIDTH, projection_dim=24, vocab_size=WORDS, max_position_embeddings=TOKENS,
        eos_token_id=WORDS - 1)))
    ours = load(ClipText(TextSizes(WIDTH, DEPTH, HEADS, TOKENS, WORDS, 24)), as_openai(theirs.state_dict()), CLIP,
                "position_ids")
    return Pair(ended, lambda g: ours(g["ids"]), lambda g: theirs(input_ids=g["ids"]).text_embeds)


def ended(seed: int) -> Given:
    """A text whose end has the highest id, padded with 0."""
    ids = text(seed)["ids"]
    ids[:, TOKENS - 4], ids[:, TOKENS - 3:] = WORDS - 1, 0
    return {"ids": ids}


def _clip_vision() -> nn.Module:
    return drawn(hf.CLIPVisionModel(hf.CLIPVisionConfig(**SIZES, **FRAME, intermediate_size=4 * WIDTH)))


def clip_image() -> Pair:
    theirs = _clip_vision()
    ours = load(ClipImage(ImageSizes(WIDTH, DEPTH, HEADS, PATCH, SIDE)), as_openai(theirs.state_dict()), CLIP,
                "position_ids|ln_post")
    return Pair(pixels(SIDE, SIDE, count=2), lambda g: ours(g["pixels"]),
                lambda g: theirs(pixel_values=g["pixels"]).last_hidden_state)


def clip_vision() -> Pair:
    theirs = _clip_vision()
    ours = load(ClipVision(TowerSizes(WIDTH, DEPTH, HEADS, 4 * WIDTH, PATCH, SIDE)), theirs.state_dict(),
                [("^vision_model.", "")], "position_ids")
    return Pair(pixels(SIDE, SIDE), lambda g: ours(g["pixels"]), lambda g: theirs(
        pixel_values=g["pixels"], output_hidden_states=True).hidden_states[-2][:, 1:])


def siglip() -> Pair:
    theirs = drawn(hf.SiglipVisionModel(hf.SiglipVisionConfig(
        **SIZES, **FRAME, intermediate_size=HIDDEN, vision_use_head=False)))
    ours = load(Siglip(TowerSizes(WIDTH, DEPTH, HEADS, HIDDEN, PATCH, SIDE)), theirs.state_dict(),
                [("^vision_model.", "")], "position_ids")
    return Pair(pixels(SIDE, SIDE), lambda g: ours(g["pixels"]),
                lambda g: theirs(pixel_values=g["pixels"]).last_hidden_state)


def owl_vit() -> Pair:
    """Boxes and logits of one picture for two texts."""
    kind = SIZES | {"intermediate_size": 4 * WIDTH}
    theirs = drawn(hf.OwlViTForObjectDetection(hf.OwlViTConfig(
        text_config=kind | {"vocab_size": WORDS, "max_position_embeddings": TOKENS},
        vision_config=kind | FRAME, projection_dim=WIDTH)))
    of = TextSizes(WIDTH, DEPTH, HEADS, TOKENS, WORDS, WIDTH), ImageSizes(WIDTH, DEPTH, HEADS, PATCH, SIDE)
    ours, state = OwlViT(*of), theirs.state_dict()
    files = TensorFiles(Path("owlvit"), {n: lambda t=t: t for n, t in state.items()},
                        {n: tuple(t.shape) for n, t in state.items()})
    fill(ours, of_transformers(files), places(ours.state_dict()), lambda n: fits(n, UNREAD))

    def inputs(seed: int) -> Given:
        return pixels(SIDE, SIDE)(seed) | {"ids": torch.cat([ended(2 * seed)["ids"], ended(2 * seed + 1)["ids"]])}

    def run(g: Given) -> torch.Tensor:
        return torch.cat(ours(g["pixels"], ours.queries(g["ids"])), -1)

    def original(g: Given) -> torch.Tensor:
        found = theirs(input_ids=g["ids"], pixel_values=g["pixels"], attention_mask=torch.ones_like(g["ids"]))
        return torch.cat([found.pred_boxes, found.logits], -1)

    return Pair(inputs, run, original)


GRID, WINDOW, SMALL = (8, 12), 4, 4  # patches, of a window, pixels of a patch


def qwen(kind: str, **settings: object) -> Pair:
    """A chat about two frames, padded. kind: of transformers' configuration and model. settings: of the tower."""
    sizes = LanguageSizes(WIDTH, DEPTH, HEADS, 2, HIDDEN, WORDS, 8, base=1e6, bias=True)
    tower = {"depth": 3, "num_heads": HEADS, "patch_size": SMALL, "hidden_act": "quick_gelu"}
    tower |= {"hidden_size": WIDTH, "out_hidden_size": WIDTH, "intermediate_size": HIDDEN, "hidden_act": "silu",
              "window_size": WINDOW * SMALL, "fullatt_block_indexes": [1]} if settings else {
        "embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": HIDDEN // WIDTH}
    theirs = drawn(getattr(hf, f"{kind}Model")(getattr(hf, f"{kind}Config")(vision_config=tower, text_config=SIZES | {
        "vocab_size": WORDS, "intermediate_size": HIDDEN, "num_key_value_heads": 2, "rms_norm_eps": sizes.eps,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": sizes.base}},
        image_token_id=WORDS - 1)))
    ours = QwenVl(QwenVisionSizes(GRID, WIDTH, WIDTH, 3, HEADS, HIDDEN, SMALL, **settings), sizes, (2, 1, 1), 3)
    fixed = {n: b for n, b in ours.named_buffers() if n in ("before", "between")}
    load(ours, theirs.state_dict() | fixed, [("^language_model", "model")], "rotary")

    def original(g: Given) -> torch.Tensor:
        seen = [torch.full((1, GRID[0] * GRID[1] // 4), WORDS - 1)] * 2
        ids = torch.cat([ours.before, seen[0], ours.between, seen[1], g["ids"]], 1)
        whole = torch.cat([torch.ones_like(ids[:, :-TOKENS]), g["mask"].long()], 1)
        found = theirs(input_ids=ids, attention_mask=whole, pixel_values=torch.cat([_patches(f) for f in frames(g)]),
                       image_grid_thw=torch.tensor([[1, *GRID]] * 2), mm_token_type_ids=(ids == WORDS - 1).int())
        return found.last_hidden_state[whole.bool()]

    def run(g: Given) -> torch.Tensor:
        hidden, kept = ours.read(frames(g), g["ids"], g["mask"])
        return hidden[kept]

    def frames(g: Given) -> list[torch.Tensor]:
        return [g["frames"][:1], g["frames"][1:]]

    return Pair(lambda seed: text(seed) | {"frames": torch.randint(
        0, 256, (2, GRID[0] * SMALL, GRID[1] * SMALL, 3), dtype=torch.uint8,
        generator=torch.Generator().manual_seed(seed))}, run, original)


def _patches(frame: torch.Tensor) -> torch.Tensor:
    """A frame as transformers' processor gives it: a row per patch, of two equal frames, those of a token together."""
    x = (frame.permute(0, 3, 1, 2) / 255.0 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    rows, columns = GRID
    x = x.view(3, rows // 2, 2, SMALL, columns // 2, 2, SMALL).permute(1, 4, 2, 5, 0, 3, 6)
    return x.reshape(rows * columns, 3, 1, SMALL, SMALL).expand(-1, -1, 2, -1, -1).reshape(rows * columns, -1)


# pictures

def efficientnet() -> Pair:
    """So wide that no stage begins with as many channels as the last one ended with: a residual stands there then."""
    theirs = drawn(hf.EfficientNetModel(hf.EfficientNetConfig(width_coefficient=0.5, depth_coefficient=1.4,
                                                              image_size=64, hidden_dim=640)))
    ours = load(EfficientNet(EfficientNetSizes(0.5, 1.4)), theirs.state_dict())
    return Pair(pixels(64, 64, count=2), lambda g: ours(g["pixels"]),
                lambda g: theirs(pixel_values=g["pixels"]).last_hidden_state)


TIMM = [(r"^embeddings\.cls_token", "cls_token"), (r"^embeddings\.position_embeddings", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"), (r"^encoder\.layer\.|^layers\.", "blocks."),
        (r"attention\.output\.dense|attention\.o_proj", "attn.proj"),
        (r"attention\.(attention\.)?qkv", "attn.qkv"), (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"), (r"layernorm_before", "norm1"), (r"layernorm_after", "norm2"),
        (r"layer_scale(\d)\.lambda1", r"ls\1.scale_factor"), (r"^layernorm", "norm")]


def as_timm(state: Given) -> Given:
    return in_one(state, r"attention\.(attention\.)?(?P<of>query|key|value|[qkv]_proj)\.", "attention.qkv.")


def mae() -> Pair:
    """None of its patches is masked, and they stay in order."""
    theirs = drawn(hf.ViTMAEModel(hf.ViTMAEConfig(
        **SIZES, **FRAME, intermediate_size=HIDDEN, layer_norm_eps=1e-6, mask_ratio=0.0)))
    ours = load(Mae(VisionSizes(WIDTH, DEPTH, HEADS, HIDDEN, PATCH, SIDE, final=True)), as_timm(theirs.state_dict()),
                TIMM)
    order = torch.arange((SIDE // PATCH) ** 2).float().expand(2, -1)

    def run(g: Given) -> torch.Tensor:
        first, patches = ours(g["pixels"])
        return torch.cat([first[:, None], patches], 1)

    return Pair(pixels(SIDE, SIDE, count=2), run,
                lambda g: theirs(pixel_values=g["pixels"], noise=order).last_hidden_state)


def dinov2() -> Pair:
    """Of a frame with other sides than its positions are for."""
    theirs = drawn(hf.Dinov2Model(hf.Dinov2Config(**SIZES, **FRAME, mlp_ratio=2)))
    ours = load(DinoV2(VisionSizes(WIDTH, DEPTH, HEADS, 2 * WIDTH, PATCH, SIDE, scaled=True, final=True)),
                as_timm(theirs.state_dict()), TIMM, "mask_token")
    return Pair(pixels(SIDE, 2 * SIDE), lambda g: ours(g["pixels"]),
                lambda g: theirs(pixel_values=g["pixels"]).last_hidden_state[:, 1:])


BODIES: dict[str, Callable[[], Pair]] = {
    "T5's encoder": t5_encoder, "T5's decoder": t5_decoder, "BERT": bert, "GPT-2": gpt2, "GPT-NeoX": neox, "MPT": mpt,
    "Llama": lambda: language("Llama"), "Qwen2": lambda: language("Qwen2", bias=True),
    "Qwen3": lambda: language("Qwen3", head_norm=True), "CLIP's text": clip_text, "CLIP's image": clip_image,
    "CLIP's image, cut": clip_vision, "SigLIP": siglip, "OWL-ViT": owl_vit, "Qwen2-VL": lambda: qwen("Qwen2VL"),
    "Qwen2.5-VL": lambda: qwen("Qwen2_5_VL", window=WINDOW, whole=(1,), gated=True), "EfficientNet": efficientnet,
    "MAE": mae, "DINOv2": dinov2,
}
