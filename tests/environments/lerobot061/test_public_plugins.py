"""Plugins that other people published, as their packages are: built without a word about them, or refused by name.

Skipped where they are not installed: vlacompile frontends --install lerobot061 --also NAME, for each of PACKAGES.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed
from tests.environments.lerobot061.registered import FRAME, bert, both, features, tokenizer, write
from tests.environments.lerobot061.test_parity import SHARE
from vlacompile.frontends.environments import ENVIRONMENTS
from vlart.errors import SourceError

ACT = {"dim_model": 64, "n_heads": 4, "dim_feedforward": 128, "n_encoder_layers": 2, "n_decoder_layers": 1,
       "n_vae_encoder_layers": 1, "chunk_size": 16, "n_action_steps": 8}
TURBO = {"image_size": 64, "dim_model": 32, "n_heads": 4, "dim_feedforward": 64, "n_fusion_layers": 2,
         "n_decoder_layers": 2}
PACKAGES = {  # type: package
    "turbovla": "lerobot_policy_turbovla", "turbovla_so101": "lerobot_policy_turbovla_so101",
    "dp_lang": "lerobot_policy_dp_lang", "act_ttt": "lerobot_policy_act_ttt",
    "rpdpolicy": "lerobot_policy_rpdpolicy", "act_smooth": "lerobot_policy_act_smooth"}
REFUSED = {  # settings, what is said
    "act_ttt": (ACT | {"pretrained_backbone_weights": None}, "the policy remembers more than it declares"),
    "rpdpolicy": ({"action_dim": 6, "state_dim": 6, "backbone_name": "convnext_atto", "fpn_channels": 32,
                   "dim_model": 64, "n_heads": 4, "n_encoder_layers": 2, "n_decoder_layers": 1, "chunk_size": 16,
                   "dim_feedforward": 128, "n_vae_encoder_layers": 1}, "the actions depend on no observation"),
    "act_smooth": (ACT | {"pretrained_backbone_weights": None}, "the policy does not run as LeRobot runs it"),
}


def needs(kind: str):
    """The test's parameter."""
    there = ENVIRONMENTS["lerobot061"].is_here() and any(
        (d.metadata["Name"] or "").replace("-", "_") == PACKAGES[kind] for d in importlib.metadata.distributions())
    return pytest.param(kind, marks=pytest.mark.skipif(not there, reason="needs the plugin in lerobot061: vlacompile "
                                                       f"frontends --install lerobot061 --also {PACKAGES[kind]}"))


def dinov2(folder: Path) -> str:
    from transformers import Dinov2Config

    Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, patch_size=16,
                 image_size=64).save_pretrained(folder)
    return str(folder)


def distilbert(folder: Path) -> str:
    from transformers import DistilBertConfig

    DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=512,
                     max_position_embeddings=64).save_pretrained(folder)
    return tokenizer(folder)


def _features(kind: str) -> dict:
    """The cameras' names are in the code of dp_lang."""
    from lerobot.configs.types import FeatureType, PolicyFeature

    own = features(kind)
    if kind == "dp_lang":
        cameras = {f"observation.image_{n}": PolicyFeature(FeatureType.VISUAL, FRAME) for n in ("4", "wrist")}
        own["input_features"] = cameras | {"observation.state": own["input_features"]["observation.state"]}
    return own


def _settings(kind: str, folder: Path) -> dict:
    if kind == "dp_lang":
        return {"tokenizer": distilbert(folder / "language"), "down_dims": (32, 64), "diffusion_step_embed_dim": 16,
                "num_train_timesteps": 10, "num_inference_steps": 4, "noise_scheduler_type": "DDIM",
                "spatial_softmax_num_keypoints": 8}
    return TURBO | {"vision_backbone": dinov2(folder / "vision"), "language_backbone": bert(folder / "language")}


@pytest.mark.parametrize("kind", [needs(k) for k in ("turbovla", "turbovla_so101", "dp_lang")])
def test_a_published_plugin_is_built_as_it_is(kind, tmp_path, record_property):
    folder = tmp_path / "pretrained_model"
    policy = write(kind, folder, _features, **_settings(kind, tmp_path))
    bundle, seconds = timed(lambda: vc.build(folder, out=tmp_path / "a.vlab"))
    got, want = both(bundle, folder, policy, policy.config.n_action_steps)
    share = share_of_spread(got, want)
    assert share < SHARE
    compared(record_property, bundle, share, files="LeRobot 0.6.1", policy=f"{kind} (plugin)", oracle="LeRobot 0.6.1",
             seconds=seconds)


@pytest.mark.parametrize("kind", [needs(k) for k in REFUSED])
def test_a_published_plugin_is_refused_for_what_it_does(kind, tmp_path):
    settings, said = REFUSED[kind]
    write(kind, tmp_path / "c", **settings)
    with pytest.raises(SourceError, match=said):
        vc.build(tmp_path / "c", out=tmp_path / "a.vlab")
