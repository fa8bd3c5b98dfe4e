"""A pi0 checkpoint as transformers writes it: tiny, with two loops' worth of structure kept (prefix cache, three
cameras, state token, ten steps), against the model's own sample_actions on the same noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import vlacompile as vc
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.huggingface.pi0 import CAMERAS, MASK, STATE, TEXT_LENGTH, TOKENS
from vlacompile.frontends.quiet import quiet
from vlart.verify.metrics import compare
from vlart.verify.tolerances import tolerance

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["huggingface"].is_here(),
                                reason="needs the environment huggingface: make test-huggingface")
STATE_DIM, ACTION_DIM, SIDE, PATCH, IMAGE_TOKEN = 7, 7, 32, 16, 500
STATISTICS = {"state_mean": [0.1 * i for i in range(STATE_DIM)], "state_std": [1.0 + 0.1 * i for i in range(STATE_DIM)],
              "actions_mean": [0.2] * ACTION_DIM, "actions_std": [0.5] * ACTION_DIM}


def write(folder: Path) -> torch.nn.Module:
    with quiet():
        from transformers import PI0Config, PI0ForConditionalGeneration

        text = {"model_type": "gemma", "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128,
                "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 512}
        vision = {"model_type": "siglip_vision_model", "intermediate_size": 96, "hidden_size": 48, "patch_size": PATCH,
                  "image_size": SIDE, "num_hidden_layers": 2, "num_attention_heads": 4, "vision_use_head": False}
        dit = {"model_type": "gemma", "hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64,
               "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16}
        config = PI0Config(vlm_config={"model_type": "paligemma", "text_config": text, "vision_config": vision,
                                       "projection_dim": 64, "image_token_id": IMAGE_TOKEN},
                           dit_config=dit, chunk_size=8)
        torch.manual_seed(0)
        model = PI0ForConditionalGeneration(config).eval()
        model.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(
        {"image_processor": {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, **STATISTICS}), encoding="utf-8")
    return model


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pi0") / "checkpoint"
    model = write(folder)
    return model, vc.build(folder, out=folder.parent / "a.vlab")


def inputs(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out = {f"observation.images.{c}": rng.integers(0, 256, (1, 2, 2, 3), dtype=np.uint8).repeat(SIDE // 2, 1).repeat(
        SIDE // 2, 2) for c in CAMERAS}
    mask = np.arange(TEXT_LENGTH)[None] < 12
    noise = rng.standard_normal((1, 8, 32)).astype(np.float32)
    return out | {STATE: rng.standard_normal((1, STATE_DIM)).astype(np.float32), MASK: mask, "noise": noise,
                  TOKENS: np.where(mask, rng.integers(3, 400, (1, TEXT_LENGTH)), 0)}


def original(model, seen: dict[str, np.ndarray]) -> np.ndarray:
    """What PI0Processor and the model make of it."""
    pixels = np.stack([(seen[f"observation.images.{c}"][0].transpose(2, 0, 1) / 255 - 0.5) / 0.5 for c in CAMERAS])
    state = np.zeros((1, 32), np.float32)
    state[:, :STATE_DIM] = (seen[STATE] - STATISTICS["state_mean"]) / (np.array(STATISTICS["state_std"]) + 1e-8)
    front = np.full((1, len(CAMERAS) * (SIDE // PATCH) ** 2), IMAGE_TOKEN)
    ids = np.concatenate([front, seen[TOKENS]], 1)
    mask = np.concatenate([np.ones_like(front), seen[MASK].astype(np.int64)], 1)
    with torch.no_grad():
        chunk = model.sample_actions(
            torch.from_numpy(state), torch.from_numpy(ids), torch.from_numpy(pixels[None].astype(np.float32)),
            noise=torch.from_numpy(seen["noise"]), attention_mask=torch.from_numpy(mask),
            pixel_attention_mask=torch.ones(1, len(CAMERAS), dtype=torch.bool)).numpy()
    return chunk[..., :ACTION_DIM] * STATISTICS["actions_std"] + np.array(STATISTICS["actions_mean"])


def compiled(bundle: vc.Bundle, seen: dict[str, np.ndarray]) -> np.ndarray:
    with vc.Session(bundle.path) as session:
        for name, array in seen.items():
            session.write(name, array)
        session.step()
        return session.read("action")


def test_actions_are_those_of_transformers(built):
    model, bundle = built
    for seed in range(3):
        want = original(model, inputs(seed)).astype(np.float32)
        got = compiled(bundle, inputs(seed))
        assert compare(got, want).within(tolerance("f32", "chunk").limit(want)), compare(got, want)


def test_swapped_cameras_fail_the_gate(built):
    model, bundle = built
    seen = inputs(0)
    want = original(model, seen).astype(np.float32)
    first, second = (f"observation.images.{c}" for c in CAMERAS[:2])
    got = compiled(bundle, seen | {first: seen[second], second: seen[first]})
    assert not compare(got, want).within(tolerance("f32", "chunk").limit(want))


def test_ten_steps_are_one_loop_and_the_prefix_stays_outside(built):
    _, bundle = built
    step = next(s for s in bundle.plan.stages if s.sampling is not None)
    assert step.sampling.iterations == 10
    with vc.Session(bundle.path) as session:
        for name, array in inputs(0).items():
            session.write(name, array)
        session.step()
        session.write("noise", inputs(1)["noise"])
        session.step()
        runs = {name: row.runs for name, row in session.stats().stages.items()}
    assert runs[step.name] == 2 and all(n == 1 for name, n in runs.items() if name.startswith(("vision", "language")))
