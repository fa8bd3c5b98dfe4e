"""What stands in for LeRobot's branch of transformers, against the code that the branch took over.

openpi_chunks.json holds chunks of the tiny policies of `checkpoints.py`, same weights and inputs, computed by others:
"openpi" by LeRobot 0.4.4 on transformers 4.53.2 with the modelling files of openpi's `transformers_replace` copied
over it; "transformers" by PI0ForConditionalGeneration of transformers 5.23.0, weights renamed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.environments.lerobot.checkpoints import sized, write
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot import openpi
from vlacompile.frontends.lerobot.read import MASK, STATE, TOKENS, load_weights

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
CHUNKS = json.loads((Path(__file__).parent / "openpi_chunks.json").read_text(encoding="utf-8"))
EVERY = 7  # of the chunk's steps are in the file


@pytest.fixture(scope="module", params=["pi0", "pi05"])
def policy(request, tmp_path_factory):
    return write(request.param, tmp_path_factory.mktemp(request.param) / "pretrained_model")


def chunk(policy: torch.nn.Module) -> np.ndarray:
    draw = torch.Generator().manual_seed(3)
    batch = {k: torch.rand(1, *f.shape, generator=draw) for k, f in policy.config.image_features.items()}
    batch[STATE], length = torch.randn(1, 6, generator=draw), policy.config.tokenizer_max_length
    batch[TOKENS] = torch.randint(5, 400, (1, length), generator=draw)
    batch[MASK] = torch.arange(length)[None] < 17
    return policy.predict_action_chunk(batch, noise=torch.randn(1, 50, 32, generator=draw))[0].numpy()


def test_chunk_is_that_of_openpi(policy):
    ours = chunk(policy)[::EVERY]
    for who, recorded in CHUNKS[policy.config.type].items():
        np.testing.assert_allclose(ours, recorded["steps"], rtol=0, atol=2e-5, err_msg=who)


def test_another_rule_gives_another_chunk(policy, monkeypatch):
    model = policy.model.paligemma_with_expert.paligemma.model
    scale = model.config.text_config.hidden_size**0.5  # by which released transformers divides
    monkeypatch.setattr(model, "get_image_features", lambda pixels: openpi.image_features(model, pixels) / scale)
    assert np.abs(chunk(policy)[::EVERY] - CHUNKS[policy.config.type]["openpi"]["steps"]).max() > 1e-4


def test_transformers_is_as_it_was(policy):
    from transformers.models.gemma import modeling_gemma
    from transformers.models.paligemma.modeling_paligemma import PaliGemmaModel

    assert openpi.CHECK not in sys.modules
    for thing in (modeling_gemma.GemmaModel, modeling_gemma.GemmaRMSNorm, PaliGemmaModel.get_image_features):
        assert thing.__module__.startswith("transformers."), thing
    assert not hasattr(modeling_gemma, "_gated_residual")


def test_answer_that_nobody_asked_for_is_an_error():
    with pytest.raises(AssertionError, match="did not check"), openpi.accepted_transformers():
        pass


def test_names_of_openpi_are_read(policy):
    """Published checkpoints name their weights without "model." and have a tied embedding under one name."""
    with sized(policy.config.type, real=False):
        other = openpi.make(type(policy), policy.config)
    names = {n.removeprefix("model."): t for n, t in policy.state_dict().items() if "embed_tokens" not in n}
    assert load_weights(other, openpi.weights(other, names)) == ([], [])
    np.testing.assert_array_equal(chunk(other.eval()), chunk(policy))
