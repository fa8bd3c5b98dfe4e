"""CogACT (Li et al., 2024): a vision-language model's last token conditions a diffusion transformer (DDIM)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable, random_weights, small_timm, without_init
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("CogACT", "microsoft/CogACT", "b174a1b86deedfab4d198d935207e7bb0527994e", "gauntlet-prismatic",
                    also={"openvla/openvla": "c8f03f48af692657d3060c19588038c7220e9af9"},
                    note="predict_action takes a picture file and a text, and asserts 4096 channels; the glue has its "
                         "lines from tokens to normalised actions")

CHUNK, STEPS, GUIDANCE, VOCABULARY = 16, 10, 1.5, 1000


class Tokenizer:
    """What the constructors ask of Llama's tokenizer, which is no file here."""

    bos_token_id, pad_token_id = 1, 0

    def __call__(self, text, add_special_tokens=True):
        return SimpleNamespace(input_ids=[1, 5] if add_special_tokens else [5])

    def __len__(self):
        return VOCABULARY

    def encode(self, text, add_special_tokens):
        return [5]

    def add_special_tokens(self, tokens):
        pass


def make(checkout: Path) -> vc.Policy:
    without_init(checkout.parent / "openvla", "prismatic", "prismatic.models", "prismatic.models.vlms")
    without_init(checkout, "vla")
    with importable(checkout, checkout.parent / "openvla", stubs=("rich",)), small_timm(
            embed_dim=48, depth=3, num_heads=4):
        from prismatic.models.backbones.llm import base_llm
        from prismatic.models.backbones.llm.llama2 import LLaMa2LLMBackbone
        from prismatic.models.backbones.vision.dinosiglip_vit import DinoSigLIPViTBackbone
        from prismatic.models.vlms.prismatic import PrismaticVLM
        from transformers import LlamaConfig
        from vla.cogactvla import CogACT

        base_llm.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *name, **how: Tokenizer())
        base_llm.AutoConfig = SimpleNamespace(from_pretrained=lambda *name, **how: LlamaConfig(
            hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCABULARY))
        vlm = PrismaticVLM("prism", DinoSigLIPViTBackbone("dinosiglip-vit-so-224px", "resize-naive"),
                           LLaMa2LLMBackbone("llama2-7b-pure", inference_mode=True), arch_specifier="fused-gelu-mlp")
        policy = CogACT(vlm, "DiT-S", token_size=64, future_action_window_size=CHUNK - 1)
    random_weights(policy).eval()
    head = policy.action_model
    head.net.z_embedder.uncondition = torch.nn.Parameter(torch.randn(1, 64))  # has 4096 channels whatever token_size

    def infer(tokens, dino, siglip, noise):
        seen = policy.vlm(tokens, pixel_values={"dino": dino, "siglip": siglip}, output_hidden_states=True)
        noise = torch.cat([noise, noise])
        z = torch.cat([seen.hidden_states[-1][:, -1:], head.net.z_embedder.uncondition[None].expand(1, 1, -1)])
        with vc.drawn_from(normal=torch.zeros(STEPS, 2, CHUNK, 7)):  # drawn in every step, and multiplied with zero
            actions = (head.ddim_diffusion or head.create_ddim(STEPS)).ddim_sample_loop(
                head.net.forward_with_cfg, noise.shape, noise, clip_denoised=False, progress=False, eta=0.0,
                model_kwargs={"z": z, "cfg_scale": GUIDANCE}, device="cpu")
        return {"action": actions.chunk(2)[0].clip(-1, 1)}

    seen = vc.Source("observation")
    return vc.Policy("cogact", infer, {
        "tokens": vc.Source("task"), "dino": seen, "siglip": seen, "noise": vc.Source("step")}, {
        "tokens": torch.randint(3, VOCABULARY, (1, 24)), "dino": torch.randn(1, 3, 224, 224),
        "siglip": torch.randn(1, 3, 224, 224), "noise": torch.randn(1, CHUNK, 7)})
