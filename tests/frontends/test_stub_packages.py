"""Stubs let code import what it does not call, and are gone afterwards."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from vlacompile.frontends.stub_packages import stubbed

CODE = """
import absent.training
from absent import Trainer, logged, struct, plain
from absent.deep.inside import Config

@struct.dataclass
class State:
    config: Config[int] | None = None

@logged(every=10)
def step():
    return "step"

@plain
def other():
    return "other"

class Mine(Trainer, name="mine"):
    pass
"""


def test_code_around_missing_packages_is_as_written():
    names: dict = {}
    with stubbed(["absent", "json"]):
        exec(compile(CODE, "code", "exec"), names)
        assert importlib.import_module("json").dumps([1]) == "[1]"  # it is installed: no stub
    assert names["step"]() == "step" and names["other"]() == "other"
    assert isinstance(names["State"], type) and names["State"]().config is None and names["Mine"]()
    assert not any(name.split(".")[0] == "absent" for name in sys.modules)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("absent")


def test_a_part_of_a_package_can_be_a_stub(tmp_path, monkeypatch):
    (tmp_path / "partly").mkdir()
    (tmp_path / "partly" / "heavy.py").write_text("raise RuntimeError('not to be imported')", encoding="utf-8")
    (tmp_path / "partly" / "model.py").write_text("from .heavy import Trainer\nvalue = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with stubbed(["partly.heavy"]):
        assert importlib.import_module("partly.model").value == 1
    assert "partly.heavy" not in sys.modules
    with pytest.raises(RuntimeError, match="not to be imported"):
        importlib.import_module("partly.heavy")

TORCHVISION = """
import torch

from vlacompile.frontends.stub_packages import declare_torchvision_ops

made = []
def load_library(path):
    if not {loads}:
        raise OSError("it is for another build of PyTorch")
    if not made:  # a library that is loaded already does nothing
        made.append(torch.library.Library("torchvision", "DEF"))
        made[0].define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
torch.ops.load_library = load_library
declare_torchvision_ops()
import torchvision
assert torch.ops.torchvision.nms.default._schema.name == "torchvision::nms"
print("imported", len(made))
"""


@pytest.mark.parametrize("loads", [True, False])
def test_torchvision_is_imported_whether_or_not_its_library_loads(tmp_path, loads):
    """As its __init__.py does: a library that does not load is left out, and operators are registered for export."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "_C.so").touch()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torch\ntry:\n    torch.ops.load_library(__file__)\nexcept OSError:\n    pass\n"
        "torch.library.register_fake('torchvision::nms')(lambda dets, scores, iou_threshold: dets)\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", TORCHVISION.format(loads=loads)], capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])})
    assert done.stdout == f"imported {int(loads)}\n", done.stderr
