"""Checkpoints of random weights, written by LeRobot itself: at real size with its own defaults, and tiny, with every
structural constant kept."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch

from vlacompile.compiler.capture.weightless import weightless
from vlacompile.frontends.groot import n15
from vlacompile.frontends.lerobot import groot as frontend_groot
from vlacompile.frontends.lerobot import openpi
from vlacompile.frontends.lerobot.importing import lerobot_importable

STATE_DIM, ACTION_DIM = 6, 6


def _features(cameras: dict[str, tuple[int, ...]]):
    from lerobot.configs.types import FeatureType, PolicyFeature

    inputs = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, shape) for c, shape in cameras.items()}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (STATE_DIM,))
    return {"input_features": inputs, "output_features": {"action": PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
            "device": "cpu", "push_to_hub": False}


def dataset_statistics(features: dict) -> dict[str, dict[str, torch.Tensor]]:
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
    config = ACTConfig(**features, pretrained_backbone_weights=None, **(({} if real else tiny) | settings))
    return ACTPolicy(config), processors(config, dataset_statistics(features))


def diffusion(folder: Path, real: bool, cameras: tuple[str, ...] = ("top",), **settings):
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors as processors

    features = _features(dict.fromkeys(cameras, (3, 96, 96) if real else (3, 64, 64)))
    tiny = {"num_train_timesteps": 10, "down_dims": (32, 64), "diffusion_step_embed_dim": 16, "crop_shape": (56, 56)}
    size = {"crop_shape": (84, 84)} if real else tiny
    settings = size | {"noise_scheduler_type": "DDIM", "num_inference_steps": 10 if real else 5} | settings
    config = DiffusionConfig(**features, **settings)
    return DiffusionPolicy(config), processors(config, dataset_statistics(features))


def trained_tokenizer(special: list[str]):
    """A byte-level BPE of 400 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(["pick up the red cube and place it in the bin", "open the drawer"] * 10, trainer)
    return bpe


def backbone(folder: Path, real: bool) -> str:
    """SmolVLM2-500M's configuration, or a tiny one, with its processor and a tokenizer trained here: what the hub
    would send, without weights."""
    from transformers import (
        PreTrainedTokenizerFast,
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

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
    bpe = trained_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>",
                             "<end_of_utterance>", "<global-img>"])
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
    return SmolVLAPolicy(config), processors(config, dataset_statistics(features))


def vqbet(folder: Path, real: bool, **settings):
    from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
    from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy
    from lerobot.policies.vqbet.processor_vqbet import make_vqbet_pre_post_processors as processors

    features = _features({"top": (3, 96, 96) if real else (3, 64, 64)})
    tiny = {"crop_shape": (56, 56), "gpt_n_layer": 2, "gpt_n_head": 4, "gpt_hidden_dim": 32, "gpt_input_dim": 32,
            "gpt_output_dim": 32, "vqvae_embedding_dim": 32, "vqvae_enc_hidden_dim": 32}
    config = VQBeTConfig(**features, **({"crop_shape": (84, 84)} if real else tiny), **settings)
    return VQBeTPolicy(config), processors(config, dataset_statistics(features))


