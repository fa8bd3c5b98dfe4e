"""Imports LeRobot for its model code only, without the recording, hardware and dataset packages that it imports.

LeRobot 0.4.4 pins an older PyTorch and imports a dozen packages that inference never calls. Inside the `with`
block these are stubs, which are removed afterwards so that no other library uses them.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator

import torch

from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.quiet import quiet

# Packages that LeRobot imports and inference never calls.
NOT_CALLED = ("accelerate", "av", "datasets", "deepdiff", "gymnasium", "imageio", "jsonlines", "pandas", "pyarrow",
              "serial", "peft", "qwen_vl_utils", "torchdiffeq")


@contextlib.contextmanager
def lerobot_importable() -> Iterator[None]:
    """Within this context `import lerobot.policies...` works, and messages of LeRobot and transformers about training
    are
    suppressed. Raises SourceError if LeRobot is not installed, or in another version."""
    ENVIRONMENTS["lerobot"].require()
    _declare_torchvision_ops()
    finder = _Stubs({n for n in NOT_CALLED if importlib.util.find_spec(n) is None})
    sys.meta_path.append(finder)
    try:
        with quiet():
            yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.made:
            sys.modules.pop(name, None)


_TORCHVISION: list[torch.library.Library] = []  # keeps the declarations alive


def _declare_torchvision_ops() -> None:
    """Declare two operators of torchvision for CPU-only use: its CUDA wheels fail to load their C++ operators beside a
    CPU build of torch, and its import then fails on the undeclared ones (torchvision 0.28.0, torch 2.13.0)."""
    if "torchvision" in sys.modules or _TORCHVISION:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # already declared by a build whose operators do load
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _TORCHVISION.append(library)


class _AnyAttribute(type):
    def __getattr__(cls, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class _Anything(metaclass=_AnyAttribute):
    """Stub of any class of a stubbed package: can be subclassed and subscripted, and does nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __class_getitem__(cls, item):
        return cls

    def __init_subclass__(cls, **kwargs):
        pass


class _StubModule(types.ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names: set[str]):
        self.names, self.made = names, []

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        module = _StubModule(spec.name)
        module.__path__, module.__version__ = [], "0.0"
        self.made.append(spec.name)
        return module

    def exec_module(self, module):
        pass
