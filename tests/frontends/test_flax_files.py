"""Files that Flax and orbax wrote (recorded by record_flax.py), read without them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vlacompile.frontends.flax_files import flax_file, orbax_file
from vlart.errors import SourceError

RECORDED = json.loads(Path(__file__).with_name("flax_files.json").read_text(encoding="utf-8"))
TENSORS = {"a_0.kernel": torch.arange(12.0).view(3, 4) / 8, "layers.w": torch.arange(24.0).view(2, 3, 4),
           "b": torch.tensor([1.5, -2.0])}
WHOLE = {f"params.{n}": t for n, t in TENSORS.items()} | {"step": torch.tensor(7)}


def written(folder: Path, name: str) -> Path:
    found = RECORDED[name]
    for path, content in (found if isinstance(found, dict) else {name: found}).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(content))
    return folder if isinstance(found, dict) else folder / name


@pytest.mark.parametrize(("name", "want"), [("whole", WHOLE), ("stream", TENSORS), ("orbax, together", WHOLE)])
def test_every_tensor_is_read(tmp_path, name, want):
    files = flax_file(orbax_file(written(tmp_path, name)))
    assert files.shapes == {n: tuple(t.shape) for n, t in want.items()}
    for tensor, value in want.items():
        assert torch.equal(files.read(tensor).to(value.dtype), value)


def test_types_are_those_of_the_file(tmp_path):
    files = flax_file(written(tmp_path, "whole"))
    assert [files.read(f"params.{n}").dtype for n in TENSORS] == [torch.float32, torch.float16, torch.bfloat16]


def test_layers_of_one_tensor_are_read_one_by_one(tmp_path):
    """Also where a layer lies in two parts of the file: there are 48 bytes in each."""
    files = flax_file(written(tmp_path, "whole"), lambda n: n.replace("layers.w", "layer_*") if "layers" in n else None)
    rows = [files.read(f"params.layer_{i}").float() for i in range(2)]
    assert torch.equal(torch.stack(rows), TENSORS["layers.w"]) and "params.layers.w" not in files.shapes


def test_the_last_step_counts(tmp_path):
    """As a number: 10 comes after 9."""
    assert orbax_file(written(tmp_path, "orbax, together")) == tmp_path / "10" / "default" / "checkpoint"
    assert orbax_file(tmp_path / "9").parent.parent.name == "9"


def test_tensors_in_files_of_their_own_are_refused_with_what_joins_them(tmp_path):
    with pytest.raises(SourceError, match="a folder of its own") as error:
        flax_file(orbax_file(written(tmp_path, "orbax, apart")))
    assert "msgpack_serialize" in error.value.fix and str(tmp_path / "10" / "default") in error.value.fix
    with pytest.raises(SourceError, match="no file with all tensors"):
        orbax_file(tmp_path / "10" / "default" / "d")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_or_read(tmp_path, seed):
    """Cut at every length, and with random bytes: never another error than ours."""
    content, draw = base64.b64decode(RECORDED["whole"]), np.random.default_rng(seed)
    cut = [content[:n] for n in range(0, len(content), 3)]
    changed = []
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draw.integers(len(content))] = draw.integers(256)
        changed.append(bytes(damaged))
    refused, file = 0, tmp_path / "x.msgpack"
    for damaged in cut + changed:
        file.write_bytes(damaged)
        try:
            files = flax_file(file)
            for name in files.shapes:
                files.read(name)
        except SourceError:
            refused += 1
    assert refused >= len(cut)
    file.write_bytes(b"\x81\xa1a" * 500)
    with pytest.raises(SourceError, match="nested too deeply"):
        flax_file(file)
