"""Token embedding and head of pi0 and pi0.5: two weights since LeRobot 0.5, one before. LeRobot 0.4.4 would take the
head, which no training of such a policy touches, for the embedding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import vlacompile as vc
from tests.checkpoint_matrix import variants
from tests.environments.lerobot.checkpoints import sized, write
from tests.environments.lerobot.parity import compiled_actions, noise_for, observation, original_actions
from tests.environments.lerobot061.test_parity import SHARE, loaded
from vlacompile.frontends.environments import ENVIRONMENTS

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
HEAD = "model.paligemma_with_expert.paligemma.lm_head.weight"
EMBEDDING = "model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"


@pytest.mark.parametrize("kind", variants(["pi0", "pi05"], ["pi05"]))
def test_the_embedding_is_the_one_that_was_trained(kind, tmp_path):
    folder = tmp_path / "pretrained_model"
    write(kind, folder, num_inference_steps=2)
    tensors = load_file(folder / "model.safetensors")
    assert float((tensors[HEAD] - tensors[EMBEDDING]).abs().max()) > 0.01, "the file does not tell them apart"
    bundles = {}
    with sized(kind, real=False):
        policy, bundles["trained"] = loaded(folder), vc.build(folder, out=tmp_path / "a.vlab")
        save_file(tensors | {EMBEDDING: tensors[HEAD].clone()}, folder / "model.safetensors")
        bundles["stale"] = vc.build(folder, out=tmp_path / "b.vlab")
    noise, seen = noise_for(bundles["trained"]), observation(policy, 0)
    with torch.no_grad():
        want = original_actions(folder, policy, seen, noise)
    off = {name: np.abs(compiled_actions(bundle, folder, policy, seen, noise) - want).max() / want.std()
           for name, bundle in bundles.items()}
    assert off["trained"] < SHARE and off["stale"] > 100 * SHARE, off
