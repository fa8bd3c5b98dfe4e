"""How a glue file imports an original: stubs for packages that inference never calls, and random draws as inputs."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

import torch
import torch._numpy as as_torch

from vlacompile.frontends.quiet import quiet
from vlacompile.frontends.stub_packages import declare_torchvision_ops, stubbed


@contextlib.contextmanager
def importable(*folders: Path, stubs: Iterable[str] = ()) -> Iterator[None]:
    """Within this context modules of the folders can be imported, and packages named in `stubs` that are not
    installed."""
    declare_torchvision_ops()
    sys.path[:0] = (paths := [str(folder) for folder in folders])
    try:
        with stubbed(stubs), quiet():
            yield
    finally:
        for path in paths:
            sys.path.remove(path)


def without_gpu() -> None:
    """`.cuda()` of tensors and modules does nothing from now on: originals call it whatever the machine has."""
    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self, *args, **kwargs: self


def random_weights(module: torch.nn.Module) -> torch.nn.Module:
    """The module, with small random numbers in parameters that start as zeros: behind a last layer of zeros every
    bundle would be right."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return module


class _Numpy:
    """torch's own NumPy, with the names of arguments that it lacks."""

    def __getattr__(self, name: str):
        return getattr(as_torch, name)

    @staticmethod
    def clip(a, a_min=None, a_max=None):
        return as_torch.clip(a, a_min, a_max)


@contextlib.contextmanager
def numpy_in_torch(module: types.ModuleType) -> Iterator[None]:
    """Within this context `np` of the module is torch's own NumPy, and `.numpy()` of a tensor gives its array, whose
    `.tensor` is the tensor: for a function that ends in NumPy, which no tracer follows."""
    with mock.patch.object(module, "np", _Numpy()), mock.patch.object(
            torch.Tensor, "numpy", lambda self, **kwargs: as_torch.asarray(self)):
        yield


@contextlib.contextmanager
def small_timm(**sizes) -> Iterator[None]:
    """Within this context timm makes vision transformers of these sizes (embed_dim, depth, num_heads), without weights
    from the network."""
    import timm

    original = timm.create_model
    with mock.patch.object(timm, "create_model", lambda name, pretrained=False, **kwargs: original(
            name, pretrained=False, **kwargs | sizes)):
        yield


def without_init(folder: Path, *packages: str) -> None:
    """Packages whose __init__.py is not run: those of large repositories import training and data sets."""
    for name in packages:
        module = types.ModuleType(name)
        module.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = module


def installed() -> Path:
    """The folder of installed packages."""
    return Path(sysconfig.get_path("purelib"))


def lightning() -> None:
    """Stands in for PyTorch Lightning, whose LightningModule is a torch.nn.Module for inference."""
    module = types.ModuleType("pytorch_lightning")

    class LightningModule(torch.nn.Module):
        device = torch.device("cpu")

        def save_hyperparameters(self, *args, **kwargs):
            pass

    module.LightningModule = LightningModule
    sys.modules[module.__name__] = module


def fix(kind: type, **values) -> None:
    """From now on these attributes of a configuration are as given, whatever is assigned to them."""
    for name, value in values.items():
        setattr(kind, name, property(lambda self, value=value: value, lambda self, other: None))