@contextlib.contextmanager
def small_gemma(kind: str) -> Iterator[None]:
    """Inside, LeRobot's pi0 or pi0.5 is tiny, written or read: their size is in its code, not in the checkpoint. Depth,
    widths and vocabulary shrink; cameras, mask blocks, heads per key, chunk and steps stay."""
    import importlib

    module = importlib.import_module(f"lerobot.policies.{kind}.modeling_{kind}")
    width = {"gemma_2b": 64, "gemma_300m": 32}

    def text(config) -> None:
        config.vocab_size = 512

    def both(config) -> None:
        text(config.text_config)
        config._vocab_size, config.image_token_index = 512, 511
        config.projection_dim = config.hidden_size = config.vision_config.projection_dim = width["gemma_2b"]
        vision = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
                  "patch_size": 16, "image_size": 64}
        for name, value in vision.items():
            setattr(config.vision_config, name, value)

    def shrunk(original: type, shrink: Callable):
        return lambda config: (shrink(config), original(config))[1]

    def variant(name: str):
        return module.GemmaConfig(width[name], depth=3, mlp_dim=128, num_heads=8, num_kv_heads=1, head_dim=16)

    classes = {"PaliGemmaForConditionalGeneration": both, "PaliGemmaForConditionalGenerationWithPiGemma": both,
               "GemmaForCausalLM": text, "PiGemmaForCausalLM": text}  # of LeRobot before 0.5 and since
    smaller = {n: shrunk(getattr(module, n), shrink) for n, shrink in classes.items() if hasattr(module, n)}
    with mock.patch.multiple(module, get_gemma_config=variant, **smaller):
        yield


def _pi(kind: str, name: str, folder: Path, real: bool, cameras: tuple[str, ...] = ("base", "left", "right"),
        **settings):
    import importlib

    from lerobot.policies.factory import make_pre_post_processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    side = 224 if real else 64
    frames = {"base": (3, 480, 640)} if real else {"base": (3, 80, 96), "right": (3, 48, 48)}
    features = _features({c: frames.get(c, (3, side, side)) for c in cameras})
    module = importlib.import_module(f"lerobot.policies.{kind}.modeling_{kind}")
    config = getattr(module, f"{name}Config")(**features, image_resolution=(side, side), **settings)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer(["<pad>", "<eos>", "<bos>", "<unk>"]),
                                        pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")
    tokenizer.save_pretrained(folder / "tokenizer")
    with mock.patch.object(AutoTokenizer, "from_pretrained", lambda *a, **k: tokenizer):  # in place of the hub's
        processors = make_pre_post_processors(config, dataset_stats=dataset_statistics(features))
    for step in processors[0].steps:
        if hasattr(step, "tokenizer_name"):
            step.tokenizer_name = str(folder / "tokenizer")
    policy = openpi.make(getattr(module, f"{name}Policy"), config)
    _unlike_fresh(policy)
    return policy, processors


def _unlike_fresh(policy: torch.nn.Module) -> None:
    """Norms and gates of a fresh policy are zero or one; here they count."""
    draw = torch.Generator().manual_seed(11)
    for name, weight in policy.named_parameters():
        if type(weight) is torch.nn.Parameter and (weight.dim() == 1 or ".dense." in name):
            weight.data += 0.2 * torch.randn(weight.shape, generator=draw)


def pi0(folder: Path, real: bool, **settings):
    return _pi("pi0", "PI0", folder, real, **settings)


def pi05(folder: Path, real: bool, **settings):
    return _pi("pi05", "PI05", folder, real, **settings)


