"""Runs the authors' RT-1, which is written in TensorFlow, on seeded inputs, and lists the variables of its published
checkpoint:

    python -m venv .venv/environments/tensorflow
    .venv/environments/tensorflow/bin/pip install tensorflow-cpu==2.21.0 tf-keras==2.21.0 torch safetensors
    .venv/environments/tensorflow/bin/python -m tests.zoo.oracles.record_rt_1 FOLDER

FOLDER has a checkout of google-research/robotics_transformer, 4569641, named robotics_transformer. Names and
shapes of the published checkpoint are read from trained_checkpoints/rt1main: the index is in git; of its data, which
are kept elsewhere, a file of the same length is enough.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import types
from pathlib import Path

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.training.py_checkpoint_reader import NewCheckpointReader

from tests.zoo.checkpoints.recorded import write
from tests.zoo.oracles.rt_1_inputs import FRAMES, RECORDED, SIZES, STEPS, TEXTS, weight_of_keras
from vlacompile.zoo.systems.rt_1 import BOUNDS, ENDS, SEEN, WINDOW

GRAPH, VALUE = "_CHECKPOINTABLE_OBJECT_GRAPH", "/.ATTRIBUTES/VARIABLE_VALUE"
ACTIONS = {"terminate_episode": (0, 1), "world_vector": (1, 4), "rotation_delta": (4, 7),
           "gripper_closedness_action": (7, 8), "base_displacement_vertical_rotation": (8, 9),
           "base_displacement_vector": (9, 11)}  # tokens, as the zoo's bounds have them


class Network(tf.Module):
    """In place of tf_agents' base class, of which inference needs its construction."""

    def __init__(self, input_tensor_spec, name=None):
        super().__init__(name)
        self._input_tensor_spec = input_tensor_spec

    def __call__(self, *args, **kwargs):
        return self.call(*args, **kwargs)


def _stand_ins() -> None:
    """For packages of which inference needs a type or nothing."""
    parts = {
        "gin": {"configurable": lambda *args, **kwargs: args[0] if args and callable(args[0]) else lambda made: made},
        "tensor2robot": {}, "tensor2robot.utils": {},
        "tensor2robot.utils.tensorspec_utils": {"TensorSpecStruct": dict},
        "tf_agents": {}, "tf_agents.networks": {}, "tf_agents.networks.network": {"Network": Network},
        "tf_agents.specs": {}, "tf_agents.specs.tensor_spec": {
            "TensorSpec": lambda **words: words, "BoundedTensorSpec": types.SimpleNamespace},
        "tf_agents.utils": {}, "tf_agents.utils.nest_utils": {"get_outer_rank": lambda seen, spec: 1}}
    for name, content in parts.items():
        module = sys.modules[name] = types.ModuleType(name)
        vars(module).update(content)
        owner, _, own = name.rpartition(".")
        if owner:
            setattr(sys.modules[owner], own, module)


def _specs() -> dict:
    found = {}
    for name, (begin, end) in ACTIONS.items():
        low, high = (0, 0) if not begin else BOUNDS[begin - 1]
        found[name] = types.SimpleNamespace(shape=(ENDS if not begin else end - begin,), minimum=low, maximum=high,
                                            dtype=tf.float32 if begin else tf.int32)
    return found


def network() -> Network:
    from robotics_transformer import transformer_network
    from robotics_transformer.film_efficientnet import film_efficientnet_encoder, pretrained_efficientnet_encoder
    from robotics_transformer.tokenizers import image_tokenizer

    def small(include_top: bool, weights: str, include_film: bool) -> tf_keras.Model:
        return film_efficientnet_encoder.EfficientNet(
            SIZES.net.wide, SIZES.net.deep, SIZES.side, model_name="efficientnetb3", include_top=False, weights=None,
            include_film=include_film)

    def get_image_embeddings(self, image, context, training=False):  # the authors' has the places of 300 pixels
        seen = self._tokenizer(image, context=context, training=training)
        return tf.reshape(seen, [-1, seen.shape[1] * seen.shape[2], 512])

    pretrained_efficientnet_encoder._MODELS["b3"] = small
    pretrained_efficientnet_encoder._SIZES["b3"] = SIZES.side
    image_tokenizer.RT1ImageTokenizer.get_image_embeddings = get_image_embeddings
    return transformer_network.TransformerNetwork(
        {}, _specs(), num_layers=SIZES.depth, layer_size=SIZES.head_dim, num_heads=SIZES.heads,
        feed_forward_size=SIZES.width, time_sequence_length=WINDOW, action_order=list(ACTIONS))


