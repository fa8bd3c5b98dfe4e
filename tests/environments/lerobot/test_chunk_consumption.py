"""LeRobot's own ensembler, action queue, prefix weights and FAST decoding: what
tests/golden/lerobot_chunk_consumption.json holds, which libvlart is compared with where LeRobot is not installed.
`--update-golden` writes it."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="LeRobot has an environment of its own: make test-lerobot")

FILE = Path(__file__).parents[2] / "golden/lerobot_chunk_consumption.json"
DELAYS, POPS = (0, 2, 1, 3, 0), (4, 3, 4, 2, 6)


def _ensemble(rng: np.random.Generator, decay: float = 0.01, ticks: int = 24, steps: int = 5, dim: int = 2) -> dict:
    from lerobot.policies.act.modeling_act import ACTTemporalEnsembler

    ensembler = ACTTemporalEnsembler(decay, steps)
    chunks = rng.normal(size=(ticks, steps, dim)).astype(np.float32)
    actions = [ensembler.update(torch.from_numpy(c)[None].clone())[0].tolist() for c in chunks]
    return {"decay": decay, "chunks": chunks.tolist(), "actions": actions}


def _queue(rng: np.random.Generator, steps: int = 8, dim: int = 2) -> dict:
    """Five replans; DELAYS actions are taken while each is computed, POPS after it."""
    from lerobot.policies.rtc.action_queue import ActionQueue
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    queue = ActionQueue(RTCConfig(enabled=True))
    chunks = rng.normal(size=(len(DELAYS), steps, dim)).astype(np.float32)
    actions = []
    for chunk, delay, pops in zip(chunks, DELAYS, POPS, strict=True):
        before = queue.get_action_index()
        actions += [queue.get().tolist() for _ in range(delay)]
        queue.merge(torch.from_numpy(chunk), torch.from_numpy(chunk), delay, before)
        actions += [queue.get().tolist() for _ in range(pops)]
    return {"chunks": chunks.tolist(), "delays": DELAYS, "pops": POPS, "actions": actions}


def _weights() -> list[dict]:
    from lerobot.configs.types import RTCAttentionSchedule
    from lerobot.policies.rtc.configuration_rtc import RTCConfig
    from lerobot.policies.rtc.modeling_rtc import RTCProcessor

    rows = []
    for schedule in ("zeros", "ones", "linear", "exp"):
        for steps, delay, horizon in ((10, 3, 6), (10, 0, 10), (4, 2, 2), (12, 4, 3)):
            processor = RTCProcessor(RTCConfig(prefix_attention_schedule=RTCAttentionSchedule[schedule.upper()]))
            weights = processor.get_prefix_weights(delay, horizon, steps)
            rows.append({"schedule": schedule, "steps": steps, "delay": delay, "horizon": horizon,
                         "weights": weights.tolist()})
    return rows


def _fast(rng: np.random.Generator, steps: int = 4, dim: int = 2, scale: float = 10.0, lowest: int = -354) -> dict:
    """LeRobot's decoding of FAST tokens, relaxed, of sequences that are right, too short and too long. SciPy's inverse
    DCT is not installed beside it: its definition stands in."""
    from unittest import mock

    from lerobot.policies.pi0_fast import modeling_pi0_fast as original
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    def texts(count: int) -> list[str]:
        return ["".join(chr(int(v) - lowest) for v in np.around(rng.normal(size=steps * dim) * 3))
                for _ in range(count)]

    def idct(x: np.ndarray, axis: int, norm: str) -> np.ndarray:
        assert axis == 0 and norm == "ortho"
        n, k = np.arange(len(x))[:, None], np.arange(len(x))[None]
        return np.where(k == 0, 1, 2**0.5) / len(x)**0.5 * np.cos(np.pi * (2 * n + 1) * k / (2 * len(x))) @ x

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.train_from_iterator(texts(200), trainers.BpeTrainer(vocab_size=80, show_progress=False))
    sequences = []
    for number, text in enumerate(texts(12)):
        sequences.append(bpe.encode(text[: [None, -1, -3][number % 3]] + text[:2] * (number % 4 == 3)).ids)
    policy = SimpleNamespace(action_tokenizer=SimpleNamespace(bpe_tokenizer=bpe, min_token=lowest, scale=scale))
    with mock.patch.object(original, "idct", idct):
        actions = original.PI0FastPolicy.decode_actions_with_fast(policy, sequences, steps, dim, relaxed_decoding=True)
    return {"tokenizer": bpe.to_str(), "min_token": lowest, "scale": scale, "sequences": sequences,
            "actions": actions.tolist()}


def test_the_committed_outputs_are_lerobots(request):
    rng = np.random.default_rng(0)
    with lerobot_importable():
        made = {"made_by": f"lerobot {importlib.metadata.version('lerobot')}", "ensemble": _ensemble(rng),
                "realtime_queue": _queue(rng), "prefix_weights": _weights(), "fast": _fast(rng)}
    if request.config.getoption("--update-golden"):
        assert not os.environ.get("CI"), "golden files are not rewritten in CI"
        FILE.write_text(json.dumps(made) + "\n", encoding="utf-8")
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    assert kept["made_by"] == made["made_by"] and kept.keys() == made.keys()
    for part in ("ensemble", "realtime_queue"):
        for key, value in made[part].items():
            np.testing.assert_allclose(kept[part][key], value, atol=1e-6, err_msg=f"{part}.{key}")
    assert kept["fast"]["sequences"] == made["fast"]["sequences"]
    np.testing.assert_allclose(kept["fast"]["actions"], made["fast"]["actions"], atol=1e-9)
    for a, b in zip(kept["prefix_weights"], made["prefix_weights"], strict=True):
        np.testing.assert_allclose(a.pop("weights"), b.pop("weights"), atol=1e-6)
        assert a == b
