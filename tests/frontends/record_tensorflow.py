"""A checkpoint that TensorFlow wrote, as tests/frontends/tensorflow_files.json:

    .venv/environments/tensorflow/bin/python -m tests.frontends.record_tensorflow

The environment is that of tests/zoo/oracles/record_rt_1.py.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path

import tensorflow as tf

RECORDED = Path(__file__).with_name("tensorflow_files.json")


def record() -> None:
    part, whole = tf.Module(), tf.Module()
    part.kernel = tf.Variable(tf.reshape(tf.range(12.0), [3, 4]) / 8)
    part.half = tf.Variable(tf.cast([1.5, -2.0], tf.float16))
    whole.layers = [tf.Variable(tf.cast([i, i + 1], tf.bfloat16)) for i in range(12)]
    whole.part, whole.on, whole.step = part, tf.Variable([True, False]), tf.Variable(7, dtype=tf.int64)
    whole.nothing = tf.Variable(tf.zeros([0, 3]))
    with tempfile.TemporaryDirectory() as folder:
        tf.train.Checkpoint(whole).write(f"{folder}/x")
        files = {p.name: base64.b64encode(p.read_bytes()).decode() for p in sorted(Path(folder).iterdir())}
    RECORDED.write_text(json.dumps({"tensorflow": tf.__version__, "files": files}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
