"""FLOWER (Reuss et al., CoRL 2025) on CALVIN: Florence-2's encoder, and a flow transformer with shared adaLN."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable, installed, lightning, random_weights, without_init
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("FLOWER", "intuitive-robots/flower_vla_calvin", "acb32ee85719e51aa94139b184c64b1b29f11d33",
                    note="Florence-2 is the copy in LeRobot 0.4.4, since the original loads its code from the network")

WORDS, VOCABULARY, WIDTH = 16, 1000, 64


class Ids(dict):
    def to(self, device):
        return self


class Tokenizer:
    """The instruction's ids, whatever the text; `ids` is set by the caller."""

    ids = torch.ones(1, WORDS, dtype=torch.long)

    def __call__(self, text, **how):
        return Ids(input_ids=self.ids)

    def __len__(self):
        return VOCABULARY

    def add_special_tokens(self, tokens):
        pass

    def convert_tokens_to_ids(self, token):
        return VOCABULARY - 1


def make(checkout: Path) -> vc.Policy:
    without_init(installed(), "lerobot", "lerobot.policies", "lerobot.policies.xvla")
    lightning()
    with importable(checkout, stubs=("hydra", "omegaconf", "wandb")):
        sys.modules |= {name: SimpleNamespace(**{part: object}) for name, part in (
            ("flower.callbacks.ema", "EMA"), ("flower.utils.lr_schedulers.tri_stage_scheduler", "TriStageLRScheduler"))}
        from flower.models import flower
        from lerobot.policies.xvla.configuration_florence2 import Florence2Config
        from lerobot.policies.xvla.modeling_florence2 import Florence2ForConditionalGeneration

        config = Florence2Config(vocab_size=VOCABULARY, projection_dim=WIDTH, vision_config={
            "dim_embed": [16, 32, 48, 64], "num_heads": [2, 4, 6, 8], "num_groups": [2, 4, 6, 8],
            "depths": [1, 1, 2, 1], "projection_dim": WIDTH}, text_config={
            "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": VOCABULARY})
        tokenizer = Tokenizer()
        flower.AutoModelForCausalLM = SimpleNamespace(
            from_pretrained=lambda *name, **how: Florence2ForConditionalGeneration(config))
        flower.AutoProcessor = SimpleNamespace(
            from_pretrained=lambda *name, **how: SimpleNamespace(tokenizer=tokenizer))
        policy = flower.FLOWERVLA(
            num_sampling_steps=4, use_second_view=True, second_view_key="image_wrist", action_type_adaln=True,
            use_cross_attn=True, sampling_type="uniform", dit_dim=WIDTH, n_heads=16, n_layers=4, use_rope=True,
            query_seq_len=100, rope_theta=32.0)
    torch.nn.init.normal_(policy.vlm.image_projection, std=0.1)  # memory as it was, until weights are loaded
    random_weights(policy).eval()

    def infer(tokens, rgb_static, rgb_gripper, noise):
        tokenizer.ids = tokens
        with vc.drawn_from(normal=noise):
            return {"action": policy({"rgb_obs": {"rgb_static": rgb_static, "rgb_gripper": rgb_gripper}},
                                     {"lang_text": ""})}

    seen = vc.Source("observation")
    return vc.Policy("flower", infer, {
        "tokens": vc.Source("task"), "rgb_static": seen, "rgb_gripper": seen, "noise": vc.Source("step")}, {
        "tokens": torch.randint(3, VOCABULARY, (1, WORDS)), "rgb_static": torch.randn(1, 1, 3, 224, 224),
        "rgb_gripper": torch.randn(1, 1, 3, 224, 224), "noise": torch.randn(1, 10, 7)})
