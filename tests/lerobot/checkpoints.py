"""Checkpoints of random weights, written by LeRobot itself: at real size with its own defaults, and tiny, with every
structural constant kept."""

from __future__ import annotations

from pathlib import Path

import torch

from vlacompile.frontends.lerobot.importing import lerobot_importable

STATE_DIM, ACTION_DIM = 6, 6


def _features(cameras: dict[str, tuple[int, ...]]):
    from lerobot.configs.types import FeatureType, PolicyFeature

    inputs = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, shape) for c, shape in cameras.items()}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (STATE_DIM,))
    return {"input_features": inputs, "output_features": {"action": PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
            "device": "cpu", "push_to_hub": False}


def _statistics(features: dict) -> dict[str, dict[str, torch.Tensor]]:
    """As a dataset has them: every statistic of every feature."""
    draw, out = torch.Generator().manual_seed(7), {}
    for name, feature in {**features["input_features"], **features["output_features"]}.items():
        shape = (3, 1, 1) if len(feature.shape) == 3 else feature.shape
        centre, spread = torch.rand(shape, generator=draw), 0.5 + torch.rand(shape, generator=draw)
        out[name] = {"mean": centre, "std": spread, "min": centre - 2 * spread, "max": centre + 2 * spread,
                     "q01": centre - spread, "q99": centre + spread}
    return out


def act(folder: Path, real: bool, **settings):
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.act.processor_act import make_act_pre_post_processors as processors

    features = _features({"top": (3, 480, 640)} if real else {"top": (3, 96, 64), "wrist": (3, 96, 64)})
    tiny = {"dim_model": 64, "n_heads": 4, "dim_feedforward": 128, "n_encoder_layers": 2, "n_decoder_layers": 1,
            "n_vae_encoder_layers": 1, "chunk_size": 16, "n_action_steps": 8}
    config = ACTConfig(**features, pretrained_backbone_weights=None, **({} if real else tiny), **settings)
    return ACTPolicy(config), processors(config, _statistics(features))


def diffusion(folder: Path, real: bool, cameras: tuple[str, ...] = ("top",), **settings):
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors as processors

    features = _features(dict.fromkeys(cameras, (3, 96, 96) if real else (3, 64, 64)))
    tiny = {"num_train_timesteps": 10, "down_dims": (32, 64), "diffusion_step_embed_dim": 16, "crop_shape": (56, 56)}
    size = {"crop_shape": (84, 84)} if real else tiny
    settings = size | {"noise_scheduler_type": "DDIM", "num_inference_steps": 10 if real else 5} | settings
    config = DiffusionConfig(**features, **settings)
    return DiffusionPolicy(config), processors(config, _statistics(features))


def backbone(folder: Path, real: bool) -> str:
    """SmolVLM2-500M's configuration, or a tiny one, with its processor and a tokenizer trained here: what the hub
    would send, without weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor,
                              SmolVLMVideoProcessor)

    text = {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 100000, "max_position_embeddings": 8192,
            "pad_token_id": 2}
    vision = {"model_type": "smolvlm_vision", "patch_size": 16}
    if real:
        text |= {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
                 "num_key_value_heads": 5, "head_dim": 64, "vocab_size": 49280}
        vision |= {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                   "image_size": 512}
    else:
        text |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
                 "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}
        vision |= {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                   "image_size": 64}
    config = SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=4 if real else 2, image_token_id=300,
                           pad_token_id=2, tie_word_embeddings=False, vocab_size=text["vocab_size"])
    config.architectures = ["SmolVLMForConditionalGeneration"]
    config.save_pretrained(folder)
    bpe = Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>",
               "<global-img>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(["pick up the red cube and place it in the bin", "open the drawer"] * 10, trainer)
    names = {"fake_image_token": "<fake_token_around_image>", "image_token": "<image>",
             "end_of_utterance_token": "<end_of_utterance>", "global_image_token": "<global-img>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|im_start|>", eos_token="<end_of_utterance>",
                                        pad_token="<|im_end|>", unk_token="<|endoftext|>", extra_special_tokens=names)
    video = SmolVLMVideoProcessor(video_sampling={"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}})
    SmolVLMProcessor(image_processor=SmolVLMImageProcessor(), tokenizer=tokenizer, video_processor=video,
                     image_seq_len=64, chat_template="{{messages}}").save_pretrained(folder)
    return str(folder)


def smolvla(folder: Path, real: bool, **settings):
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
    from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors as processors

    features = _features({"camera1": (3, 256, 256), "camera2": (3, 256, 256)} if real else
                         {"camera1": (3, 80, 96), "camera2": (3, 96, 96)})
    tiny = {"num_vlm_layers": 4, "resize_imgs_with_padding": (64, 64), "chunk_size": 8, "n_action_steps": 4}
    config = SmolVLAConfig(**features, vlm_model_name=backbone(folder / "backbone", real), load_vlm_weights=False,
                           **({} if real else tiny), **settings)
    return SmolVLAPolicy(config), processors(config, _statistics(features))


def vqbet(folder: Path, real: bool, **settings):
    from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
    from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy
    from lerobot.policies.vqbet.processor_vqbet import make_vqbet_pre_post_processors as processors

    features = _features({"top": (3, 96, 96) if real else (3, 64, 64)})
    tiny = {"crop_shape": (56, 56), "gpt_n_layer": 2, "gpt_n_head": 4, "gpt_hidden_dim": 32, "gpt_input_dim": 32,
            "gpt_output_dim": 32, "vqvae_embedding_dim": 32, "vqvae_enc_hidden_dim": 32}
    config = VQBeTConfig(**features, **({"crop_shape": (84, 84)} if real else tiny), **settings)
    return VQBeTPolicy(config), processors(config, _statistics(features))


MAKERS = {"act": act, "diffusion": diffusion, "smolvla": smolvla, "vqbet": vqbet}


def write(kind: str, folder: Path, real: bool = False, **settings) -> torch.nn.Module:
    """Save a checkpoint with its processors; the policy that was saved."""
    torch.manual_seed(0)
    with lerobot_importable():
        policy, (pre, post) = MAKERS[kind](folder, real, **settings)
        policy.eval().save_pretrained(folder)
        pre.save_pretrained(folder)
        post.save_pretrained(folder)
    return policy