def begin() -> dict[str, tf.Tensor]:
    return {"context_image_tokens": tf.zeros([1, WINDOW, SEEN, 1, SIZES.width]),
            "action_tokens": tf.zeros([1, WINDOW, 11, 1, 1], tf.int32), "seq_idx": tf.zeros([1, 1, 1, 1, 1], tf.int32)}


def step(model: Network, state: dict, i: int) -> tuple[np.ndarray, np.ndarray, dict]:
    """(logits of the action tokens, the action in the zoo's order, the state)"""
    seen = {"image": tf.constant(FRAMES[i][None].numpy()),
            "natural_language_embedding": tf.constant(TEXTS[i][None].numpy())}
    action, state = model(seen, dict(state))
    parts = [np.asarray(action[name], np.float32)[0] for name in ACTIONS]
    return model.get_aux_info()["action_predictions_logits"].numpy()[0], np.concatenate(parts), state


def fill(model: Network) -> dict[str, tuple[int, ...]]:
    """With weights by the names that a checkpoint gives them. Their shapes."""
    holder = tf.Module()
    holder._actor_network = model
    saved = tf.train.Checkpoint(agent=holder)
    with tempfile.TemporaryDirectory() as folder:
        old, new = f"{folder}/old", f"{folder}/new"
        reader = NewCheckpointReader(saved.write(old))
        shapes = {n: tuple(s) for n, s in reader.get_variable_to_shape_map().items() if n.endswith(VALUE)}
        types_ = reader.get_variable_to_dtype_map()
        drawn = {n: weight_of_keras(n.removesuffix(VALUE).replace("/", "."), s).numpy() if types_[n] == tf.float32
                 else reader.get_tensor(n) for n, s in shapes.items()}
        drawn[GRAPH] = reader.get_tensor(GRAPH)
        tf.raw_ops.SaveV2(prefix=new, tensor_names=list(drawn), shape_and_slices=[""] * len(drawn),
                          tensors=[tf.constant(x) for x in drawn.values()])
        saved.read(new).assert_existing_objects_matched()
    for layer in model.submodules:
        if isinstance(layer, tf_keras.layers.Normalization):
            layer.finalize_state()  # it computes with a copy of its weights
    return {n.removesuffix(VALUE).replace("/", "."): s for n, s in shapes.items()}


def record(folder: Path) -> None:
    _stand_ins()
    sys.path.insert(0, str(folder))
    model, state = network(), begin()
    step(model, state, 0)  # makes the variables
    shapes, answers = fill(model), []
    for i in range(STEPS):
        logits, action, state = step(model, state, i)
        answers.append({"logits": logits, "action": action})
    checkout = folder / "robotics_transformer"
    index = next((checkout / "trained_checkpoints/rt1main").glob("*.index"))
    published = NewCheckpointReader(str(index.with_suffix("")))
    real = {n.removesuffix(VALUE).replace("/", "."): s for n, s in published.get_variable_to_shape_map().items()
            if n.endswith(VALUE) and "_actor_optimizer" not in n}
    versions = {"tensorflow": tf.__version__, "tf_keras": tf_keras.__version__}
    write("rt_1", checkout, {"": dict(sorted(real.items()))}, **versions)
    told = [{k: [[float(f"{x:.6g}") for x in row] for row in np.atleast_2d(v).tolist()] for k, v in a.items()}
            for a in answers[WINDOW - 1:]]
    found = {"versions": versions, "shapes": {n: list(s) for n, s in shapes.items()}, "steps": told}
    RECORDED.write_text("{" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in found.items()) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
