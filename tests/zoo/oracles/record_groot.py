"""What the originals of GR00T N1 and N1.5 do at the zoo's tiny sizes, as groot.json has it. To record it again, with
the interpreter of the environment `lerobot` (LeRobot 0.4.4, whose copy of N1.5 is the original here):

python -m tests.zoo.oracles.record_groot CHECKOUT

CHECKOUT: of NVIDIA/Isaac-GR00T, branch n1-release (recorded: b51a5e8). The originals do not pad the instruction.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

import torch

from tests.samples.shapes import compact
from tests.samples.weights_by_name import draw_weights
from vlacompile.frontends.stub_packages import declare_torchvision_ops, stubbed
from vlacompile.zoo.blocks.groot import ACTION, HORIZON, STATES, STEPS, TEXT, GrootSizes
from vlacompile.zoo.systems import groot_n1, groot_n1_5

RECORDED = Path(__file__).with_name("groot.json")
SEEDS, EVERY, IMAGE = 3, 3, 99  # IMAGE: id of the image's tokens
NOT_CALLED = ("decord", "flash_attn", "peft", "tree", "gr00t.model.gr00t_n1", "gr00t.model.policy")


def inputs(sizes: GrootSizes, seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    side = sizes.vision.side
    tokens = torch.randint(0, IMAGE, (1, TEXT), generator=draw)
    return {"pixels": torch.rand(1, 3, side, side, generator=draw) * 2 - 1, "tokens": tokens,
            "mask": torch.ones_like(tokens, dtype=torch.bool), "state": torch.randn(1, STATES, generator=draw),
            "embodiment": torch.tensor([seed % sizes.embodiments]),
            "noise": torch.randn(1, HORIZON, ACTION, generator=torch.Generator().manual_seed(seed))}


def head_settings(sizes: GrootSizes) -> dict:
    attention = {"dropout": 0.2, "final_dropout": True, "positional_embeddings": None}
    dit = attention | {"interleave_self_attention": True, "norm_type": "ada_norm", "num_layers": sizes.layers,
                       "num_attention_heads": sizes.heads, "attention_head_dim": sizes.head_dim,
                       "output_dim": sizes.hidden}
    head = {"action_dim": ACTION, "action_horizon": HORIZON, "max_state_dim": STATES, "num_timestep_buckets": 1000,
            "num_inference_timesteps": STEPS, "max_num_embodiments": sizes.embodiments, "hidden_size": sizes.hidden,
            "input_embedding_dim": sizes.width, "max_seq_len": sizes.places, "noise_beta_alpha": 1.5,
            "noise_beta_beta": 1.0, "noise_s": 0.999, "backbone_embedding_dim": sizes.seen, "add_pos_embed": True}
    if sizes.mixing is None:
        return head | {"diffusion_model_cfg": dit}
    heads, dim, depth = sizes.mixing
    mixing = attention | {"num_attention_heads": heads, "attention_head_dim": dim, "num_layers": depth}
    return head | {"diffusion_model_cfg": dit | {"cross_attention_dim": sizes.seen}, "vl_self_attention_cfg": mixing,
                   "num_target_vision_tokens": sizes.future, "use_vlln": True}


def vision_settings(sizes: GrootSizes) -> dict:
    vision = sizes.vision
    return {"model_type": "siglip_vision_model", "patch_size": vision.patch, "image_size": vision.side,
            "hidden_size": vision.width, "intermediate_size": vision.hidden, "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.heads}


def text_settings(sizes: GrootSizes, kind: str) -> dict:
    text = sizes.language
    return {"model_type": kind.lower(), "architectures": [f"{kind}ForCausalLM"], "rope_theta": text.base,
            "rms_norm_eps": text.eps, "hidden_size": text.width, "intermediate_size": text.hidden,
            "num_hidden_layers": text.depth, "num_attention_heads": text.heads, "head_dim": text.dim,
            "num_key_value_heads": text.kv_heads, "vocab_size": text.vocabulary, "tie_word_embeddings": True}


def chunks(sizes: GrootSizes, model: torch.nn.Module, features, head: torch.nn.Module) -> dict:
    """features: (pixels, ids) -> of all tokens, from the original's backbone."""
    from transformers.feature_extraction_utils import BatchFeature

    draw_weights(model)
    model.eval()
    count, found = (sizes.vision.rows // sizes.shuffle) ** 2, []
    for seed in range(SEEDS):
        given = inputs(sizes, seed)
        ids = torch.cat([torch.tensor([[*sizes.before, *[IMAGE] * count]]), given["tokens"]], 1)
        torch.manual_seed(seed)  # the noise is the first draw
        with torch.no_grad():
            seen = BatchFeature({"backbone_features": features(given["pixels"], ids)})
            made = head.get_action(seen, BatchFeature({"state": given["state"][:, None],
                                                       "embodiment_id": given["embodiment"]}))["action_pred"]
        found.append([[float(f"{x:.7g}") for x in row] for row in made[0, ::EVERY].tolist()])
    kept = {n: p.shape for n, p in model.named_parameters() if ".vision_model.head." not in n and "lm_head" not in n}
    return {"weights": compact(kept), "chunks": found}


def record_n1_5(folder: Path) -> dict:
    from vlacompile.frontends.groot import n15

    sizes = groot_n1_5.SMALL
    config = {"model_type": "eagle_2_5_vl", "vision_config": vision_settings(sizes), "select_layer": -1,
              "text_config": text_settings(sizes, "Qwen3"), "image_token_index": IMAGE, "use_pixel_shuffle": False,
              "mlp_connector_layers": 1, "downsample_ratio": 0.5}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    backbone = {"project_to_dim": None, "select_layer": sizes.language.depth}
    model = n15.model_of({"action_horizon": HORIZON, "action_dim": ACTION, "action_head_cfg": head_settings(sizes),
                          "backbone_cfg": backbone}, n15.Eagle(str(folder), "here"))

    def features(pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        out = model.backbone.eagle_model(pixels, ids, torch.ones_like(ids), output_hidden_states=True, return_dict=True)
        return model.backbone.eagle_linear(out.hidden_states[sizes.language.depth])

    return chunks(sizes, model, features, model.action_head)


def record_n1(checkout: str) -> dict:
    sys.path.insert(0, checkout)
    from gr00t.model.backbone.eagle_backbone import get_embeddings

    sizes = groot_n1.SMALL
    model = network_of_n1(sizes)
    backbone = model["backbone"]
    return chunks(sizes, model, lambda pixels, ids: backbone["linear"](
        get_embeddings(backbone["model"], False, pixels, ids, torch.ones_like(ids))), model["action_head"])


def network_of_n1(sizes: GrootSizes) -> torch.nn.ModuleDict:
    """With the checkout in the path, and NOT_CALLED stubbed."""
    from gr00t.model.action_head import flow_matching_action_head as flow
    from gr00t.model.backbone.eagle2_hg_model.configuration_eagle_chat import Eagle2ChatConfig
    from gr00t.model.backbone.eagle2_hg_model.modeling_eagle_chat import Eagle2ChatModel

    parts = (settings | {"attn_implementation": "eager"}
             for settings in (vision_settings(sizes), text_settings(sizes, "Llama")))
    config = Eagle2ChatConfig(*parts, template="qwen2-chat", force_image_size=sizes.vision.side)
    eagle = Eagle2ChatModel(config)
    eagle.img_context_token_id, eagle.neftune_alpha = IMAGE, None
    head = flow.FlowmatchingActionHead(flow.FlowmatchingActionHeadConfig(
        **head_settings(sizes), tune_projector=False, tune_diffusion_model=False))
    backbone = torch.nn.ModuleDict({"model": eagle, "linear": torch.nn.Linear(sizes.language.width, sizes.project)})
    return torch.nn.ModuleDict({"backbone": backbone, "action_head": head})


def main(checkout: str) -> None:
    from vlacompile.frontends.lerobot.importing import lerobot_importable

    with lerobot_importable(), tempfile.TemporaryDirectory() as name:
        found = {"n1_5": record_n1_5(Path(name))}
        with stubbed(NOT_CALLED):
            found["n1"] = record_n1(checkout)
    found["versions"] = {n: importlib.metadata.version(n) for n in ("lerobot", "transformers", "diffusers", "torch")}
    lines = ",\n".join(f'"{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in found.items())
    RECORDED.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    declare_torchvision_ops()
    main(*sys.argv[1:])
