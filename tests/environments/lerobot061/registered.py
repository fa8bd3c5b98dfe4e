"""Checkpoints of policy types without an adapter, those of the sample plugins and those that LeRobot 0.6.1 ships,
written by LeRobot's own code at small sizes; and LeRobot's own loop as their oracle."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

import vlacompile as vc
from tests.environments.lerobot.checkpoints import dataset_statistics, trained_tokenizer
from tests.environments.lerobot.parity import observation
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.registered_types import registered
from vlacompile.policy.drawn_from import drawn_from

PLUGINS = Path(__file__).parents[2] / "samples" / "lerobot_plugins"
if ENVIRONMENTS["lerobot061"].is_here() and str(PLUGINS) not in sys.path:
    sys.path.insert(0, str(PLUGINS))  # installed, as far as Python is concerned, before anybody asks for plugins
TASK = "pick up the red cube"
STATE, FRAME = "observation.state", (3, 64, 64)
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% for content in message['content'] %}{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>\
{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
        "<|video_pad|>"]
PLACES = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 3, "vision_end_token_id": 4}
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<IMG_CONTEXT>", "<img>", "</img>"]


def tokenizer(folder: Path) -> str:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer(SPECIAL), pad_token="<pad>", eos_token="<eos>",
                            bos_token="<bos>", unk_token="<unk>").save_pretrained(folder)
    return str(folder)


def bert(folder: Path) -> str:
    from transformers import BertConfig

    BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=512,
               max_position_embeddings=64).save_pretrained(folder)
    return tokenizer(folder)


def internvl(folder: Path) -> str:
    from transformers import InternVLConfig

    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
              "image_size": [56, 56], "patch_size": [14, 14]}
    text = {"model_type": "qwen2", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 512, "max_position_embeddings": 256}
    InternVLConfig(vision_config=vision, text_config=text, image_token_id=4, image_seq_length=4).save_pretrained(folder)
    return tokenizer(folder)


def _qwen_text(rope: dict, **more) -> dict:
    return {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 96, "vocab_size": 512, "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default"} | rope} | more


def _qwen_tokenizer():
    from transformers import PreTrainedTokenizerFast

    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_bos_token": "<|vision_start|>",
             "vision_eos_token": "<|vision_end|>"}
    return PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer(QWEN), pad_token="<|endoftext|>",
                                   eos_token="<|im_end|>", extra_special_tokens=names)


def qwen3_vl(folder: Path) -> str:
    from transformers import Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLProcessor, Qwen3VLVideoProcessor

    text = _qwen_text({"rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}, head_dim=16)
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 16,
              "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "num_position_embeddings": 64,
              "deepstack_visual_indexes": [0]}
    Qwen3VLConfig(text_config=text, vision_config=vision, **PLACES, tie_word_embeddings=True).save_pretrained(folder)
    frames = Qwen2VLImageProcessor(patch_size=16, temporal_patch_size=2, merge_size=2, image_mean=[0.5] * 3,
                                   size={"shortest_edge": 32**2, "longest_edge": 128**2}, image_std=[0.5] * 3)
    Qwen3VLProcessor(frames, _qwen_tokenizer(), Qwen3VLVideoProcessor(patch_size=16),
                     chat_template=TEMPLATE).save_pretrained(folder)
    return str(folder)


def qwen25_vl(folder: Path) -> str:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    text = _qwen_text({"rope_theta": 1e6, "mrope_section": [2, 3, 3]})
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 14,
              "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "window_size": 56,
              "fullatt_block_indexes": [1]}
    Qwen2_5_VLConfig(text_config=text, vision_config=vision, **PLACES).save_pretrained(folder)
    frames = Qwen2VLImageProcessor(patch_size=14, temporal_patch_size=2, merge_size=2,
                                   size={"shortest_edge": 56**2, "longest_edge": 28**2 * 16})
    Qwen2_5_VLProcessor(frames, _qwen_tokenizer(), Qwen2VLVideoProcessor(),
                        chat_template=TEMPLATE).save_pretrained(folder)
    return str(folder)


def _florence() -> dict:
    """As the checkpoints of X-VLA that exist have it: in the format of Microsoft's own code."""
    vision = {"model_type": "davit", "depths": [1, 1, 2, 1], "dim_embed": [16, 32, 48, 64], "num_heads": [2, 2, 4, 4],
              "num_groups": [2, 2, 4, 4], "patch_size": [7, 3, 3, 3], "patch_stride": [4, 2, 2, 2],
              "patch_padding": [3, 1, 1, 1], "patch_prenorm": [False, True, True, True], "window_size": 4,
              "projection_dim": 32, "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 50},
              "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 100},
              "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"]}
    text = {"vocab_size": 512, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 256}
    return {"vision_config": vision, "text_config": text, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


SETTINGS: dict[str, Callable[[Path], dict]] = {
    "reach": lambda folder: {},
    "told": lambda folder: {"language": bert(folder / "language")},
    "gaussian_actor": lambda folder: {},
    "tdmpc": lambda folder: {"latent_dim": 16, "mlp_dim": 32, "image_encoder_hidden_dim": 16, "n_elites": 5,
                             "state_encoder_hidden_dim": 16, "n_gaussian_samples": 32, "n_pi_samples": 6,
                             "cem_iterations": 3},
    "xvla": lambda folder: {"florence_config": _florence(), "tokenizer_name": tokenizer(folder / "tokenizer"),
                            "tokenizer_max_length": 20, "hidden_size": 32, "depth": 2, "num_heads": 4,
                            "num_denoising_steps": 3, "action_mode": "auto", "chunk_size": 8, "n_action_steps": 6,
                            "len_soft_prompts": 4, "max_len_seq": 128},
    "evo1": lambda folder: {"vlm_model_name": internvl(folder / "vlm"), "vlm_num_layers": 2, "vlm_dtype": "float32",
                            "max_text_length": 64, "image_resolution": (56, 56), "embed_dim": 48, "hidden_dim": 64,
                            "state_hidden_dim": 64, "num_heads": 4, "num_layers": 2, "num_inference_timesteps": 4,
                            "chunk_size": 8, "n_action_steps": 6, "use_amp": False},
    "eo1": lambda folder: {"vlm_base": qwen25_vl(folder / "vlm"), "chunk_size": 8, "n_action_steps": 6,
                           "num_denoise_steps": 3, "dtype": "float32", "image_min_pixels": 28**2,
                           "image_max_pixels": 28**2 * 16, "use_fast_processor": True,
                           "gradient_checkpointing": False},
    "vla_jepa": lambda folder: {"qwen_model_name": qwen3_vl(folder / "vlm"), "enable_world_model": False,
                                "action_hidden_size": 32, "action_num_layers": 2, "action_num_heads": 4,
                                "action_attention_head_dim": 8, "torch_dtype": "float32", "action_max_seq_len": 128,
                                "num_embodied_action_tokens_per_instruction": 4},
}
CAMERAS = {"tdmpc": ("observation.image",), "gaussian_actor": ("observation.images.top",)}  # of others two


def features(kind: str) -> dict:
    from lerobot.configs.types import FeatureType, PolicyFeature

    cameras = CAMERAS.get(kind, ("observation.images.top", "observation.images.wrist"))
    inputs = {name: PolicyFeature(FeatureType.VISUAL, FRAME) for name in cameras}
    return {"input_features": inputs | {STATE: PolicyFeature(FeatureType.STATE, (6,))},
            "output_features": {"action": PolicyFeature(FeatureType.ACTION, (6,))}, "device": "cpu",
            "push_to_hub": False}


def unlike_fresh(policy: torch.nn.Module) -> None:
    """Norms and gates of a fresh policy are zero or one; here they count."""
    draw = torch.Generator().manual_seed(11)
    for weight in policy.parameters():
        if weight.dim() == 1:
            weight.data += 0.2 * torch.randn(weight.shape, generator=draw)
        elif not bool(weight.any()):
            weight.data.normal_(0, 0.1, generator=draw)


def write(kind: str, folder: Path, own: Callable[[str], dict] = features,
          statistics: Callable[[dict], dict] = dataset_statistics,
          change: Callable[[torch.nn.Module], None] = unlike_fresh, **settings) -> torch.nn.Module:
    """Saves a checkpoint with its processors; the policy that was saved, in fp32. own: its features. statistics: of
    these features. change: of a fresh policy. settings: beside those of SETTINGS."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    with lerobot_importable():
        registered()  # imports plugins
        from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

        from vlacompile.frontends.lerobot.without_downloads import without_downloads

        declared = own(kind)
        config = make_policy_config(kind, **declared, **SETTINGS.get(kind, lambda parent: {})(folder.parent) | settings)
        with without_downloads():
            policy = get_policy_class(kind)(config)
        change(policy)
        before, after = make_pre_post_processors(config, dataset_stats=statistics(declared))
        for part in (policy.eval(), before, after):
            part.save_pretrained(folder)
    return policy.float()


def lerobot_loop(folder: Path, policy: torch.nn.Module) -> SimpleNamespace:
    """LeRobot's own loop: act(observation, noise of a new chunk) -> the action of this tick [action_dim]."""
    with lerobot_importable():
        from lerobot.policies.factory import make_pre_post_processors

        before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))

    def act(seen: dict[str, np.ndarray], noise: dict[str, torch.Tensor] | None, task: str = TASK) -> np.ndarray:
        raw = {n: torch.from_numpy(a) for n, a in seen.items()}
        raw = {n: (x.movedim(-1, 0) / 255 if x.dtype == torch.uint8 else x)[None] for n, x in raw.items()}
        batch = before(raw | {"task": task})
        with torch.no_grad():
            if noise is None:
                return after(policy.select_action(batch))[0].numpy()
            with drawn_from(noise.get("noise"), noise.get("noise.uniform")):
                return after(policy.select_action(batch))[0].numpy()

    policy.reset()
    return SimpleNamespace(act=act, reset=policy.reset)


