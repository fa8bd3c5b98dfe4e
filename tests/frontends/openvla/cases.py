"""Small OpenVLA and OpenVLA-OFT policies with every structural constant kept: sizes, statistics, observations. What the
recording of the original and the tests share; runs in old environments too.
"""

from __future__ import annotations

import json

import numpy as np

from tests.samples.recorded_weights import weight

VOCABULARY, EMPTY, PAD, WIDTH, SIDE = 32064, 29871, 32000, 64, 224
TOWER = {"embed_dim": 48, "depth": 3, "num_heads": 16}
TEXT = {"hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": VOCABULARY}
LIBERO = {"chunk": 8, "actions": 7, "state": 8, "norms": "q99", "keys": ("libero_goal_no_noops",)}
ALOHA = {"chunk": 25, "actions": 14, "state": 14, "norms": "bounds", "keys": ("aloha_fold",)}
BRIDGE = {"chunk": 5, "actions": 7, "state": 7, "norms": "q99", "keys": ("bridge_orig", "fractal")}

# head: None of OpenVLA itself; "tokens", "regression" or "diffusion" of OpenVLA-OFT
CASES = {
    "openvla": {"platform": "bridge", "head": None, "images": 1, "backbone": "dinosiglip-vit-so-224px"},
    "openvla-siglip": {"platform": "bridge", "head": None, "images": 1, "backbone": "siglip-vit-so400m"},
    "oft-tokens": {"platform": "bridge", "head": "tokens", "images": 1},
    "oft-regression": {"platform": "libero", "head": "regression", "images": 2, "state": True},
    "oft-film": {"platform": "aloha", "head": "regression", "images": 3, "state": True, "film": True, "rank": 32},
    "oft-diffusion": {"platform": "libero", "head": "diffusion", "images": 2, "steps": 10, "trained_steps": 50},
}
PLATFORMS = {"libero": LIBERO, "aloha": ALOHA, "bridge": BRIDGE}
INSTRUCTIONS = ("lift the Bowl", "open it", "stop")
SEEDS = range(len(INSTRUCTIONS))


def platform_of(case: str) -> dict:
    return PLATFORMS[CASES[case]["platform"]]


def statistics(case: str) -> dict:
    """As a training saves them: of every data set, with all keys."""
    platform, found = platform_of(case), {}
    for i, key in enumerate(platform["keys"]):
        rng = np.random.default_rng(10 + i)
        found[key] = {"num_transitions": 1000, "num_trajectories": 10}
        for name, size in (("action", platform["actions"]), ("proprio", platform["state"])):
            centre, spread = rng.uniform(-1, 1, size).round(4), rng.uniform(0.5, 2, size).round(4)
            found[key][name] = {
                "mean": centre.tolist(), "std": (spread / 2).tolist(), "min": (centre - 2 * spread).tolist(),
                "max": (centre + 2 * spread).tolist(), "q01": (centre - spread).tolist(),
                "q99": (centre + spread).tolist()}
        found[key]["action"]["mask"] = [True] * (platform["actions"] - 1) + [False]
    return found


def observation(case: str, seed: int) -> dict:
    """{"frames": [uint8 [side,side,3]], "state", "noise" [1,H,D] f32, "instruction"}"""
    rng, platform = np.random.default_rng(100 + seed), platform_of(case)
    tile = SIDE // 7
    frames = [rng.integers(0, 256, (7, 7, 3), np.uint8).repeat(tile, 0).repeat(tile, 1)
              for _ in range(CASES[case]["images"])]
    # some numbers lie outside the statistics' range, where they are clipped
    return {"frames": frames, "state": rng.uniform(-3, 3, platform["state"]).astype(np.float32),
            "noise": rng.standard_normal((1, platform["chunk"], platform["actions"]), np.float32),
            "instruction": INSTRUCTIONS[seed]}


def weights(case: str, file: str, shapes: dict) -> dict:
    """{name: tensor}. The rows of action tokens decide between tokens, and for a head of regression sharp attention
    between places: otherwise a chunk is nearly the same action over and over."""
    found = {n: weight(f"{file}:{n}", tuple(s)) for n, s in shapes.items()}
    for name, tensor in found.items():
        if name.endswith("lm_head.weight"):
            tensor[31744:32000] *= 20
        if name.endswith("self_attn.q_proj.weight") and CASES[case]["head"] == "regression":
            tensor *= 8
    return found


def tokenizer() -> str:
    """A tokenizer.json with the tokens of Llama 2's that the policies need, at their places: as its fast tokenizer has
    it, spaces are marks and unknown characters are spelt in bytes."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{b:02X}>": 3 + b for b in range(256)}
    for i, letter in enumerate("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ?:"):
        vocabulary[letter] = 29000 + i
    merges = [("t", "h"), ("th", "e"), ("o", "n"), ("\u2581", "the"), ("I", "n"), ("\u2581", "In"), ("O", "u"),
              ("i", "n"), ("\u2581", "in")]
    for i, (left, right) in enumerate(merges):
        vocabulary[left + right] = 300 + i
    vocabulary["\u2581"] = EMPTY
    special = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} for t, i in (("<unk>", 0), ("<s>", 1), ("</s>", 2), ("<PAD>", PAD))]
    bos = {"id": "<s>", "type_id": 0}
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None, "decoder": None,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": bos},
                                                                    {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocabulary, "merges": [" ".join(m) for m in merges]}})
