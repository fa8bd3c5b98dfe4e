"""Runs openpi's pi0-FAST, which is written in JAX, on seeded inputs and records the tokens that it writes:

    python -m venv .venv/environments/openpi-jax
    .venv/environments/openpi-jax/bin/pip install jax==0.10.2 flax==0.12.8 einops jaxtyping beartype ml_collections \
        numpy torch
    .venv/environments/openpi-jax/bin/python -m tests.zoo.oracles.record_pi0_fast OPENPI

OPENPI: a checkout of Physical-Intelligence/openpi, 15a9616.
"""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import torch

from tests.samples.weights_by_name import weight
from tests.zoo.oracles.recorded import FOLDER, grey_levels, numbers
from vlacompile.zoo.blocks.paligemma import SMALL

MOST, USED, LENGTH, SEEDS = 12, 9, 20, range(4)
CAMERAS = ("base_0_rgb", "base_1_rgb", "wrist_0_rgb")  # in the order of the prefix
FAINTER = 0.1  # of the embedding's rows: otherwise a token is followed by itself


def frames(seed: int) -> list[torch.Tensor]:
    side = SMALL.vision.side
    return [grey_levels(10 * seed + i, 1, 2, 2, 3).repeat_interleave(side // 2, 1).repeat_interleave(side // 2, 2)
            if i != 1 else torch.zeros(1, side, side, 3, dtype=torch.uint8) for i in range(len(CAMERAS))]


def text(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.from_numpy(numbers(seed + 500, 1, LENGTH).numpy().argsort() * 7 + 3)
    mask = torch.arange(LENGTH)[None] < USED + seed
    return ids * mask, mask


def weights() -> dict[str, torch.Tensor]:
    """By transformers' names, of the zoo's module."""
    from vlacompile.zoo.blocks.paligemma import PaliGemma

    found = {n: weight(n, t.shape) for n, t in PaliGemma(SMALL).state_dict().items() if t.is_floating_point()}
    for name, tensor in found.items():
        if name.startswith("language_model") and name.endswith("norm.weight"):
            tensor -= 1.0  # Gemma adds it
    found["language_model.embed_tokens.weight"] *= FAINTER
    return found


def _put(tree: dict, path: str, value: np.ndarray) -> None:
    *folders, name = path.split("/")
    for folder in folders:
        tree = tree[folder]
    assert tree[name].shape == value.shape, (path, tree[name].shape, value.shape)
    tree[name] = value


def language(tree: dict, known: dict[str, np.ndarray]) -> dict:
    sizes = SMALL.language

    def stacked(name: str) -> np.ndarray:
        return np.stack([known[f"language_model.layers.{i}.{name}.weight"] for i in range(sizes.depth)])

    def heads(name: str, count: int) -> np.ndarray:
        """[layers, heads*dim, width] -> [layers, heads, width, dim]"""
        return stacked(name).reshape(sizes.depth, count, sizes.dim, sizes.width).transpose(0, 1, 3, 2)

    kv = [heads(f"self_attn.{n}_proj", sizes.kv_heads) for n in "kv"]
    out = stacked("self_attn.o_proj").reshape(sizes.depth, sizes.width, sizes.heads, sizes.dim).transpose(0, 2, 3, 1)
    for path, value in {
            "embedder/input_embedding": known["language_model.embed_tokens.weight"],
            "final_norm/scale": known["language_model.norm.weight"],
            "layers/attn/q_einsum/w": heads("self_attn.q_proj", sizes.heads),
            "layers/attn/kv_einsum/w": np.stack(kv, 1), "layers/attn/attn_vec_einsum/w": out,
            "layers/mlp/gating_einsum": np.stack([stacked(f"mlp.{n}_proj").transpose(0, 2, 1) for n in ("gate", "up")],
                                                 1),
            "layers/mlp/linear": stacked("mlp.down_proj").transpose(0, 2, 1),
            "layers/pre_attention_norm/scale": stacked("input_layernorm"),
            "layers/pre_ffw_norm/scale": stacked("post_attention_layernorm")}.items():
        _put(tree, path, value)
    return tree


def vision(tree: dict, known: dict[str, np.ndarray]) -> dict:
    sizes, tower = SMALL.vision, "vision_tower.vision_model."
    dim = sizes.width // sizes.heads

    def stacked(name: str) -> np.ndarray:
        return np.stack([known[f"{tower}encoder.layers.{i}.{name}"] for i in range(sizes.depth)])

    block, own = "Transformer/encoderblock/", "MultiHeadDotProductAttention_0/"
    _put(tree, "embedding/kernel", known[f"{tower}embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0))
    _put(tree, "embedding/bias", known[f"{tower}embeddings.patch_embedding.bias"])
    _put(tree, "pos_embedding", known[f"{tower}embeddings.position_embedding.weight"][None])
    for theirs, ours in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        matrix = stacked(f"self_attn.{ours}.weight").transpose(0, 2, 1)
        _put(tree, f"{block}{own}{theirs}/kernel", matrix.reshape(sizes.depth, sizes.width, sizes.heads, dim))
        _put(tree, f"{block}{own}{theirs}/bias",
             stacked(f"self_attn.{ours}.bias").reshape(sizes.depth, sizes.heads, dim))
    matrix = stacked("self_attn.out_proj.weight").transpose(0, 2, 1)
    _put(tree, f"{block}{own}out/kernel", matrix.reshape(sizes.depth, sizes.heads, dim, sizes.width))
    _put(tree, f"{block}{own}out/bias", stacked("self_attn.out_proj.bias"))
    for i in range(2):
        _put(tree, f"{block}LayerNorm_{i}/scale", stacked(f"layer_norm{i + 1}.weight"))
        _put(tree, f"{block}LayerNorm_{i}/bias", stacked(f"layer_norm{i + 1}.bias"))
        _put(tree, f"{block}MlpBlock_0/Dense_{i}/kernel", stacked(f"mlp.fc{i + 1}.weight").transpose(0, 2, 1))
        _put(tree, f"{block}MlpBlock_0/Dense_{i}/bias", stacked(f"mlp.fc{i + 1}.bias"))
    for kind, name in (("weight", "scale"), ("bias", "bias")):
        _put(tree, f"Transformer/encoder_norm/{name}", known[f"{tower}post_layernorm.{kind}"])
    _put(tree, "head/kernel", known["multi_modal_projector.linear.weight"].T)
    _put(tree, "head/bias", known["multi_modal_projector.linear.bias"])
    return tree


def model_base() -> types.ModuleType:
    """openpi.models.model: what pi0_fast reads of it, without its packages of augmentation and checkpoints."""
    from flax import nnx

    class BaseModel(nnx.Module):
        def __init__(self, *sizes: int):
            self.sizes = sizes

    module = types.ModuleType("openpi.models.model")
    module.BaseModel, module.BaseModelConfig = BaseModel, object
    module.ModelType = types.SimpleNamespace(PI0_FAST="pi0_fast")
    module.Observation = module.Actions = object
    module.preprocess_observation = lambda rng, observation, **_: observation
    return module


def record(checkout: Path) -> None:
    source = checkout / "src"
    sys.path.insert(0, str(source))
    import einops  # noqa: F401
    import flax
    import jax
    import jax.numpy as jnp
    import openpi.models

    sys.modules["openpi.models.model"] = openpi.models.model = model_base()
    array_typing = types.ModuleType("openpi.shared.array_typing")
    array_typing.typecheck = lambda f: f
    for kind in ("Float", "Bool", "Int"):
        setattr(array_typing, kind, type(kind, (), {"__class_getitem__": classmethod(lambda cls, item: object)}))
    array_typing.Array, array_typing.KeyArrayLike = jax.Array, object
    import openpi.shared

    sys.modules["openpi.shared.array_typing"] = openpi.shared.array_typing = array_typing
    sys.modules["openpi.shared.nnx_utils"] = openpi.shared.nnx_utils = types.ModuleType("nnx_utils")
    from openpi.models import gemma_fast as gemma
    from openpi.models import pi0_fast, siglip

    known, language_sizes, vision_sizes = {n: t.numpy() for n, t in weights().items()}, SMALL.language, SMALL.vision
    config = dict(gemma.get_config("gemma_2b").items()) | {
        "width": language_sizes.width, "depth": language_sizes.depth, "mlp_dim": language_sizes.hidden,
        "num_heads": language_sizes.heads, "num_kv_heads": language_sizes.kv_heads, "head_dim": language_sizes.dim,
        "vocab_size": language_sizes.vocabulary}
    llm = gemma.Module(**config, embed_dtype="float32", cache_dtype="float32")
    img = siglip.Module(num_classes=language_sizes.width, variant=None, patch_size=(vision_sizes.patch,) * 2,
                        width=vision_sizes.width, depth=vision_sizes.depth, mlp_dim=vision_sizes.hidden,
                        num_heads=vision_sizes.heads, pool_type="none", scan=True, dtype_mm="float32")
    side = vision_sizes.side
    seen = jax.tree.map(np.array, img.init(jax.random.key(0), jnp.zeros((1, side, side, 3))))["params"]
    read = flax.linen.Module.init(llm, jax.random.key(0), method=gemma.Module.init)["params"]
    read = jax.tree.map(np.array, read)
    seen, read = (jax.tree.map(jnp.asarray, tree) for tree in (vision(seen, known), language(read, known)))

    class Bound:
        """A Linen module with its parameters, called as nnx's bridge calls it."""

        def __init__(self, module, parameters):
            self.module, self.parameters = module, parameters

        def __call__(self, *args, **kwargs):
            return self.module.apply({"params": self.parameters}, *args, **kwargs)

    model = types.SimpleNamespace(PaliGemma=types.SimpleNamespace(llm=Bound(llm, read), img=Bound(img, seen)))
    model.embed_inputs = lambda obs: pi0_fast.Pi0FAST.embed_inputs(model, obs)
    written = []
    for seed in SEEDS:
        ids, mask = text(seed)
        pictures = {c: jnp.asarray(f.numpy(), jnp.float32) / 255.0 * 2.0 - 1.0
                    for c, f in zip(CAMERAS, frames(seed), strict=True)}
        observation = types.SimpleNamespace(
            images=pictures, image_masks={c: jnp.ones((1,), bool) for c in CAMERAS},
            tokenized_prompt=jnp.asarray(ids.numpy(), jnp.int32), tokenized_prompt_mask=jnp.asarray(mask.numpy()),
            token_ar_mask=jnp.zeros((1, LENGTH), jnp.int32))
        tokens = pi0_fast.Pi0FAST.sample_actions(model, jax.random.key(0), observation, max_decoding_steps=MOST)
        written.append(np.asarray(tokens)[0].astype(int).tolist())
    commit = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True,
                            check=True).stdout.strip()
    found = {"commit": commit, "versions": {"jax": jax.__version__, "flax": flax.__version__}, "written": written}
    (FOLDER / "pi0_fast.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(written)


if __name__ == "__main__":
    record(Path(sys.argv[1]))
