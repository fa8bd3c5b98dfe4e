"""Runs the authors' Octo, which is written in JAX, on seeded inputs, and lists the parameters of its published sizes:

    python -m venv .venv/environments/octo-jax
    .venv/environments/octo-jax/bin/pip install jax==0.4.20 jaxlib==0.4.20 flax==0.7.5 distrax==0.1.5 chex==0.1.85 \
        optax==0.1.5 tensorflow_probability==0.23.0 "orbax-checkpoint<0.5" transformers==4.34.1 numpy==1.26.4 \
        "scipy<1.13" einops ml_collections safetensors torch
    .venv/environments/octo-jax/bin/python -m tests.zoo.oracles.record_octo OCTO

OCTO: a checkout of octo-models/octo, 241fb35.
"""

from __future__ import annotations

import functools
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.zoo.checkpoints.recorded import write
from tests.zoo.oracles.octo_inputs import ADDED, CASES, FRAMES, MASK, NOISE, RECORDED, TOKENS, weight_of_jax
from vlacompile.zoo.systems.octo import ACTION, HORIZON, LARGE, LONGEST, SMALL, Sizes


def _text_settings(sizes: Sizes) -> transformers.T5Config:
    text = sizes.text
    return transformers.T5Config(vocab_size=text.vocabulary, d_model=text.width, d_kv=text.dim, d_ff=text.hidden,
                                 num_layers=text.depth, num_heads=text.heads)


def octo(sizes: Sizes):
    """The authors' module, as scripts/configs/octo_pretrain_config.py sets it up."""
    from octo.model.components import vit_encoders
    from octo.model.components.action_heads import DiffusionActionHead
    from octo.model.components.tokenizers import ImageTokenizer, LanguageTokenizer
    from octo.model.octo_module import OctoModule
    from octo.utils.spec import ModuleSpec

    linen = vit_encoders.nn  # its norm has 32 groups where nothing else is said
    vit_encoders.nn = types.SimpleNamespace(**vars(linen) | {
        "GroupNorm": functools.partial(linen.GroupNorm, num_groups=sizes.groups)})
    stem = ModuleSpec.create(vit_encoders.SmallStem16, features=sizes.stem, num_features=sizes.features)
    cameras = {name: ModuleSpec.create(ImageTokenizer, obs_stack_keys=[f"image_{name}"],
                                       task_stack_keys=[f"image_{name}"], encoder=stem) for name in FRAMES}
    return OctoModule.create(
        observation_tokenizers=cameras, task_tokenizers={
            "language": ModuleSpec.create(LanguageTokenizer, encoder="t5-base", finetune_encoder=False)},
        heads={"action": ModuleSpec.create(
            DiffusionActionHead, readout_key="readout_action", use_map=False, action_horizon=HORIZON,
            action_dim=ACTION, n_diffusion_samples=1, dropout_rate=0.0, hidden_dim=sizes.head)},
        readouts={"action": 1}, token_embedding_size=sizes.width, max_horizon=LONGEST, repeat_task_tokens=True,
        use_correct_attention=True, transformer_kwargs={
            "num_layers": sizes.depth, "mlp_dim": 4 * sizes.width, "num_attention_heads": sizes.heads,
            "dropout_rate": 0.0, "attention_dropout_rate": 0.0, "add_position_embedding": False})


def inputs(frames: dict[str, np.ndarray], seen: list[bool]) -> tuple:
    observation = {f"image_{name}": jnp.asarray(x) for name, x in frames.items()} | {
        "pad_mask_dict": {f"image_{name}": jnp.ones(x.shape[:2], bool) for name, x in frames.items()}}
    task = {"language_instruction": {"input_ids": jnp.asarray(TOKENS.numpy()),
                                     "attention_mask": jnp.asarray(MASK.numpy().astype(np.int32))},
            "pad_mask_dict": {"language_instruction": jnp.ones(1, bool)}}
    return observation, task, jnp.asarray([seen])


def shapes_of(sizes: Sizes, module) -> dict[str, tuple[int, ...]]:
    frames = {name: np.zeros((1, 2, side, side, 3), np.uint8) for name, side in zip(FRAMES, sizes.sides, strict=True)}
    init = functools.partial(module.init, train=False)
    made = jax.eval_shape(init, jax.random.PRNGKey(0), *inputs(frames, [True, True]))
    return {".".join(keys): x.shape for keys, x in flatten_dict(made["params"]).items()}


def _next(drawn: Iterator[torch.Tensor], original, key, shape: tuple[int, ...], *dtype) -> jax.Array:
    """Instead of what jax.random draws for the sampler; Flax asks for the shape of a parameter with its type."""
    if dtype:
        return original(key, shape, *dtype)
    found = jnp.asarray(next(drawn).numpy())
    assert found.shape == shape
    return found


def record(checkout: Path) -> None:
    sys.path.insert(0, str(checkout))
    encoder = functools.partial(transformers.FlaxT5EncoderModel, _do_init=False)
    real, tiny = {}, SMALL["small"]
    with mock.patch.object(transformers, "FlaxT5EncoderModel", encoder):
        for variant, sizes in LARGE.items():
            with mock.patch.object(transformers.AutoConfig, "from_pretrained", lambda name, s=sizes: _text_settings(s)):
                real[variant] = shapes_of(sizes, octo(sizes))
        with mock.patch.object(transformers.AutoConfig, "from_pretrained", lambda name: _text_settings(tiny)):
            module, chunks = octo(tiny), []
            shapes = shapes_of(tiny, module)
            parameters = unflatten_dict({tuple(n.split(".")): jnp.asarray(weight_of_jax(n, s).numpy())
                                         for n, s in shapes.items()})
            for seen in CASES:
                bound = module.bind({"params": parameters})
                read = bound.octo_transformer(*inputs({n: x.numpy() for n, x in FRAMES.items()}, seen), train=False)
                drawn = iter([torch.stack([NOISE, NOISE], 1), *(z.expand(1, 2, -1) for z in ADDED)])
                given = functools.partial(_next, drawn, jax.random.normal)
                with mock.patch.object(jax.random, "normal", given), jax.disable_jit():
                    chunk = bound.heads["action"].predict_action(read, jax.random.PRNGKey(0), train=False)
                chunks.append([[float(f"{x:.7g}") for x in row] for row in np.asarray(chunk)[0].tolist()])
    import flax

    versions = {"jax": jax.__version__, "flax": flax.__version__, "transformers": transformers.__version__}
    write("octo", checkout, real, **versions)
    found = {"versions": versions, "shapes": {n: list(s) for n, s in shapes.items()}, "chunks": chunks}
    RECORDED.write_text("{" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in found.items()) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