def compiled(bundle: vc.Bundle, seen: dict[str, np.ndarray], noise: dict[str, torch.Tensor], count: int,
             task: str = TASK, tokens: dict[str, torch.Tensor] | None = None) -> np.ndarray:
    """[count, action_dim] of the first chunk of an episode. tokens: where the runtime has no tokenizer."""
    names = {bundle.plan.values[s.value].name for s in bundle.plan.sources}
    with vc.Session(bundle.path) as session:
        for name, array in seen.items():
            if name in names:
                session.write(name, array[None])
        for name, tensor in (noise | (tokens or {})).items():
            session.write(name, tensor.numpy())
        if "observation.language.tokens" in names and not tokens:
            session.write_text("observation.language.tokens", task)
        session.step()
        return np.stack([session.pop() for _ in range(count)])


def noise_of(bundle: vc.Bundle, seed: int) -> dict[str, torch.Tensor]:
    values = (bundle.plan.values[s.value] for s in bundle.plan.sources)
    draw = torch.Generator().manual_seed(seed)
    return {v.name: (torch.rand if v.name == "noise.uniform" else torch.randn)(v.type.dims, generator=draw)
            for v in values if v.name.startswith("noise")}


def both(bundle: vc.Bundle, folder: Path, policy: torch.nn.Module, count: int,
         observe: Callable[[torch.nn.Module, int], dict] = observation,
         tokens: dict[str, torch.Tensor] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """([seed, step, action] compiled, the same by LeRobot)."""
    loop, gots, wants = lerobot_loop(folder, policy), [], []
    for seed in range(3):
        seen, noise = observe(policy, seed), noise_of(bundle, seed)
        loop.reset()
        wants.append(np.stack([loop.act(seen, noise if k == 0 else None) for k in range(count)]))
        gots.append(compiled(bundle, seen, noise, count, tokens=tokens))
    return np.stack(gots), np.stack(wants)
