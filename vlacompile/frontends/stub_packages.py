"""Stubs of packages that a policy's code imports and its inference never calls, and of operators that do not load.

Must not know model families.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

_TORCHVISION: list[torch.library.Library] = []  # keeps the declarations alive


def declare_torchvision_ops() -> None:
    """Declare two operators of torchvision where its own cannot be loaded: its CUDA wheels fail to beside a CPU build
    of torch, and its import then fails on the undeclared ones (torchvision 0.28.0, torch 2.13.0). Where they load,
    PyTorch ends the process if they are declared before."""
    if "torchvision" in sys.modules or _TORCHVISION or _torchvision_s_own():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _TORCHVISION.append(library)


def _torchvision_s_own() -> bool:
    """Whether torchvision's operators are there, once its library is loaded as its import does it."""
    if (found := importlib.util.find_spec("torchvision")) is None or found.origin is None:
        return True
    for path in Path(found.origin).parent.glob("_C.*"):  # _C.so; _C.pyd on Windows
        with contextlib.suppress(OSError):
            torch.ops.load_library(str(path))
    return hasattr(torch.ops.torchvision, "nms")


@contextlib.contextmanager
def stubbed(names: Iterable[str]) -> Iterator[None]:
    """Within this context `import NAME`, `import NAME.ANYTHING` and names imported from them work for those of the
    packages that are not installed, and for modules inside a package ("package.part"), installed or not. The stubs are
    removed afterwards, so that no other library uses them."""
    finder = _Stubs({n for n in names if "." in n or importlib.util.find_spec(n) is None})
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.made:
            sys.modules.pop(name, None)


class _AnyAttribute(type):
    def __call__(cls, *args, **kwargs):
        """An instance; as a decorator, what is decorated."""
        if len(args) == 1 and not kwargs and isinstance(args[0], (type, types.FunctionType)):
            return args[0]
        return super().__call__(*args, **kwargs)

    def __getattr__(cls, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class _Anything(metaclass=_AnyAttribute):
    """Stub of any class of a stubbed package: can be subclassed, subscripted and used as a decorator, and does
    nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __post_init__(self):
        pass

    def __call__(self, *args, **kwargs):
        return args[0] if args and callable(args[0]) else self

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
        if any(fullname == name or fullname.startswith(name + ".") for name in self.names):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        module = _StubModule(spec.name)
        module.__path__, module.__version__ = [], "0.0"
        self.made.append(spec.name)
        return module

    def exec_module(self, module):
        pass
