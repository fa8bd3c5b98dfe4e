"""Files as Flax and orbax write them, small, in flax_files.json:

    .venv/environments/octo-jax/bin/python -m tests.frontends.record_flax

The environment is that of tests/zoo/oracles/record_octo.py, orbax 0.4 as of the published checkpoints. Each is {path:
base64}. The tree has tensors of several types, one of them in two chunks.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from unittest import mock

import flax
import jax.numpy as jnp
import msgpack
import numpy as np
import orbax.checkpoint
from flax import serialization
from flax.training import orbax_utils
from flax.traverse_util import flatten_dict

RECORDED = Path(__file__).with_name("flax_files.json")
TREE = {"params": {"a_0": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4) / 8},
                   "layers": {"w": np.arange(24, dtype=np.float16).reshape(2, 3, 4)},
                   "b": jnp.asarray([1.5, -2.0], jnp.bfloat16)}, "step": np.asarray(7, np.int32)}


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): base64.b64encode(p.read_bytes()).decode()
            for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size < 4096}


def orbax_folder(together: bool) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as name:
        manager = orbax.checkpoint.CheckpointManager(Path(name) / "x", orbax.checkpoint.PyTreeCheckpointer())
        for step in (9, 10):
            tree = TREE if step == 10 else {"other": np.zeros(1, np.float32)}
            arguments = {"save_args": orbax_utils.save_args_from_target(tree)} if together else None
            manager.save(step, tree, arguments)
        return content(Path(name) / "x")


def record() -> None:
    with mock.patch.object(serialization, "MAX_CHUNK_SIZE", 48):
        whole = serialization.msgpack_serialize(serialization.to_state_dict(TREE))
    stream = b"".join(msgpack.Packer().pack((key, serialization.to_bytes(value)))
                      for key, value in flatten_dict(TREE["params"]).items())
    found = {"flax": flax.__version__, "orbax": orbax.checkpoint.__version__,
             "whole": base64.b64encode(whole).decode(), "stream": base64.b64encode(stream).decode(),
             "orbax, together": orbax_folder(together=True), "orbax, apart": orbax_folder(together=False)}
    RECORDED.write_text("{" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in found.items()) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    record()
