"""Files that TensorFlow wrote (recorded by record_tensorflow.py), read without it, and packed ones of our own."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import torch

from tests.samples import tensorflow_bundle
from vlacompile.frontends.tensorflow_files import FOOTER, HANDLES, tensorflow_files, tensorflow_index
from vlart.errors import SourceError

RECORDED = json.loads(Path(__file__).with_name("tensorflow_files.json").read_text(encoding="utf-8"))["files"]
TENSORS = {"part.kernel": torch.arange(12.0).view(3, 4) / 8, "part.half": torch.tensor([1.5, -2.0]).half(),
           "on": torch.tensor([True, False]), "step": torch.tensor(7), "nothing": torch.zeros(0, 3),
           **{f"layers.{i}": torch.tensor([i, i + 1], dtype=torch.bfloat16) for i in range(12)}}


@pytest.fixture
def index(tmp_path) -> Path:
    for name, content in RECORDED.items():
        (tmp_path / name).write_bytes(base64.b64decode(content))
    return tmp_path / "x.index"


def same(files, tensors) -> None:
    assert files.shapes == {n: tuple(t.shape) for n, t in tensors.items()}
    for name, tensor in tensors.items():
        found = files.read(name)
        assert found.dtype == tensor.dtype and torch.equal(found, tensor), name


def test_every_tensor_is_read_and_the_graph_of_objects_is_none(index):
    same(tensorflow_files(index), TENSORS)


@pytest.mark.parametrize("given", ["x.index", "x", "x.data-00000-of-00001", "."])
def test_a_checkpoint_is_named_by_any_of_its_files_or_its_directory(index, given):
    assert tensorflow_index(index.parent / given) == index


def test_of_two_checkpoints_in_a_directory_one_is_to_be_named(index):
    (index.parent / "y.index").write_bytes(index.read_bytes())
    with pytest.raises(SourceError, match="x.index, y.index") as error:
        tensorflow_index(index.parent)
    assert error.value.fix == f"give the file: --weights {index.parent / 'y.index'}"


@pytest.mark.parametrize("packed", [False, True])
def test_an_index_may_be_packed(tmp_path, packed):
    """By literals of every length and by copies, also of what they write themselves."""
    names = [f"agent.{'a' * n}.{'bc' * (n % 40)}.{n}" for n in range(1, 90)]
    tensors = {n: torch.full((2, i + 1), float(i)) for i, n in enumerate(names)}
    same(tensorflow_files(tensorflow_bundle.written(tmp_path / "x", tensors, packed)), tensors)


def test_a_cut_or_changed_index_is_refused_wherever_it_is(tmp_path):
    tensors = {f"layer.{i}": torch.arange(6.0).view(2, 3) + i for i in range(20)}
    index = tensorflow_bundle.written(tmp_path / "x", tensors, packed=True)
    whole = index.read_bytes()
    footer = range(len(whole) - FOOTER, len(whole) - FOOTER + HANDLES)
    unread = [at for at in footer if not whole[at]]  # the place of an empty block, and room behind the handles
    for at in range(len(whole)):
        for changed in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1:]):
            if len(changed) == len(whole) and at in unread:
                continue
            index.write_bytes(changed)
            with pytest.raises(SourceError, match="TensorFlow"):
                tensorflow_files(index)


def test_data_that_are_shorter_than_the_index_says_are_refused(index):
    data = index.with_name("x.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(SourceError, match="has not the size of its shape"):
        tensorflow_files(index)
    data.unlink()
    with pytest.raises(SourceError, match=data.name):
        tensorflow_files(index)
