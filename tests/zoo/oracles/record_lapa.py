"""Runs the authors' LAPA, which is written in JAX, on seeded inputs, with the most probable token where they draw one,
and lists the parameters of its published size:

    .venv/environments/octo-jax/bin/python -m tests.zoo.oracles.record_lapa LAPA TUX

LAPA, TUX: checkouts of LatentActionPretraining/LAPA, 46aca51, and of lhao499/tux. The environment is that of
record_octo.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import flax
import jax
import jax.numpy as jnp
import numpy as np
import transformers
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.zoo.checkpoints.recorded import write
from tests.zoo.oracles.lapa_inputs import RECORDED, SEEDS, SIZES, given
from tests.zoo.oracles.recorded import weight_of_flax
from vlacompile.frontends.stub_packages import stubbed
from vlacompile.zoo.systems.lapa import ACTION, END_OF_PICTURE, LLAMA, OTHER_CODES, PROMPT, VQGAN, Sizes

STUBS = ("wandb", "sentencepiece", "cloudpickle", "gcsfs", "ipdb", "albumentations", "cv2", "decord", "PIL")


def vqgan_of(sizes: Sizes):
    from latent_pretraining.vqgan import VQGANConfig, VQGANModel

    vision = sizes.vision
    return VQGANModel(VQGANConfig.get_default_config({
        "resolution": vision.side, "hidden_channels": vision.channels, "channel_mult": vision.multiples,
        "z_channels": vision.latent, "quantized_embed_dim": vision.latent, "num_embeddings": vision.codes}))


def language_of(sizes: Sizes):
    from latent_pretraining.llama_action import FlaxVideoLLaMAForCausalLM, VideoLLaMAConfig

    text = sizes.language
    config = VideoLLaMAConfig(
        vision_vocab_size=sizes.vision.codes + OTHER_CODES, action_vocab_size=sizes.bins, vocab_size=text.vocabulary,
        hidden_size=text.width, intermediate_size=text.hidden, num_hidden_layers=text.depth,
        num_attention_heads=text.heads, max_sequence_length=512, rms_norm_eps=text.eps, theta=text.base,
        scan_attention=False, scan_mlp=False, scan_layers=True, mesh_dim="1,-1,1,1", sample_mode="action")
    return FlaxVideoLLaMAForCausalLM(config, input_shape=(1, 8), _do_init=False)


def shapes_of(sizes: Sizes) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    side, model, key = sizes.vision.side, language_of(sizes), jax.random.PRNGKey(0)
    vqgan = jax.eval_shape(vqgan_of(sizes).init, key, jnp.zeros((1, side, side, 3)))["params"]
    with mesh(model):
        language = jax.eval_shape(lambda k: model.init_weights(k, (1, 8)), key)
    return tuple({".".join(keys): x.shape for keys, x in flatten_dict(flax.core.unfreeze(tree)).items()}
                 for tree in (vqgan, language))


def mesh(model):
    from latent_pretraining.llama_action import VideoLLaMAConfig

    return VideoLLaMAConfig.get_jax_mesh(model.config.mesh_dim)


def filled(shapes: dict[str, tuple[int, ...]], prefix: str = "") -> dict:
    return unflatten_dict({tuple(n.split(".")): jnp.asarray(weight_of_flax(prefix + n, s).numpy())
                           for n, s in shapes.items()})


def record(checkout: Path, tux: Path) -> None:
    sys.path[:0] = [str(checkout), str(tux)]
    with stubbed(STUBS):
        from latent_pretraining import llama

        sharded = llama.shard_map  # not evaluated outside of jit
        llama.shard_map = lambda *args, **kwargs: jax.jit(sharded(*args, **kwargs))
        of_vqgan, of_language = shapes_of(Sizes())
        layers = {n: s for n, s in of_language.items() if "scan_decoder" not in n} | {
            n.replace("scan_decoder", str(i)): s[1:] for n, s in of_language.items() if "scan_decoder" in n
            for i in range(LLAMA.depth)}
        versions = {"jax": jax.__version__, "flax": flax.__version__, "transformers": transformers.__version__}
        write("lapa", checkout, {"": {f"vqgan.{n}": s for n, s in of_vqgan.items()} | layers}, **versions)
        of_vqgan, of_language = shapes_of(SIZES)
        vqgan, model, found = vqgan_of(SIZES), language_of(SIZES), []
        seen, read = filled(of_vqgan, "vqgan."), filled(of_language)
        assert VQGAN.side == 256
        for seed in SEEDS:
            frame, ids, mask = (t.numpy() for t in given(seed))
            codes = vqgan.apply({"params": seen}, jnp.asarray(frame / 127.5 - 1.0, jnp.float32), method=vqgan.encode)[1]
            picture = [*np.asarray(codes).reshape(-1).tolist(), SIZES.vision.codes + END_OF_PICTURE]
            tokens = np.concatenate([ids, [picture], [SIZES.suffix]], 1)
            behind = tokens.shape[1] - PROMPT
            is_picture = np.zeros_like(tokens, bool)
            is_picture[:, PROMPT: PROMPT + len(picture)] = True
            logits = []

            def most_probable(key, values, axis, logits=logits):
                logits.append(np.asarray(values)[0].tolist())
                return jnp.argmax(values, axis)

            settings = transformers.GenerationConfig(max_new_tokens=ACTION, min_new_tokens=ACTION, pad_token_id=0,
                                                     eos_token_id=2)
            with mesh(model), mock.patch.object(jax.random, "categorical", most_probable):
                said = model.generate_vision(
                    jnp.asarray(tokens), generation_config=settings, params=read, trace=False,
                    vision_masks=jnp.asarray(is_picture), action_masks=jnp.zeros_like(is_picture),
                    attention_mask=jnp.asarray(np.concatenate([mask, np.ones((1, behind), bool)], 1), jnp.int32))
            found.append({"codes": picture, "tokens": np.asarray(said.sequences)[0, -ACTION:].tolist(),
                          "logits": [[float(f"{x:.7g}") for x in row] for row in logits]})
    whole = {"versions": versions, "shapes": {f"vqgan.{n}": s for n, s in of_vqgan.items()} | of_language,
             "answers": found}
    RECORDED.write_text("{" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in whole.items()) + "}\n",
                        encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]))