# Of the Eagle 2.5 family: turns enclosed in tokens, images numbered.
TEMPLATE = """{% set n = namespace(value=0) %}{% for message in messages %}{% if loop.first %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{% for content in message['content'] %}{% if content['type'] == 'image' %}{% set n.value = n.value + 1 %}\
<image-{{ n.value }}>{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def eagle(folder: Path, real: bool) -> str:
    """What LeRobot downloads as tokenizer_assets_repo: Eagle's sizes, tokenizer, template and image settings."""
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
    side = 224 if real else 56
    vision = {"model_type": "siglip_vision_model", "patch_size": 14, "image_size": side}
    text = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rope_theta": 1000000, "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True}
    if real:  # SigLIP 2 of 400M and Qwen3 of 1.7B
        vision |= {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
        text |= {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
                 "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151680, "max_position_embeddings": 40960}
    else:
        vision |= {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        text |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
                 "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "max_position_embeddings": 4096}
    files = {
        "config.json": {"model_type": "eagle_2_5_vl", "vision_config": vision, "text_config": text, "select_layer": -1,
                        "image_token_index": special.index("<IMG_CONTEXT>"), "use_pixel_shuffle": False,
                        "mlp_connector_layers": 1, "downsample_ratio": 0.5},
        "preprocessor_config.json": {"size": {"height": side, "width": side}, "image_mean": [0.5] * 3, "resample": 3,
                                     "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "do_resize": False},
        "processor_config.json": {"tokens_per_tile": (side // 14) ** 2},
        "chat_template.json": {"chat_template": TEMPLATE}}
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer(special), pad_token="<|endoftext|>",
                                        eos_token="<|im_end|>", model_input_names=["input_ids", "attention_mask"])
    tokenizer.save_pretrained(folder)
    return str(folder)


def groot_base(folder: Path, real: bool, embodiments: int) -> str:
    """config.json of nvidia/GR00T-N1.5-3B, or a tiny one."""
    attention = {"dropout": 0.2, "final_dropout": True, "positional_embeddings": None}
    dit = attention | {"interleave_self_attention": True, "norm_type": "ada_norm"}
    head = {"action_dim": 32, "action_horizon": 16, "add_pos_embed": True, "max_action_dim": 32, "max_state_dim": 64,
            "noise_beta_alpha": 1.5, "noise_beta_beta": 1.0, "noise_s": 0.999, "num_inference_timesteps": 4,
            "num_target_vision_tokens": 32, "num_timestep_buckets": 1000, "use_vlln": True,
            "max_num_embodiments": embodiments}
    if real:
        head |= {"backbone_embedding_dim": 2048, "hidden_size": 1024, "input_embedding_dim": 1536, "max_seq_len": 1024,
                 "diffusion_model_cfg": dit | {"attention_head_dim": 48, "num_attention_heads": 32, "num_layers": 16,
                                               "cross_attention_dim": 2048, "output_dim": 1024},
                 "vl_self_attention_cfg": attention | {"attention_head_dim": 64, "num_attention_heads": 32,
                                                       "num_layers": 4}}
    else:
        head |= {"backbone_embedding_dim": 64, "hidden_size": 64, "input_embedding_dim": 64, "max_seq_len": 128,
                 "diffusion_model_cfg": dit | {"attention_head_dim": 16, "num_attention_heads": 4, "num_layers": 4,
                                               "cross_attention_dim": 64, "output_dim": 64},
                 "vl_self_attention_cfg": attention | {"attention_head_dim": 16, "num_attention_heads": 4,
                                                       "num_layers": 2}}
    config = {"model_type": "gr00t_n1_5", "action_dim": 32, "action_horizon": 16, "hidden_size": 2048 if real else 64,
              "action_head_cfg": head, "backbone_cfg": {"project_to_dim": None, "reproject_vision": False,
                                                        "select_layer": 12 if real else 3, "use_flash_attention": True}}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def groot(folder: Path, real: bool, embodiments: int = 32, tag: str = "new_embodiment", **settings):
    from lerobot.policies.groot.configuration_groot import GrootConfig
    from lerobot.policies.groot.modeling_groot import GrootPolicy
    from lerobot.policies.groot.processor_groot import make_groot_pre_post_processors as processors

    side = 224 if real else 56
    features = _features({"wrist": (3, side, side), "base": (3, side, side)} if not real else {"base": (3, side, side)})
    settings = {"chunk_size": 16, "n_action_steps": 16} | settings
    config = GrootConfig(**features, base_model_path=groot_base(folder / "base", real, embodiments), embodiment_tag=tag,
                         tokenizer_assets_repo=eagle(folder / "eagle", real), use_bf16=False, **settings)
    pre, post = processors(config, dataset_statistics(features))
    if not real:
        pre.steps[2].embodiment_mapping = {"new_embodiment": embodiments - 1, "so100": 0}
    policy = frontend_groot.FAMILY.make(GrootPolicy, config)
    _unlike_fresh(policy)
    return policy, (pre, post)


def clip(folder: Path) -> str:
    """A tiny CLIP with its tokenizer: what LeRobot downloads."""
    from tokenizers import processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"eos_token_id": 1, "bos_token_id": 2, "pad_token_id": 1}
    config = CLIPConfig(text_config=small | ids | {"vocab_size": 512, "max_position_embeddings": 77},
                        vision_config=small | {"image_size": 64, "patch_size": 16}, projection_dim=32)
    CLIPModel(config).save_pretrained(folder)
    bpe = trained_tokenizer(["<unk>", "<eos>", "<bos>"])
    bpe.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>",
                                                       special_tokens=[("<bos>", 2), ("<eos>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<eos>", eos_token="<eos>", bos_token="<bos>",
                            unk_token="<unk>").save_pretrained(folder)
    return str(folder)


def multi_task_dit(folder: Path, real: bool, **settings):
    """Of LeRobot 0.6."""
    from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
    from lerobot.policies.multi_task_dit.modeling_multi_task_dit import MultiTaskDiTPolicy
    from lerobot.policies.multi_task_dit.processor_multi_task_dit import (
        make_multi_task_dit_pre_post_processors as processors,
    )

    features, encoder = _features(dict.fromkeys(("top", "wrist"), (3, 72, 96))), clip(folder / "clip")
    tiny = {"hidden_dim": 64, "num_layers": 2, "num_heads": 4, "timestep_embed_dim": 32, "image_crop_shape": (64, 64)}
    config = MultiTaskDiTConfig(**features, vision_encoder_name=encoder, text_encoder_name=encoder, **tiny, **settings)
    policy = MultiTaskDiTPolicy(config)
    _unlike_fresh(policy)
    for block in policy.noise_predictor.transformer_blocks:  # zero in a fresh policy
        torch.nn.init.normal_(block.adaLN_modulation[-1].weight, std=0.05)
    return policy, processors(config, dataset_statistics(features))


MAKERS = {"act": act, "diffusion": diffusion, "groot": groot, "multi_task_dit": multi_task_dit, "pi0": pi0,
          "pi05": pi05, "smolvla": smolvla, "vqbet": vqbet}
SMALL = {"pi0": small_gemma, "pi05": small_gemma}  # where the size is not in the configuration


@contextlib.contextmanager
def eagle_runs() -> Iterator[None]:
    """Inside, LeRobot's own GR00T runs: its processor is built from its own copy of the code, not from a download of
    the same, and of dm-tree there is the one function that it calls."""
    from types import SimpleNamespace

    from lerobot.policies.groot import groot_n1, processor_groot
    from transformers import BatchFeature

    over = SimpleNamespace(map_structure=lambda f, batch: BatchFeature({k: f(v) for k, v in batch.items()}))
    with mock.patch.object(groot_n1, "tree", over), mock.patch.object(
            processor_groot, "_build_eagle_processor", lambda assets: n15.processor(frontend_groot.eagle_of(assets))):
        yield


@contextlib.contextmanager
def sized(kind: str, real: bool) -> Iterator[None]:
    """Inside, a policy of this kind is built at this size."""
    with lerobot_importable():
        small = contextlib.nullcontext() if real or kind not in SMALL else SMALL[kind](kind)
        with small:
            yield


def write(kind: str, folder: Path, real: bool = False, weights: bool = True,
          change: Callable[[torch.nn.Module], None] = lambda policy: None, **settings) -> torch.nn.Module:
    """Save a checkpoint with its processors; the policy that was saved. weights: False makes and saves none. change:
    of the weights."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    with sized(kind, real), contextlib.nullcontext() if weights else weightless():
        policy, (pre, post) = MAKERS[kind](folder, real, **settings)
        change(policy)
        (policy.eval() if weights else policy.config).save_pretrained(folder)
        pre.save_pretrained(folder)
        post.save_pretrained(folder)
    return policy
