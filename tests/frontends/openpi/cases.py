"""Small pi0 and pi0.5 policies with every structural constant kept: configurations, statistics, observations. What the
recording of the original and the tests share; runs in old environments too.
"""

from __future__ import annotations

import json

import numpy as np

VOCABULARY, ACTIONS, SIDE = 1000, 32, 224
VISION = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 16, "image_size": SIDE, "patch_size": 14}
ROBOTS = {  # openpi's names of cameras, numbers of state and action
    "aloha": (("cam_high", "cam_left_wrist", "cam_right_wrist"), 14, 14),
    "droid": (("exterior_image_1_left", "wrist_image_left"), 8, 8),
    "libero": (("image", "wrist_image"), 8, 7),
}
# The configuration, and what its chunk is. padded: the statistics have as many numbers as the model, the rest zeros.
CASES = {
    "pi0_libero": {"robot": "libero", "cameras": 2, "asset": "physical-intelligence/libero"},
    "pi05_libero": {"robot": "libero", "cameras": 2, "asset": "physical-intelligence/libero"},
    "pi05_droid": {"robot": "droid", "cameras": 2, "asset": "droid", "padded": True},
    "pi0_aloha": {"robot": "aloha", "cameras": 3, "asset": "trossen", "padded": True},
    "pi0_aloha_sim": {"robot": "aloha", "cameras": 1, "asset": "lerobot/aloha_sim_transfer_cube_human"},
    "pi05_full_droid_finetune": {"robot": "droid", "cameras": 2, "asset": "droid"},
}
INSTRUCTIONS = (" put the_bowl on it\n", "open the\ndrawer", "stop")
SEEDS = range(len(INSTRUCTIONS))


def is_pi05(case: str) -> bool:
    return case.startswith("pi05")


def statistics(case: str) -> dict:
    """The content of norm_stats.json."""
    _, state, action = ROBOTS[CASES[case]["robot"]]
    found, rng = {}, np.random.default_rng(3)
    for name, size in (("state", state), ("actions", action)):
        centre, spread = rng.uniform(-0.5, 0.5, size).round(4), rng.uniform(0.3, 1, size).round(4)
        rows = {"mean": centre, "std": spread / 2, "q01": centre - spread, "q99": centre + spread}
        width = ACTIONS if CASES[case].get("padded") else size
        found[name] = {k: np.pad(v, (0, width - size)).tolist() for k, v in rows.items()}
    return {"norm_stats": found}


def observation(case: str, seed: int) -> dict:
    """{"frames": {camera: uint8 [side,side,3]}, "state" f32 [d], "instruction"}; ALOHA's grippers in [0, 1]."""
    cameras, state, _ = ROBOTS[CASES[case]["robot"]]
    rng, tile = np.random.default_rng(200 + seed), SIDE // 7
    frames = {c: rng.integers(0, 256, (7, 7, 3), np.uint8).repeat(tile, 0).repeat(tile, 1)
              for c in cameras[: CASES[case]["cameras"]]}
    read = rng.uniform(-0.8, 0.8, state).astype(np.float32)
    if CASES[case]["robot"] == "aloha":
        read[[6, 13]] = np.abs(read[[6, 13]])
    return {"frames": frames, "state": read, "instruction": INSTRUCTIONS[seed]}


def noise(horizon: int, seed: int) -> np.ndarray:
    return np.random.default_rng(300 + seed).standard_normal((1, horizon, ACTIONS), np.float32)


def tokenizer() -> str:
    """A tokenizer.json of PaliGemma's kind: spaces are marks, unknown characters are spelt in bytes, a line break has a
    token of its own; the beginning is added by the post-processor."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3} | {f"<0x{b:02X}>": 4 + b for b in range(256)}
    for i, letter in enumerate("abcdefghijklmnopqrstuvwxyzATS0123456789:;,\n\u2581"):
        vocabulary[letter] = 300 + i
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the"), ("o", "n"), ("\u2581", "on"), ("\u2581", "1"),
              ("\u2581", "2")]
    for i, (left, right) in enumerate(merges):
        vocabulary[left + right] = 400 + i
    special = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} for i, t in enumerate(("<pad>", "<eos>", "<bos>", "<unk>"))]
    first = [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": None, "decoder": None,
        "post_processor": {"type": "TemplateProcessing", "single": first,
                           "pair": [*first, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocabulary, "merges": [" ".join(m) for m in merges]}})
